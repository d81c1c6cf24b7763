"""Values and arguments of steps that are run again: by register, and with other numbers among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, fx

from app.program.resized import Arguments
from app.program.semantics import sizes
from app.program.semantics.sizes import Size


class ByRegister(Mapping[fx.Node, Any]):
    """The values of nodes, as far as they were computed; of others their geometries."""

    def __init__(self, values: list[Any], geometries: list[Any], registers: dict[fx.Node, int]) -> None:
        self._values, self._geometries, self._registers = values, geometries, registers

    def __getitem__(self, node: fx.Node) -> Any:
        register = self._registers[node]
        value = self._values[register]
        return self._geometries[register] if value is None else value

    def __iter__(self) -> Iterator[fx.Node]:
        return iter(self._registers)

    def __len__(self) -> int:
        return len(self._registers)


def filler(sized: Arguments | None) -> Callable[[list[Any]], Arguments]:
    """What puts numbers in the place of the sizes among a step's arguments, in their order."""
    args, kwargs = sized or ((), {})
    indices = [index for index, value in enumerate(args) if type(value) is Size]
    if len(indices) < len(sizes.within(sized)):  # in lists, slices or keywords
        return lambda numbers: _mapped(sized, iter(numbers))

    def filled(numbers: list[Any]) -> Arguments:
        values = list(args)
        for index, number in zip(indices, numbers, strict=True):
            values[index] = number
        return tuple(values), kwargs

    return filled


def _mapped(sized: Any, numbers: Iterator[Any]) -> Any:
    return sizes.mapped(sized, lambda _: next(numbers))


def form(value: Any) -> Any:
    """Ranks and dtypes, in the structure of the result."""
    if isinstance(value, Tensor):
        return value.dim(), value.dtype
    return tuple(map(form, value)) if isinstance(value, list | tuple) else None


def tensor_bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(tensor_bytes, value)) if isinstance(value, list | tuple) else 0
