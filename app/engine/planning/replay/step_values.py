"""Values of steps that are run again, and what is known of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, fx

# Of inputs, by their names.
Shapes = Mapping[str, tuple[int, ...]]


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


def form(value: Any) -> Any:
    """Ranks and dtypes, in the structure of the result."""
    if isinstance(value, Tensor):
        return value.dim(), value.dtype
    return tuple(map(form, value)) if isinstance(value, list | tuple) else None


def tensor_bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(tensor_bytes, value)) if isinstance(value, list | tuple) else 0
