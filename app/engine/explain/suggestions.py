"""What to write instead of a step that cuts, flattens, bends or breaks a derivative.

Knows sentences, by what happened and at which function. Refuses to know how it was found out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# What happened to a path at a step:
#   integer, boolean: the result is discrete;  detach: taken out on purpose;  shape: only shape and dtype are used;
#   argument: no derivative with respect to this argument;  formula: PyTorch has none at all;  flat: zero almost everywhere;
#   zero: a derivative of zero although the value moves;
#   kink, jump, edge, singular, value: at this point;  unselected: 0 · infinity in a branch that is not taken.
# `{x}` is what the step works on, `{dim}` its axis.
_SOFT_ARGMAX: Final = (
    "Let every choice count by its weight: `w = softmax({x} / temperature, dim={dim})` in the place of the index, and `(w * values).sum({dim})` "
    "in the place of the picked value; or `nn.functional.gumbel_softmax({x}, hard=True, dim={dim})` for a hard choice that passes a gradient."
)
_SOFT_ARGMIN: Final = _SOFT_ARGMAX.replace("softmax({x}", "softmax(-{x}").replace("gumbel_softmax({x}", "gumbel_softmax(-{x}")
_COMPARISON: Final = (
    "Use a soft step, `sigmoid(({x} - threshold) / temperature)`, or keep the comparison only as the condition of "
    "`where(condition, a, b)`, which passes the gradients of `a` and `b`."
)
_STRAIGHT_THROUGH: Final = (
    "Use a smooth substitute, or pass the gradient straight through: `{x} + ({op}({x}) - {x}).detach()` has the value of `{op}` "
    "and the gradient of `{x}`."
)
_CAST: Final = "Keep `{x}` floating; if the whole number is needed, pass the gradient straight through: `{x} + (round({x}) - {x}).detach()`."
_SORTED: Final = (
    "The sorted values carry a gradient, their positions do not: take `.values` (`sort({x}).values`), "
    "or soft ranks such as `sigmoid(({x}[:, None] - {x}[None, :]) / temperature).sum(1)`."
)
_MASK: Final = "The positions found are whole numbers: multiply by a soft mask instead, `{x} * sigmoid({x} / temperature)`."
_DETACH: Final = "Leave out `detach` (`stop_gradient`, `.data`) where the gradient should pass."
_RIDGE: Final = (
    "Regularise: `linalg.solve({x}.mT @ {x} + eps * eye(n), {x}.mT)` in the place of the pseudo-inverse, which jumps where the "
    "rank changes."
)
_REPEATED: Final = (
    "Where eigenvalues repeat, the single eigenvectors are arbitrary: use what does not depend on their choice "
    "(the trace, the projector, a matrix function), or break the tie by a small fixed perturbation of `{x}`."
)
_TIE: Final = "Where a tie is likely, a smooth version shares the gradient: `logsumexp({x} / t, dim={dim}) * t` for `max`."
_NORM: Final = "Keep away from zero: `torch.sqrt(({x} ** 2).sum() + eps)`."
_DOUBLE_WHERE: Final = (
    "Make the argument harmless before the step, not only its result after it: "
    "`safe = where(condition, {x}, 1.0)`, then `where(condition, {op}(safe), 0.0)`."
)
_SOFT_SIGN: Final = (
    "Use a soft sign, `tanh({x} / temperature)`, or pass the gradient straight through: `{x} + (sign({x}) - {x}).detach()`."
)
_QUOTIENT: Final = (
    "Divide with `/`; if the whole number is needed, pass the gradient straight through: `q + (floor(q) - q).detach()` "
    "with `q = a / b`."
)
_SOFT_RELU: Final = (
    "Use a smooth version where it matters: `nn.functional.softplus({x})`, `nn.functional.gelu({x})` or "
    "`nn.functional.silu({x})`."
)
_SMOOTH_RELATIVES: Final = "Smooth relatives are `elu`, `nn.functional.gelu`, `nn.functional.silu`."
_BOUND: Final = "A smooth bound is `sigmoid` or `tanh`, scaled to the range."
_SMOOTH_ABS: Final = "Smooth relatives are `sqrt({x} ** 2 + eps)` and `nn.functional.smooth_l1_loss`."
_BLEND: Final = "Where both branches should meet smoothly, blend them: `s = sigmoid({x} / t)`, `s * a + (1 - s) * b`."
_PERIODIC: Final = "Keep away from the multiples, or use a periodic smooth function, `sin(2 * pi * {x} / period)`."
_DIVISOR: Final = "Keep the divisor away from zero: `a / (b + eps)`, or `where(b == 0, 1.0, b)` before the division."
_INSIDE: Final = "Clamp inside the domain: `{x}.clamp(-1 + eps, 1 - eps)`."
_ROW: Final = "A row of -inf everywhere has no softmax: leave at least one entry finite, or mask the result with `where`."
_SOFTER_MULTINOMIAL: Final = (
    "Use `nn.functional.gumbel_softmax(log(p), hard=True)`, or the score-function estimator `log(p[choice]) * reward.detach()`."
)
_LOG: Final = "Keep away from zero: `torch.log({x} + eps)`; of a softmax, use `log_softmax`."

_COMPARISONS: Final = (
    "gt",
    "ge",
    "lt",
    "le",
    "eq",
    "ne",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "not_equal",
    "isclose",
)
_SORTS: Final = ("sort", "argsort", "topk", "msort", "kthvalue", "searchsorted", "bucketize")
_EIGEN: Final = ("eigh", "eig", "eigvalsh", "eigvals", "svd", "svdvals", "qr")
_MAXIMA: Final = (
    "max",
    "amax",
    "argmax",
    "mode",
    "cummax",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "adaptive_max_pool2d",
    "median",
    "nanmedian",
)
_MINIMA: Final = ("min", "amin", "argmin", "cummin")

_TABLE: Final[Mapping[str, Mapping[str, str]]] = {
    "integer": {
        **dict.fromkeys(_MAXIMA, _SOFT_ARGMAX),
        **dict.fromkeys(_MINIMA, _SOFT_ARGMIN),
        **dict.fromkeys(_SORTS, _SORTED),
        **dict.fromkeys(("nonzero", "argwhere", "count_nonzero", "masked_select"), _MASK),
        "multinomial": _SOFTER_MULTINOMIAL,
        "": _CAST,
    },
    "boolean": {"": _COMPARISON, "isnan": "", "isfinite": "", "isinf": ""},
    "detach": {"": _DETACH},
    "shape": {"": "Nothing is lost here: only the shape is used. Write `{x}` itself into the computation if its values should count."},
    "argument": {"": "Write the step out in operations that have a derivative with respect to `{x}`."},
    "formula": {
        "heaviside": _COMPARISON,
        "floordiv": _QUOTIENT,
        "floor_divide": _QUOTIENT,
        "": "Write the step out in operations that have a derivative; `GET /v1/operations?differentiable=true` lists them.",
    },
    "flat": {
        "sign": _SOFT_SIGN,
        "sgn": "Use a soft sign, `{x} / ({x}.abs() + eps)`.",
        "": _STRAIGHT_THROUGH,
    },
    "zero": {
        "normal": "Draw around zero and shift: `mean + std * randn_like(mean)` passes the gradients of `mean` and `std`.",
        "": "Write the step out in operations that pass the derivative.",
    },
    "kink": {
        "relu": _SOFT_RELU,
        **dict.fromkeys(("relu6", "hardtanh", "clamp", "clip", "clamp_min", "clamp_max"), _BOUND),
        **dict.fromkeys(("leaky_relu", "prelu", "rrelu", "selu", "hardswish", "hardsigmoid"), _SMOOTH_RELATIVES),
        **dict.fromkeys(("abs", "absolute", "l1_loss"), _SMOOTH_ABS),
        **dict.fromkeys(("norm", "vector_norm", "dist", "cdist", "pdist", "pairwise_distance", "matrix_norm"), _NORM),
        **dict.fromkeys((*_MAXIMA, "maximum", "fmax", *_SORTS), _TIE),
        **dict.fromkeys((*_MINIMA, "minimum", "fmin"), _TIE.replace("({x} / t", "(-{x} / t").replace("* t`", "* -t`").replace("`max`", "`min`")),
        **dict.fromkeys(_EIGEN, _REPEATED),
        **dict.fromkeys((*_COMPARISONS, "where"), _BLEND),
        "": "",
    },
    "jump": {
        **dict.fromkeys(("pinv", "lstsq", "matrix_rank"), _RIDGE),
        **dict.fromkeys(_EIGEN, _REPEATED),
        **dict.fromkeys(_COMPARISONS, _COMPARISON),
        "atan2": "Keep away from the origin: the angle of (0, 0) is not defined.",
        **dict.fromkeys(("mod", "remainder", "fmod", "frac"), _PERIODIC),
        "": "",
    },
    "singular": {
        "sqrt": "Keep away from zero: `torch.sqrt({x} + eps)`.",
        "rsqrt": "Keep away from zero: `torch.rsqrt({x} + eps)`.",
        "pow": "Keep the base away from zero: `({x} + eps) ** p`.",
        **dict.fromkeys(("log", "log2", "log10"), _LOG),
        "log1p": "Keep away from -1: `torch.log1p({x}.clamp(min=-1 + eps))`.",
        **dict.fromkeys(("xlogy", "xlog1py", "entr"), "Keep away from zero: `xlogy({x}, {x} + eps)`."),
        **dict.fromkeys(("truediv", "div", "divide", "true_divide", "reciprocal"), _DIVISOR),
        **dict.fromkeys(("acos", "asin", "arccos", "arcsin", "atanh", "arctanh", "erfinv"), _INSIDE),
        "logit": "Clamp inside the domain: `logit({x}, eps=1e-6)`.",
        **dict.fromkeys(("acosh", "arccosh"), "Clamp inside the domain: `{x}.clamp(min=1 + eps)`."),
        **dict.fromkeys(("norm", "vector_norm", "std", "cdist", "dist"), _NORM),
        **dict.fromkeys(_EIGEN, _REPEATED),
        **dict.fromkeys(("inv", "solve", "det", "logdet", "slogdet", "cholesky", "lstsq", "pinv"), "Regularise the matrix: `{x} + eps * eye(n)`."),
        **dict.fromkeys(("softmax", "log_softmax", "logsumexp"), _ROW),
        "atan2": "Keep away from the origin: the angle of (0, 0) is not defined.",
        "": "",
    },
    "unselected": {"": _DOUBLE_WHERE},
    "edge": {"": "Clamp inside the domain by a small margin."},
}  # fmt: skip
# What is not defined on one side is healed like what is not finite; so is a value that is not finite.
_SAME: Final[Mapping[str, tuple[str, ...]]] = {"edge": ("singular", "edge"), "value": ("singular",), "jump": ("jump", "kink")}


def way_out(what: str, function: str, *, x: str = "x", dim: int | None = None) -> str | None:
    """A sentence on what to write instead; None where none is known.

    Arguments:
        what: a key of the table, or `value`.
        function: the Python name of the function at the step (`argmax`, `gt`, `truediv`).
        x: what the step works on, as the program calls it.
    """
    for kind in _SAME.get(what, (what,)):
        rows = _TABLE[kind]
        text = rows.get(function, rows[""])
        if text:
            axis = "-1" if dim is None else str(dim)
            return text.replace("{x}", x).replace("{dim}", axis).replace("{op}", _WRITTEN.get(function, function))
    return None


_WRITTEN: Final[Mapping[str, str]] = {"floordiv": "floor", "truediv": "div", "mod": "remainder"}
