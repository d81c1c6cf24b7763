"""The operators of stacks: a number has the same bits wherever in memory it stands, on the machine that runs this."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from app.engine.joint.operators import is_recordable, is_same_in_stacks, name_of

UNARY = (
    "neg abs sqrt rsqrt reciprocal square exp expm1 log log2 log10 log1p sin cos tan asin acos atan tanh asinh erf erfc lgamma digamma relu "
    "sign floor ceil round trunc"
)
aten = torch.ops.aten
OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: torch.softmax(x, -1),
    "log_softmax": lambda x: torch.log_softmax(x, -1),
    "tanh_backward": lambda x: aten.tanh_backward(x, x),
    "sum": lambda x: x.sum(-1),
    "mean": lambda x: x.mean(-1),
    "cumsum": lambda x: x.cumsum(-1),
    "amax": lambda x: x.amax(-1),
    "square": lambda x: x**2,
    "cube": lambda x: x**3,
    "quotient": lambda x: x / (x + 1),
    "fmod": lambda x: torch.fmod(x, 0.3),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", [*UNARY.split(), *OTHERS])
def test_a_row_of_a_stack_has_the_bits_that_it_has_alone(name: str, dtype: torch.dtype) -> None:
    function = OTHERS.get(name) or getattr(torch, name)
    drawn = torch.Generator().manual_seed(5)
    for length in (1, 3, 7, 8, 10, 15, 33):
        for size in (4, 64):
            rows = torch.rand(size, length, dtype=dtype, generator=drawn) * 0.98 + 0.01
            together = function(rows)
            assert all(torch.equal(together[row], function(rows[row].clone())) for row in range(size)), (length, size)


@pytest.mark.parametrize(
    ("operator", "recordable", "stacked"),
    [
        (aten.add.Tensor, True, True),
        (aten._softmax.default, True, True),
        (aten.sigmoid.default, True, False),
        (aten.mm.default, True, False),
        (aten.prod.default, False, False),
        (aten.linalg_inv_ex.default, False, False),
        (aten.add_.Tensor, False, False),
        (aten.bernoulli.default, False, False),
        (aten._local_scalar_dense.default, False, False),
        (aten.nonzero.default, False, False),
    ],
    ids=str,
)
def test_the_lists(operator: object, recordable: bool, stacked: bool) -> None:
    assert is_recordable(operator) is recordable
    assert not recordable or is_same_in_stacks(operator, ()) is stacked
    assert name_of(aten.sum.dim_IntList) == "sum"


def test_powers() -> None:
    assert is_same_in_stacks(aten.pow.Tensor_Scalar, (None, 2))
    assert not is_same_in_stacks(aten.pow.Tensor_Scalar, (None, 2.5))
