"""Digits estimated by random rounding: the same run several times, each result of each call moved by up to one rounding error.

Monte Carlo arithmetic (D. S. Parker, "Monte Carlo Arithmetic", UCLA CSD-970002, 1997): the digits in which the runs agree are right.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.utils._pytree import tree_map

from app.catalogue.operator_mode import OperatorMode

# The standard deviation of 8 runs is within a factor of 2 of the true one in 99 % of all cases: 0.3 digits.
RUNS: Final = 8


class RandomRounding(OperatorMode):
    """While active, the result of every call that computes is moved by a random relative ±eps/2; views and copies are not.

    Arguments:
        eps: that of the arithmetic to be imitated; the tensors' own where left out.
        written_out: operations that have several steps in them round in each, as a person's formula for them does.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else each step pays 40 µs so that torch.compile, which we do not use, leaves this method alone

    def __init__(self, seed: int, eps: float | None = None, *, written_out: bool = False) -> None:
        super().__init__()
        self._eps = eps
        self._written_out = written_out
        self._generator = torch.Generator().manual_seed(seed)

    def dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func.is_view or func.overloadpacket.__name__ in _EXACT or func._schema.is_mutable:
            return func(*args, **kwargs)
        if func in _IN_STEPS or (self._written_out and func in _BY_FORMULA):
            with self:
                return (_OWN_FORMULAS.get(func) or decomposition_table[func])(*args, **kwargs)
        if torch.Tag.pointwise not in func.tags:
            # A sum, a product of matrices, a factorisation: its own rounding is that of its inputs, where it is backward stable.
            args, kwargs = tree_map(self._moved, (args, kwargs))
        return tree_map(self._moved, func(*args, **kwargs))

    def _moved(self, value: Any) -> Any:
        # Forward mode's own zeros have no memory, and whoever computes with them below autograd reads at address 0.
        if not (isinstance(value, Tensor) and value.dtype in _DTYPES) or value._is_zerotensor():
            return value
        noise = torch.rand(value.shape, generator=self._generator, dtype=torch.float64, device="cpu").to(value.device) - 0.5
        return value * (1 + noise * (self._eps or torch.finfo(value.dtype).eps))


# Of a result near zero such as log(1 + 1e-9), or 1 - exp of it, these have rounded what lies between: it takes all digits, which moving the
# result by parts of itself does not show.
_IN_STEPS: Final = frozenset({torch.ops.aten._log_softmax.default, torch.ops.aten._log_softmax_backward_data.default})


def _log_sigmoid_backward(cotangent: Tensor, x: Tensor, _: Tensor) -> Tensor:
    return cotangent * (1 - torch.sigmoid(x))


# Where PyTorch's formula is another than a person's.
_OWN_FORMULAS: Final = {torch.ops.aten.log_sigmoid_backward.default: _log_sigmoid_backward}
# What people write out in steps of their own: 1 + erf(x) of a large negative x has lost what gelu has not.
_BY_FORMULA: Final = frozenset(
    getattr(torch.ops.aten, name).default
    for name in (
        "gelu", "gelu_backward", "silu", "silu_backward", "mish", "mish_backward", "softplus", "softplus_backward",
        "log_sigmoid_forward", "log_sigmoid_backward", "elu_backward", "hardswish_backward", "glu_backward", "logit_backward", "sinc",
        "_softmax_backward_data", "native_layer_norm_backward", "native_group_norm_backward", "native_batch_norm_backward",
        "binary_cross_entropy_backward",
    )
)  # fmt: skip
_DTYPES: Final = frozenset({torch.float64, torch.complex128})
# What selects or sets elements rounds nothing, and its backward looks for what it selected bit by bit.
_EXACT: Final = frozenset(
    {
        "clone",
        "detach",
        "_to_copy",
        "cat",
        "stack",
        "index",
        "gather",
        "index_select",
        "zeros_like",
        "ones_like",
        "full_like",
        "neg",
    }
    | {
        "zeros",
        "ones",
        "full",
        "arange",
        "empty_like",
        "where",
        "masked_fill",
        "relu",
        "amax",
        "amin",
        "max",
        "min",
        "abs",
        "sign",
    }
    | {
        "median",
        "nanmedian",
        "mode",
        "kthvalue",
        "sort",
        "topk",
        "cummax",
        "cummin",
        "scatter",
        "masked_select",
        "flip",
        "roll",
    }
)
