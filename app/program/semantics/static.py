"""Plain values of a program: numbers, strings, lists, and the bounded arithmetic on them."""

from __future__ import annotations

import difflib
import math
import operator
import posixpath
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from app.program.reading.source import Refusal
from app.program.semantics import sizes

INTEGER_BITS: Final = 256  # a plain integer on the way to one of 64 bits: products of four of them; `9**9**9` would never end
LENGTH_LIMIT: Final = 10_000  # of a list, and turns of all loops together: 10,000 additions of plain numbers take 0.06 s
UNKNOWN_TEXT: Final = "a text"  # of what is no plain value: it is not written out
TEXT_OF_A_NUMBER: Final = 100  # characters of what `int` and `float` read; longer ones are no number that a program uses
NESTING_LIMIT: Final = 32  # of lists in lists: as deep as tensors go (RANK_LIMIT)

Number = (bool, int, float, complex)

OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "//": operator.floordiv, "%": operator.mod,
    "**": operator.pow, "@": operator.matmul, "&": operator.and_, "|": operator.or_, "^": operator.xor, "<<": operator.lshift,
    ">>": operator.rshift, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
UNARY: Final[dict[str, Callable[[Any], Any]]] = {"-": operator.neg, "+": operator.pos, "~": operator.invert}
COMPARISONS: Final = ("<", "<=", ">", ">=", "==", "!=")

# `sqrt(d)` of a plain number, as in `q @ k.T / sqrt(d)`.
MATH: Final[dict[str, Callable[..., Any]]] = {
    name: getattr(math, name)
    for name in (
        "sqrt", "exp", "log", "log2", "log10", "log1p", "expm1", "sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh",
        "tanh", "floor", "ceil", "trunc", "fabs", "erf", "erfc", "lgamma", "hypot", "degrees", "radians", "isnan", "isinf", "isfinite",
        "pow", "fmod", "copysign", "gcd", "lcm", "cbrt", "exp2", "prod", "factorial", "comb", "isclose", "dist", "gamma", "fsum",
    )
}  # fmt: skip
CONSTANTS: Final[dict[str, float]] = {"pi": math.pi, "e": math.e, "inf": math.inf, "nan": math.nan, "tau": math.tau}


def is_python(value: object) -> bool:
    """Whether it is a value of Python's own: what an operator or a call of it refuses, Python refuses too."""
    return value is None or isinstance(value, (*Number, str, list, tuple, dict, range))


def is_number(value: object) -> bool:
    return isinstance(value, Number)


def bounded(value: Any) -> Any:
    """`value`, refused where it is an integer of more than `INTEGER_BITS` bits."""
    if not sizes.is_size(value) and isinstance(value, int) and value.bit_length() > INTEGER_BITS:
        raise Refusal(
            f"This integer has {value.bit_length():,} bits; the limit is {INTEGER_BITS}.",
            "Use floating-point numbers (`2.0 ** n`).",
        )
    return value


class PathText(str):
    """`pathlib.Path("runs")`: a text, as no file is read or written here."""

    __slots__ = ()
    name = property(lambda self: posixpath.basename(self))
    stem = property(lambda self: posixpath.splitext(self.name)[0])
    suffix = property(lambda self: posixpath.splitext(self.name)[1])
    parent = property(lambda self: PathText(posixpath.dirname(self) or "."))


def joined_path(*parts: Any) -> PathText:
    """`Path("runs") / "best.pt"`, `os.path.join("runs", "best.pt")`."""
    if not all(isinstance(part, str) for part in parts):
        raise Refusal("A path is made of texts.", "Write `str(value)`.", raises="TypeError")
    check_length(sum(map(len, parts)))
    return PathText(posixpath.normpath(posixpath.join(*parts)) if parts else ".")


def binary(symbol: str, left: Any, right: Any) -> Any:
    """`left symbol right` on plain values, refused before it could grow large."""
    if symbol == "/" and (isinstance(left, PathText) or isinstance(right, PathText)):
        return joined_path(left, right)
    if isinstance(left, str) or isinstance(right, str):
        return _strings(symbol, left, right)
    if isinstance(left, list | tuple | range) or isinstance(right, list | tuple | range):
        return _lists(symbol, left, right)
    if not (is_number(left) and is_number(right)):
        raise _misfit(symbol, left, right)
    if symbol == "**" and isinstance(left, int) and isinstance(right, int) and right > 0:
        _check_power(left, right)
    if symbol == "<<" and isinstance(right, int) and right > INTEGER_BITS:
        raise Refusal(f"A shift by more than {INTEGER_BITS} bits is not in the language.")
    return bounded(computed(OPERATORS[symbol], left, right, what=f"`{symbol}`"))


