"""Better formulas for what loses digits: what a step is, in the language of patterns.py, and what to write instead.

Sources: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., chapters 1 and 27; W. Kahan's expm1 and log1p, and "Branch
cuts for complex elementary functions" (1987); M. Abramowitz and I. Stegun, "Handbook of Mathematical Functions", 4.3.34 to 4.3.37, 4.4.34 and
4.6.20 to 4.6.22; PyTorch's own fused functions. None is recommended by its shape alone: the report tries each and keeps what proves better.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Final

from torch import fx

from app.engine.precision import written_rewrites as written
from app.engine.precision.formula import Matcher, Rewrite
from app.engine.precision.patterns import Formula
from app.engine.stepwise.point import name_of

_OPERATIONS_KNOWN: Final = 1024  # names of steps, twice as many as the catalogue has
# A formula; several of which the first that fits is taken; or what no formula says.
_Entry = str | tuple[str, ...] | Matcher

# Terms of a series: of those of eˣ, the slowest, the tenth is 1e-17 of the first at the point where it is left.
_TERMS: Final = 10


def _growing(first: int) -> str:
    """1 + x/n + x²/n(n + 1) + …"""
    text = "1"
    for n in range(first + _TERMS, first - 1, -1):
        text = f"(1 + x / {n} * {text})" if text != "1" else f"(1 + x / {n})"
    return text


def _alternating(first: int) -> str:
    """1 - x²/n(n + 1) + x⁴/n(n + 1)(n + 2)(n + 3) - …"""
    text = "1"
    for n in range(first + _TERMS - 2, first - 1, -2):
        text = f"(1 - x ** 2 / {n * (n + 1)} * {text})" if text != "1" else f"(1 - x ** 2 / {n * (n + 1)})"
    return text


def _near_zero(series: str, quotient: str) -> str:
    """A quotient by x, `{}` in its text, beside its series: where that is taken it is divided by 1, so that 0 makes no NaN."""
    return f"where(abs(x) < 0.1, {series}, {quotient.format('where(abs(x) < 0.1, 1.0, x)')})"


def _odd(*coefficients: str) -> str:
    """x³·(c₀ + c₁x² + c₂x⁴ + …)"""
    text = ""
    for coefficient in reversed(coefficients):
        text = f"({coefficient} + x ** 2 * {text})" if text else f"({coefficient})"
    return f"x ** 3 * {text}"


# Of log(1 + x) with z = x / (2 + x), which is less than 0.053 there: 2 (z + z³/3 + z⁵/5 + …).
_Z: Final = "(x / (2 + x)) ** 2"
_LOGARITHM: Final = f"(1 / 3 + {_Z} * (1 / 5 + {_Z} * (1 / 7 + {_Z} * (1 / 9 + {_Z} / 11))))"
_TANGENT: Final = ("1 / 3", "2 / 15", "17 / 315", "62 / 2835", "1382 / 155925", "21844 / 6081075", "929569 / 638512875")
_ALTERNATELY: Final = tuple(f"-{c}" if k % 2 else c for k, c in enumerate(_TANGENT))
_ARC_SINE: Final = ("1 / 6", "3 / 40", "5 / 112", "35 / 1152", "63 / 2816", "231 / 13312", "143 / 10240", "6435 / 557056")
_ARC_TANGENT: Final = tuple(f"{'-' if k % 2 else ''}1 / {2 * k + 3}" for k in range(8))


def _beyond_x(function: str, series: str, sign: str) -> Iterator[str]:
    """f(x) − x and x − f(x), of which only x³ and more is left, with the series of the first times `sign`."""
    minus = "-" if sign == "" else ""
    yield f"{function}(x) - x → where(abs(x) < 0.1, {sign}{series}, {function}(x) - x)"
    yield f"x - {function}(x) → where(abs(x) < 0.1, {minus}{series}, x - {function}(x))"


FORMULAS: Final[tuple[_Entry, ...]] = (
    # Softmax and sums of exponentials.
    written.of_softmax,
    written.of_log_sums,
    "log(exp(x) + exp(y)) → logaddexp(x, y)",
    ("log(1 + exp(x)) → nn.functional.softplus(x, threshold=40.0)", "log(1 + x) → log1p(x)"),
    ("log(1 - sigmoid(x)) → nn.functional.logsigmoid(-x)", "log(1 - exp(x)) → log(-expm1(x))", "log(1 - x) → log1p(-x)"),
    # Logarithms.
    "log(sigmoid(x)) → nn.functional.logsigmoid(x)",
    "log(ndtr(x)) → special.log_ndtr(x)",
    written.of_log_products,
    "log(exp(x)) → x",
    "log(cosh(x)) → logaddexp(x, -x) - 0.6931471805599453",
    "log(det(x)) → logdet(x)",
    "log(x / y) → log(x) - log(y)",
    # Differences.
    "exp(x) - 1 → expm1(x)",
    "1 - cos(x) → 2 * sin(x / 2) ** 2",
    "1 - erf(x) → erfc(x)",
    "1 - sigmoid(x) → sigmoid(-x)",
    "1 - exp(x) → -expm1(x)",
    "1 - ndtr(x) → special.ndtr(-x)",
    "1 - tanh(x) ** 2 → cosh(x) ** -2",
    "1 - cos(x) ** 2 → sin(x) ** 2",
    "1 - sin(x) ** 2 → cos(x) ** 2",
    "1 - tanh(x) → 2 * sigmoid(-2 * x)",
    "x ** 2 - y ** 2 → (x - y) * (x + y)",
    "1 - x ** 2 → (1 - x) * (1 + x)",
    written.of_mean_squares,
    "sum(x ** 2) - sum(x) ** 2 / n → ((x - x.mean()) ** 2).sum()",
    ("(s + y) ** 0.5 - y ** 0.5 → s / (sqrt(y + s) + sqrt(y))", "x ** 0.5 - y ** 0.5 → (x - y) / (sqrt(x) + sqrt(y))"),
    "lgamma(1 + x) - lgamma(x) → log(x)",
    ("log(s + y) - log(y) → log1p(s / y)", "log(x) - log(y) → log1p((x - y) / y)"),
    ("exp(s + y) - exp(y) → exp(y) * expm1(s)", "exp(x) - exp(y) → exp(y) * expm1(x - y)"),
    "digamma(1 + x) - digamma(x) → 1 / x",
    # Ratios and products of exponentials.
    written.of_softmax_ratios,
    "1 / (1 + exp(-x)) → sigmoid(x)",
    "exp(x) / (1 + exp(x)) → sigmoid(x)",
    "(exp(x) - exp(-x)) / (exp(x) + exp(-x)) → tanh(x)",
    "(exp(x) - exp(-x)) / 2 → sinh(x)",
    "0.5 * (exp(x) - exp(-x)) → sinh(x)",
    "0.5 * (1 + erf(x)) → 0.5 * erfc(-x)",
    # Norms, losses, roots of quadratics.
    "(x ** 2 + y ** 2) ** 0.5 → hypot(x, y)",
    "sum(x ** 2) ** 0.5 → x.abs().max().detach() * sqrt(((x / x.abs().max().detach()) ** 2).sum())",
    "binary_cross_entropy(sigmoid(x), y) → nn.functional.binary_cross_entropy_with_logits(x, y)",
    "log10(1 + x) → log1p(x) / 2.302585092994046",
    "log2(1 + x) → log1p(x) / 0.6931471805599453",
    *(f"(sqrt(m := b ** 2 - {ac}) + -b) / (2 * a) → 2 * c / (-b - sqrt(m))" for ac in written.FOUR_A_C),
    *(f"(-b - sqrt(m := b ** 2 - {ac})) / (2 * a) → 2 * c / (-b + sqrt(m))" for ac in written.FOUR_A_C),
    # Compositions.
    "log1p(exp(x)) → nn.functional.softplus(x, threshold=40.0)",
    ("log(1 / (1 + exp(-x))) → nn.functional.logsigmoid(x)", "log(1 / (1 + exp(x))) → nn.functional.logsigmoid(-x)"),
    written.of_log_means,
    "log(erfc(x)) → special.log_ndtr(-x * 1.4142135623730951) + 0.6931471805599453",
    written.of_long_sums,
    written.of_variances,
    "mean(x * y) - mean(x) * mean(y) → ((x - x.mean()) * (y - y.mean())).mean()",
    "cosh(x) - sinh(x) → exp(-x)",
    "cosh(x) - 1 → 2 * sinh(x / 2) ** 2",
    "sinh(x) / cosh(x) → tanh(x)",
    "exp(x) / exp(y) → exp(x - y)",
    (
        "sqrt(m := s + q ** 2) - q → s / (sqrt(m) + q)",
        "sqrt(m := s + 1) - (q := 1) → s / (sqrt(m) + q)",
        "sqrt(m := q ** 2 - s) - q → -s / (sqrt(m) + q)",
        "sqrt(m := 1 - s) - (q := 1) → -s / (sqrt(m) + q)",
        "q - sqrt(m := s + q ** 2) → -s / (sqrt(m) + q)",
        "(q := 1) - sqrt(m := s + 1) → -s / (sqrt(m) + q)",
        "q - sqrt(m := q ** 2 - s) → s / (sqrt(m) + q)",
        "(q := 1) - sqrt(m := 1 - s) → s / (sqrt(m) + q)",
    ),
    ("1 / (p := s + q) - 1 / q → -s / (p * q)", "1 / p - 1 / q → (q - p) / (p * q)"),
    "prod(x) ** y → exp(y * log(x).sum())",
    # What is added to 1, or taken from it.
    written.of_powers_of_numbers,
    "d ** y - 1 → expm1(y * log(d))",
    "1 - d ** y → -expm1(y * log(d))",
    "(1 + d) ** y → exp(y * log1p(d))",
    "(1 - d) ** y → exp(y * log1p(-d))",
    "1 / (1 + d) - 1 → -d / (1 + d)",
    "1 - 1 / (1 + d) → d / (1 + d)",
    "exp(log(x) + log(y)) → x * y",
    "exp(log(x) - log(y)) → x / y",
    "log(exp(x) / (1 + exp(x))) → nn.functional.logsigmoid(x)",
    "acos(1 - x) → 2 * asin(sqrt(x / 2))",
    # Addition theorems.
    ("sin(s + q) - sin(q) → 2 * cos(q + s / 2) * sin(s / 2)", "sin(p) - sin(q) → 2 * cos((p + q) / 2) * sin((p - q) / 2)"),
    ("cos(s + q) - cos(q) → -2 * sin(q + s / 2) * sin(s / 2)", "cos(p) - cos(q) → -2 * sin((p + q) / 2) * sin((p - q) / 2)"),
    ("atan(p := s + q) - atan(q) → atan(s / (1 + p * q))", "atan(p) - atan(q) → atan((p - q) / (1 + p * q))"),
    "sigmoid(p) - sigmoid(q) → -sigmoid(p) * sigmoid(-q) * expm1(q - p)",
    "erf(p) - erf(q) → erfc(q) - erfc(p)",
    "erf(p) - erf(q) → erfc(-p) - erfc(-q)",
    "tan(x) - sin(x) → 2 * tan(x) * sin(x / 2) ** 2",
    "cos(x) ** 2 - sin(x) ** 2 → cos(2 * x)",
    "sin(x) * cos(y) - cos(x) * sin(y) → sin(x - y)",
    # What two terms share.
    "x * log(p) - x * log(q) → x * log1p((p - q) / q)",
    "(s + a) ** 2 - a ** 2 → s * (2 * a + s)",
    "ndtr(p) - ndtr(q) → 0.5 * (erfc(q * 0.7071067811865476) - erfc(p * 0.7071067811865476))",
    "ndtr(p) - ndtr(q) → 0.5 * (erfc(-p * 0.7071067811865476) - erfc(-q * 0.7071067811865476))",
    # Functions and their inverses.
    *(f"{outer}({inner}(x)) → x" for outer, inner in written.INVERSES.items()),
    "log(sigmoid(x) / (1 - sigmoid(x))) → x",
    "log(q / (1 - q)) → log(q) - log1p(-q)",
    "log(q / (1 - q)) → log1p((2 * q - 1) / (1 - q))",
    "log(sigmoid(x)) - log(1 - sigmoid(x)) → x",
    "log(q) - log(1 - q) → log(q) - log1p(-q)",
    "log(q) - log(1 - q) → log1p((2 * q - 1) / (1 - q))",
    "acosh(1 + x) → 2 * asinh(sqrt(x / 2))",
    "atanh(1 - x) → (log(2 - x) - log(x)) / 2",
    "asin(1 - x) → 1.5707963267948966 - 2 * asin(sqrt(x / 2))",
    "x ** 2 - 1 → (x - 1) * (x + 1)",
    "cos(x) - 1 → -2 * sin(x / 2) ** 2",
    "log((1 + x) / (1 - x)) → 2 * atanh(x)",
    "log(x + sqrt(x ** 2 - 1)) → acosh(x)",
    "log(x + sqrt(1 + x ** 2)) → asinh(x)",
    "log(cosh(x)) → log1p(2 * sinh(x / 2) ** 2)",
    "(exp(x) - 1) / (1 + exp(x)) → tanh(x / 2)",
    "(1 - exp(x)) / (1 + exp(x)) → -tanh(x / 2)",
    "2 * sigmoid(x) - 1 → tanh(x / 2)",
    # Quotients of what vanishes with what they are divided by, whose derivatives cancel: the series near zero.
    *(f"{quotient} → {_near_zero(_growing(2), 'expm1(x) / {}')}" for quotient in ("(exp(x) - 1) / x", "expm1(x) / x")),
    f"(exp(x) - 1 - x) / x ** 2 → {_near_zero(f'0.5 * {_growing(3)}', '(expm1(x) - x) / {} ** 2')}",
    f"(1 - cos(x)) / x ** 2 → {_near_zero(f'0.5 * {_alternating(3)}', '2 * (sin(x / 2) / {}) ** 2')}",
    f"sin(x) / x → {_near_zero(_alternating(2), 'sin(x) / {}')}",
    f"sin(x) - x → where(abs(x) < 0.1, -x ** 3 / 6 * {_alternating(4)}, sin(x) - x)",
    f"x - sin(x) → where(abs(x) < 0.1, x ** 3 / 6 * {_alternating(4)}, x - sin(x))",
    "log(exp(y) - exp(x)) → y + log(-expm1(x - y))",
    "x ** 2 / y ** 2 → (x / y) ** 2",
    # What cancels.
    "(d + a) - a → d",
    "1 / q - 1 / (p := s + q) → s / (q * p)",
    written.of_squares_multiplied_out,
    written.of_cosine_distances,
    # Flat tails: what PyTorch has as (1 + erf(x / sqrt(2))) / 2 has no digits left in the lower one, and a sigmoid's derivative none either.
    "1 + erf(x) → erfc(-x)",
    "k + k * erf(x) → k * erfc(-x)",
    "k - k * erf(x) → k * erfc(x)",
    written.of_half_angles,
    "ndtr(x) → 0.5 * erfc(-x * 0.7071067811865476)",
    "1 - ndtr(x) → 0.5 * erfc(x * 0.7071067811865476)",
    "sigmoid(x) → exp(nn.functional.logsigmoid(x))",
    "1 / (1 + exp(-x)) → exp(nn.functional.logsigmoid(x))",
    "exp(x) / (1 + exp(x)) → exp(nn.functional.logsigmoid(x))",
    "tanh(x) → 1 - 2 * exp(nn.functional.logsigmoid(-2 * x))",
    "tanh(x) → 2 * exp(nn.functional.logsigmoid(2 * x)) - 1",
    # Products of what overflows with what underflows, and Bessel functions without their exponential growth.
    "exp(x) * exp(y) → exp(x + y)",
    "exp(-x) * i0(x) → special.i0e(x)",
    "exp(-x) * i1(x) → special.i1e(x)",
    "i0(x) / i1(x) → special.i0e(x) / special.i1e(x)",
    "i1(x) / i0(x) → special.i1e(x) / special.i0e(x)",
    "log(i0(x)) → log(special.i0e(x)) + abs(x)",
    # A triangle's half perimeter without one of its sides (W. Kahan, Miscalculating Area and Angles of a Needle-like Triangle, 2014).
    *(f"{half} - p → (q - (p - r)) / 2" for half in ("(p + q + r) / 2", "0.5 * (p + q + r)")),
    *(f"{half} - p → (r - (p - q)) / 2" for half in ("(p + q + r) / 2", "0.5 * (p + q + r)")),
    *(f"{half} - r → (p - (r - q)) / 2" for half in ("(p + q + r) / 2", "0.5 * (p + q + r)")),
    *(f"{half} - r → (q - (r - p)) / 2" for half in ("(p + q + r) / 2", "0.5 * (p + q + r)")),
    # Angles.
    written.of_angles,
    "acos(x) → 2 * atan2(sqrt(1 - x), sqrt(1 + x))",
    "asin(x) → 2 * atan2(x, 1 + sqrt((1 - x) * (1 + x)))",
    # What is left of a quotient beside 1.
    "x / (s + x) - 1 → -s / (s + x)",
    "1 - x / (s + x) → s / (s + x)",
    # What is left beyond the first term of a series.
    f"log(1 + x) / x → {_near_zero(f'2 / (2 + x) * (1 + {_Z} * {_LOGARITHM})', 'log1p(x) / {}')}",
    f"log1p(x) / x → {_near_zero(f'2 / (2 + x) * (1 + {_Z} * {_LOGARITHM})', 'log1p(x) / {}')}",
    *(
        f"x - {log} → where(abs(x) < 0.1, x / (2 + x) * (x - 2 * {_Z} * {_LOGARITHM}), x - log1p(x))"
        for log in ("log(1 + x)", "log1p(x)")
    ),
    f"log(1 + x) - x → where(abs(x) < 0.1, x / (2 + x) * (2 * {_Z} * {_LOGARITHM} - x), log1p(x) - x)",
    *_beyond_x("tan", _odd(*_TANGENT), ""),
    *_beyond_x("tanh", _odd(*_ALTERNATELY), "-"),
    *_beyond_x("asin", _odd(*_ARC_SINE), ""),
    *_beyond_x("atan", _odd(*_ARC_TANGENT), "-"),
    *_beyond_x("sinh", f"x ** 3 / 6 * {_alternating(4).replace('1 - x', '1 + x')}", ""),
    # Lengths whose squares overflow or underflow.
    *(f"{norm}(x) → x.abs().max().detach() * (x / x.abs().max().detach()).norm()" for norm in ("norm", "vector_norm")),
    *(f"x / {norm}(x) → x / x.abs().max() / (x / x.abs().max()).norm()" for norm in ("norm", "vector_norm")),
    # Numbers far from zero lose the digits that their mean has in common with them.
    "var(x) → (x - x.reshape(-1)[0].detach()).var()",
    "std(x) → (x - x.reshape(-1)[0].detach()).std()",
)


def rewrites(graph: fx.Graph) -> list[Rewrite]:
    """Every better formula that fits some step of `graph`, in the order of the steps."""
    return [rewrite for node in graph.nodes if node.op == "call_function" for rewrite in _of(node)]


def _of(node: fx.Node) -> Iterator[Rewrite]:
    for entry in _entries(name_of(node)):
        if callable(entry):
            yield from entry(node)
        else:
            rewrite = next((each for formula in entry if (each := formula.of(node)) is not None), None)
            if rewrite is not None:
                yield rewrite


@cache
def _read() -> tuple[tuple[Formula, ...] | Matcher, ...]:
    return tuple(
        entry if callable(entry) else tuple(map(Formula, (entry,) if isinstance(entry, str) else entry)) for entry in FORMULAS
    )


@lru_cache(_OPERATIONS_KNOWN)
def _entries(name: str) -> tuple[tuple[Formula, ...] | Matcher, ...]:
    """Those that may replace a step of this name."""
    of_name = (entry if callable(entry) else tuple(each for each in entry if name in each.roots) for entry in _read())
    return tuple(entry for entry in of_name if entry)
