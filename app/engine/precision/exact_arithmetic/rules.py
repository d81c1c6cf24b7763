"""The table of exact rules: ATen call → what it means in numbers of 60 digits or more."""

from __future__ import annotations

from typing import Any, Final

import torch

from app.engine.precision.exact_arithmetic.matrices import MATRICES
from app.engine.precision.exact_arithmetic.moves import MOVES
from app.engine.precision.exact_arithmetic.numbers import Rule
from app.engine.precision.exact_arithmetic.pointwise import POINTWISE
from app.engine.precision.exact_arithmetic.reductions import REDUCTIONS

_aten: Final = torch.ops.aten
_PRIMITIVES: Final = (
    "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "sin", "cos", "tan", "tanh", "erf", "erfc", "abs", "neg", "pow", "mul", "add", "sub",
    "div", "atan2", "where", "maximum", "minimum", "sum", "reshape", "transpose", "squeeze", "sign", "floor", "reciprocal", "log_sigmoid",
)  # fmt: skip

ATEN: Final[dict[str, Rule]] = {**POINTWISE, **REDUCTIONS, **MOVES, **MATRICES}
# What some decompositions are written in.
PRIMS: Final[dict[str, Rule]] = {
    **{name: ATEN[name] for name in _PRIMITIVES},
    "broadcast_in_dim": ATEN["expand"],
    "view_of": ATEN["clone"],
    "convert_element_type": ATEN["clone"],
}
# In-place call → the functional one that says what it writes.
INPLACE: Final[dict[str, Any]] = {
    "add_": _aten.add.Tensor, "sub_": _aten.sub.Tensor, "mul_": _aten.mul.Tensor, "div_": _aten.div.Tensor,
    "masked_fill_": _aten.masked_fill.Scalar, "index_put_": _aten.index_put.default, "scatter_add_": _aten.scatter_add.default,
    "index_add_": _aten.index_add.default, "neg_": _aten.neg.default,
}  # fmt: skip
