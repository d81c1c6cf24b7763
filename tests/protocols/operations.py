"""Operations with inputs and a cotangent, each also as the text of a function, for what every protocol must answer alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Case:
    """`shapes` of the float64 inputs by name; `call` is the operation's call in the query language; `output` its shape."""

    operation: str
    shapes: Mapping[str, tuple[int, ...]]
    output: tuple[int, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    positive: bool = False

    @property
    def function(self) -> str:
        return "same_" + self.operation.replace(".", "_")

    @property
    def text(self) -> str:
        """A function file that calls the operation."""
        arguments = ", ".join(f"{name}: float64[{', '.join(map(str, shape))}]" for name, shape in self.shapes.items())
        call = ", ".join([*self.shapes, *(f"{name}={value!r}" for name, value in self.parameters.items())])
        return f'def {self.function}({arguments}):\n    """One operation."""\n    return {self.operation}({call})\n'

    def inputs(self) -> dict[str, Array]:
        random = np.random.default_rng(len(self.operation))
        drawn = {name: random.standard_normal(shape) for name, shape in self.shapes.items()}
        return {name: np.abs(value) + 0.1 if self.positive else value for name, value in drawn.items()}

    def cotangent(self) -> Array:
        return np.random.default_rng(7).standard_normal(self.output)


_IMAGE: Final = (1, 2, 5, 5)
CASES: Final = (
    Case("sin", {"input": (5,)}, (5,)),
    Case("tanh", {"input": (2, 3)}, (2, 3)),
    Case("exp", {"input": (3,)}, (3,)),
    Case("log", {"input": (4,)}, (4,), positive=True),
    Case("sqrt", {"input": (4,)}, (4,), positive=True),
    Case("sigmoid", {"input": (2, 2)}, (2, 2)),
    Case("erf", {"input": (3,)}, (3,)),
    Case("lgamma", {"input": (3,)}, (3,), positive=True),
    Case("softmax", {"input": (2, 3)}, (2, 3), {"dim": 1}),
    Case("logsumexp", {"input": (2, 3)}, (2,), {"dim": 1}),
    Case("cumsum", {"input": (2, 3)}, (2, 3), {"dim": 0}),
    Case("mean", {"input": (2, 3)}, ()),
    Case("var", {"input": (6,)}, ()),
    Case("matmul", {"input": (2, 3), "other": (3, 4)}, (2, 4)),
    Case("mul", {"input": (2, 3), "other": (3,)}, (2, 3)),
    Case("atan2", {"input": (4,), "other": (4,)}, (4,)),
    Case("outer", {"input": (3,), "vec2": (2,)}, (3, 2)),
    Case("roll", {"input": (2, 3)}, (2, 3), {"shifts": 1, "dims": 1}),
    Case("tril", {"input": (3, 3)}, (3, 3)),
    Case("linalg.inv", {"A": (3, 3)}, (3, 3)),
    Case("linalg.det", {"A": (3, 3)}, ()),
    Case("nn.functional.gelu", {"input": (2, 3)}, (2, 3)),
    Case("nn.functional.conv2d", {"input": _IMAGE, "weight": (3, 2, 3, 3)}, (1, 3, 3, 3)),
    Case("nn.functional.mse_loss", {"input": (4,), "target": (4,)}, ()),
)