def computed(function: Callable[..., Any], *values: Any, what: str) -> Any:
    """`function(*values)` on plain numbers, Python's arithmetic errors made refusals."""
    try:
        return sizes.computed(function, *values) if sizes.holds(values) else function(*values)
    except ZeroDivisionError as error:
        raise Refusal(
            "This divides a plain number by zero.",
            "Write `inf` or `nan` if that is meant.",
            raises="ZeroDivisionError",
            arguments=error.args,
        ) from error
    except OverflowError as error:
        raise Refusal(
            f"The result of {what} is too large for a number.", "Write `inf` if that is meant.", raises="OverflowError"
        ) from error
    except (TypeError, ValueError, LookupError) as error:
        raise Refusal(
            f"{what} does not work on {', '.join(named(v) for v in values) or 'these values'}: {str(error)[:100]}.",
            raises=type(error).__name__,
            arguments=error.args if isinstance(error, ValueError) else None,
        ) from error


def _check_power(base: int, exponent: int) -> None:
    if abs(base) > 1 and exponent * math.log2(abs(base)) > INTEGER_BITS:
        raise Refusal(
            f"This power has more than {INTEGER_BITS} bits.",
            "Use floating-point numbers (`2.0 ** n`), or send the number as an input.",
        )


def _strings(symbol: str, left: Any, right: Any) -> Any:
    if symbol == "+" and isinstance(left, str) and isinstance(right, str):
        check_length(len(left) + len(right))
        return left + right
    if (
        symbol == "*"
        and isinstance(left, int | str)
        and isinstance(right, int | str)
        and not (_is_text(left) and _is_text(right))
    ):
        text, count = (str(left), int(right)) if isinstance(left, str) else (str(right), int(left))
        check_length(len(text) * max(count, 0))
        return text * count
    if symbol in COMPARISONS and isinstance(left, str) and isinstance(right, str):
        return OPERATORS[symbol](left, right)
    if is_unknown_text(left) or is_unknown_text(right):
        raise Refusal(
            "A text of a tensor, a dtype, a list or an object is not written out here, so it is not compared.",
            "Compare the value itself: `x.dtype == torch.float64`, `list(x.shape) == [3]`.",
        )
    if symbol in ("==", "!="):
        return bool(OPERATORS[symbol](left, right)) if not _is_list(left) and not _is_list(right) else symbol == "!="
    if is_python(left) and is_python(right) and symbol != "%":
        raise _misfit(symbol, left, right)
    raise Refusal(f"`{symbol}` on strings is not in the language.", "Strings can be compared with == and given to operations.")


def _misfit(symbol: str, left: Any, right: Any) -> Refusal:
    """The refusal of an operator; a `TypeError` of Python's, where both are values of its own."""
    raises = "TypeError" if is_python(left) and is_python(right) else None
    return Refusal(f"`{symbol}` does not work on {named(left)} and {named(right)}.", raises=raises)


def is_unknown_text(value: object) -> bool:
    """Whether it is the text of what is no plain value: `str(x)`."""
    return getattr(value, "what", None) == UNKNOWN_TEXT


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple | range)


def _lists(symbol: str, left: Any, right: Any) -> Any:
    if symbol == "+" and type(left) is type(right) and not isinstance(left, range):
        check_length(len(left) + len(right))
        return left + right
    if symbol == "*" and isinstance(left, int):
        left, right = right, left
    if symbol == "*" and _is_list(left) and not isinstance(left, range) and isinstance(right, int):
        check_length(len(left) * max(int(right), 0))
        return left * right
    if symbol in COMPARISONS:
        plain([left, right])
        return computed(OPERATORS[symbol], left, right, what=f"`{symbol}`")
    refusal = _misfit(symbol, left, right)
    refusal.fix = "Make a tensor of the list: `tensor([1.0, 2.0])` or `stack(list)`."
    raise refusal


def check_length(count: int) -> int:
    if count > LENGTH_LIMIT:
        raise Refusal(
            f"A list of {count:,} members is too long; the limit is {LENGTH_LIMIT:,}.",
            "Use a tensor (`arange`, `zeros`, an input).",
        )
    return count


def members_in(value: Any) -> int:
    """How many values `value` holds, nested lists included; refused where too many or too deep.

    Lists may share members (`a = [a, a]`), so this is counted before anything walks them by recursion.
    """
    stack, seen = [(value, 0)], 0
    while stack:
        item, depth = stack.pop()
        seen += 1
        if depth > NESTING_LIMIT or seen > LENGTH_LIMIT:
            raise Refusal(f"The list is nested more than {NESTING_LIMIT} deep or holds more than {LENGTH_LIMIT:,} values.")
        if isinstance(item, dict):
            item = list(item.values())
        if isinstance(item, list | tuple):
            check_length(seen + len(item))
            stack += [(member, depth + 1) for member in item]
    return seen


