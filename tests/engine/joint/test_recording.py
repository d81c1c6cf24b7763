"""Recordings give what was recorded, with other numbers too, and hold nothing that looks at numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from app.engine.joint.recording import UnrecordableError, record, same_bits


def gradient(function: Callable[..., Tensor]) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """Value and gradient of a sum, by autograd."""

    def compute(tensors: Sequence[Tensor]) -> list[Tensor]:
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        value = function(*leaves)
        return [value, *torch.autograd.grad(value.sum(), leaves)]

    return compute


RECORDABLE: dict[str, Callable[..., Tensor]] = {
    "softmax": lambda x, y: torch.softmax(x * y, -1),
    "product": lambda x, y: (x @ y.T).tanh() + 1,
    "views": lambda x, y: torch.cat([x[1:], y[:, 1:2].expand(3, 3)]).flip(0).reshape(-1)[::2],
    "several results": lambda x, y: torch.var_mean(x * y, 1)[0] + x.max(1).values,
    "branching by where": lambda x, y: torch.where(x > y, x.exp(), y**2),
    "a constant": lambda x, y: x * torch.arange(3, dtype=torch.float64) + torch.tensor([1.5, 2.5, 3.5]) * y,
    "the same twice": lambda x, y: x * x + x.clone() * y.detach() + y,
}


@pytest.mark.parametrize("function", RECORDABLE.values(), ids=RECORDABLE)
def test_a_tape_gives_the_same_bits_with_other_numbers(function: Callable[..., Tensor]) -> None:
    drawn = torch.Generator().manual_seed(3)
    compute = gradient(function)
    recording = record(compute, [torch.randn(3, 3, dtype=torch.float64, generator=drawn) for _ in range(2)])
    for _ in range(20):
        tensors = [torch.randn(3, 3, dtype=torch.float64, generator=drawn) for _ in range(2)]
        assert same_bits([value.detach() for value in compute(tensors)], recording(tensors))
    assert recording.bytes > 0


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * float(x.sum()),  # a number read from a tensor
        lambda x: x if bool((x > 0).all()) else -x,
        lambda x: x * torch.rand(3, 3, dtype=torch.float64),
        lambda x: x.prod(),  # its derivative counts zeros
        lambda x: torch.linalg.inv(x),  # says where a matrix is singular
        lambda x: x[x > 0].sum() + x.sum(),
        lambda x: x.clone().mul_(2),
        lambda x: x * torch.ones(200, 200, dtype=torch.float64).sum(),
    ],
)
def test_what_looks_at_numbers_or_writes_is_not_recorded(function: Callable[[Tensor], Tensor]) -> None:
    compute = gradient(function)
    tensors = [torch.rand(3, 3, dtype=torch.float64) + torch.eye(3, dtype=torch.float64)]
    try:
        recording = record(compute, tensors)
    except UnrecordableError:
        return
    other = [tensors[0] * 0 - 1]
    assert same_bits([value.detach() for value in compute(other)], recording(other)), "where it is recorded it is right"


def test_what_comes_from_elsewhere_is_not_recorded() -> None:
    outside = torch.tensor([1.0])
    with pytest.raises(UnrecordableError):
        record(lambda tensors: [tensors[0] + outside], [torch.tensor([2.0])])


@pytest.mark.parametrize("left", [torch.tensor([0.0]), torch.tensor([[1.0]]), torch.tensor([1]), None])
def test_bits_are_compared_with_dtypes_and_shapes(left: Tensor | None) -> None:
    others = [torch.tensor([-0.0]), torch.tensor([1.0]), torch.tensor([1], dtype=torch.int32)]
    assert same_bits([left], [left])
    assert not any(same_bits([left], [other]) for other in others)


def test_a_first_tensor_in_a_list_is_a_tensor() -> None:
    recording = record(lambda tensors: [torch.cat([tensors[0], tensors[0]])], [torch.tensor([1.0, 2.0])])
    assert recording([torch.tensor([3.0, 4.0])])[0].tolist() == [3.0, 4.0, 3.0, 4.0]


def test_a_power_by_a_tensor_is_none_by_a_number() -> None:
    inputs = [torch.rand(3) + 0.5 for _ in range(4)]
    for other in inputs[1:]:
        assert not record(lambda tensors: [tensors[0] ** other], inputs).is_same_in_stacks  # noqa: B023
    assert record(lambda tensors: [tensors[0] ** 2], inputs).is_same_in_stacks
