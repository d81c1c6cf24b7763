"""One entry of the catalogue, frozen: its names, signatures, formula and example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

Kind = Literal[
    "tensor", "tensors", "number", "integer", "boolean", "string", "dtype", "numbers", "integers", "booleans"
]  # fmt: skip
KINDS: Final[tuple[str, ...]] = get_args(Kind)
TENSOR_KINDS: Final = ("tensor", "tensors")

# How the public function wants to be called.
#   function: f(a, b, keyword=c);  method: a.f(b, keyword=c);  variadic: f(*tensors, keyword=c)
#   equation: f(equation, *tensors)  (einsum)
Call = Literal["function", "method", "variadic", "equation"]

# Arguments by which an operation draws that is not known by drawing: attention, recurrent networks.
_DROPOUTS: Final = ("dropout", "dropout_p")


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument, in call order. `default` is meaningless where `required`.

    Attributes:
        bare: of a list: one bare value is handed to PyTorch as it is and stands for the whole list (`kernel_size=3`); elsewhere it
            becomes a list of one.
        nested: a list of lists is taken too (`tensordot`'s pair of axes).
        copied: PyTorch would write to this tensor (running statistics), so the call is given a copy.
    """

    name: str
    kind: Kind
    required: bool
    default: Any = None
    optional: bool = False  # None is a value it takes
    keyword_only: bool = False
    differentiable: bool = False
    meaning: str = ""
    bare: bool = False
    nested: bool = False
    copied: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """One output. With a single one its name is `output`, else PyTorch's (`values`, `indices`) or `output0`, `output1`…"""

    name: str
    differentiable: bool
    several: bool = False  # a list of tensors whose length the call decides (split, unbind): outputs are NAME.0, NAME.1 …


@dataclass(frozen=True, slots=True)
class Signature:
    arguments: tuple[Argument, ...]
    outputs: tuple[Output, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the catalogue.

    Attributes:
        name: PyTorch's name without `torch.` (`softmax`, `nn.functional.conv2d`, `linalg.pinv`).
        path: where the public function is, from `torch`: `softmax`, `nn.functional.conv2d`, `Tensor.repeat`.
        call: how that function wants its arguments.
        aliases: other names under which it is found (`nn.functional.softmax`, `Tensor.softmax`).
        order: how many times it can be differentiated: 0, 1, or 2 for twice and more.
        tags: of `pointwise reduction view random dynamic_shape`, and `method`.
        formula: `{"backward": …, "forward": …}`, PyTorch's own text, where it has one.
        example: a query that works as it stands.
        keywords: other words under which the search finds it.
    """

    name: str
    path: str
    call: Call
    summary: str
    documentation: str
    tags: tuple[str, ...]
    aliases: tuple[str, ...]
    order: int
    signatures: tuple[Signature, ...]
    formula: dict[str, str] | None
    example: dict[str, Any]
    keywords: str = ""

    @property
    def may_draw(self) -> bool:
        """Whether a call may draw random numbers, as some do with `dropout` alone; whether it does, its kernels tell."""
        return "random" in self.tags or any(a.name in _DROPOUTS for signature in self.signatures for a in signature.arguments)