def counted(value: Any, spend: Callable[[int], None]) -> None:
    """Counts what a hash of `value`, or a comparison with it, goes through; refused where too many or too deep."""
    if isinstance(value, list | tuple | dict):
        spend(members_in(value) // 8)


def key(value: Any, spend: Callable[[int], None] = lambda amount: None, problem: str = "") -> Any:
    """`value`, which is about to be hashed or compared: both walk all that it holds by recursion, so that is counted first.

    Raises a refusal where it is nested too deep, holds too much, or has no hash; then in the words of `problem`.
    """
    counted(value, spend)
    try:
        hash(value)
    except TypeError:
        raise Refusal(
            problem or f"{named(value).capitalize()} is no key of a dict and no member of a set.",
            "Give tuples for lists.",
            raises="TypeError",
        ) from None
    return value


def plain(value: Any) -> None:
    """Refuse a value that is not made of plain numbers and strings."""
    members_in(value)
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, list | tuple):
            stack += item
        elif not (is_number(item) or item is None or isinstance(item, str | range)):
            raise Refusal(f"A plain number was needed here, not {named(item)}.", "Compare tensors one by one, or use `where`.")


class Budget:
    """How much a program may do while it is built, in evaluated expressions, so that no text keeps a worker busy."""

    LIMIT: Final = 200_000

    def __init__(self) -> None:
        self._left = self.LIMIT

    def spend(self, amount: int = 1) -> None:
        self._left -= amount
        if self._left < 0:
            raise Refusal(
                f"Unrolled, the program evaluates more than {self.LIMIT:,} expressions.",
                "Use operations on whole tensors in the place of loops.",
                code="too_costly",
            )


def named(value: Any) -> str:
    """What `value` is, in words."""
    if value is None or isinstance(value, bool):
        return f"`{value}`"
    if isinstance(value, int):
        return "an integer"
    if isinstance(value, float | complex):
        return "a number"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, list | range):
        return "a list"
    if isinstance(value, tuple):
        return "a tuple"
    if isinstance(value, dict):
        return "a dict"
    if hasattr(value, "meta"):
        return "a tensor"
    path = getattr(value, "path", None)
    if type(value).__name__ == "Foreign":
        return f"`{path}`, which has no value here"
    if isinstance(path, str):
        return f"the operation `{path}`, which is not called here"
    return _KINDS.get(type(value).__name__, f"a {type(value).__name__.lower()}")


# What the other values of a program are, by their classes.
_KINDS: Final = {
    "FunctionValue": "a function", "ClassValue": "a class", "Instance": "an object", "LayerValue": "a module", "Method": "a method",
    "DistributionValue": "a distribution", "Transformed": "a function", "Partial": "a function", "MultiOutput": "several tensors",
    "Inert": "something without a value here", "Device": "a device", "OptimizerValue": "an optimizer", "SchedulerValue": "a scheduler",
    "Iterator": "a generator", "Distinct": "a set", "dict_keys": "the keys of a dict", "dict_values": "the values of a dict",
    "dict_items": "the items of a dict", "ContextValue": "what a `with` enters", "ErrorValue": "an error",
    "Stream": "a generator of random numbers", "Batches": "a data loader", "Chosen": "a part of a dataset", "Sampler": "a sampler",
    "OptimizerState": "the state of an optimizer",
}  # fmt: skip


def nearest(name: str, others: Iterable[str]) -> str | None:
    """The one of `others` that is written most like `name`."""
    return next(iter(difflib.get_close_matches(name, list(others), n=1, cutoff=0.6)), None)


def integer(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refusal(
            f"{what} must be an integer known before tensors run, not {named(value)}.",
            "Use a number, a parameter of the query, or `x.shape[0]`.",
        )
    return value


def span(*bounds: Any) -> range:
    """Python's `range`."""
    if not 1 <= len(bounds) <= 3:
        raise Refusal("`range` takes one to three integers.")
    start_stop_step = [integer(bound, "A bound of `range`") for bound in bounds]
    return range(*start_stop_step) if start_stop_step[2:] != [0] else _zero_step()


def _zero_step() -> range:
    raise Refusal("The step of `range` must not be zero.")


def length(value: Sequence[Any] | range) -> int:
    """`len`, of a huge `range` too."""
    if isinstance(value, range):
        count = (value.stop - value.start + value.step - (1 if value.step > 0 else -1)) // value.step
        return max(count, 0)
    return len(value)


def cast(kind: str, value: Any) -> Any:
    """Python's `float`, `int`, `bool`, `complex` on a plain number; `float("inf")` too."""
    if isinstance(value, str):
        if kind not in ("float", "int") or len(value) > TEXT_OF_A_NUMBER:
            raise Refusal(f"`{kind}` of a string is not in the language.", "Write the number.")
        return bounded(computed({"float": float, "int": int}[kind], value, what=f"`{kind}`"))
    if not is_number(value):
        raise Refusal(f"`{kind}` does not work on {named(value)}.")
    makers: dict[str, Callable[[Any], Any]] = {"float": float, "int": int, "bool": bool, "complex": complex}
    return bounded(computed(makers[kind], value, what=f"`{kind}`"))
