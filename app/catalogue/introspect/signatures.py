"""From PyTorch's schemas and Python signatures to ours: names, kinds and defaults of arguments, names of outputs."""

from __future__ import annotations

import inspect
import re
from typing import Any, Final

import torch

from app.catalogue.entry import Argument, Kind, Output, Signature
from app.catalogue.introspect.names import Group
from app.catalogue.introspect.written import WRITTEN
from app.catalogue.left_out import LEFT_OUT, ONLY_IF_BOOLEAN

# The dispatcher's types, without Optional.
_KINDS: Final[dict[str, Kind]] = {
    "Tensor": "tensor",
    "List[Tensor]": "tensors",
    "List[Optional[Tensor]]": "tensors",
    "number": "number",
    "float": "number",
    "int": "integer",
    "bool": "boolean",
    "str": "string",
    "ScalarType": "dtype",
    "List[number]": "numbers",
    "List[float]": "numbers",
    "List[int]": "integers",
    "List[bool]": "booleans",
}
# Annotations of Python functions, without `| None`.
_ANNOTATIONS: Final[dict[str, Kind]] = {
    "torch.Tensor": "tensor",
    "torch.Tensor | torch.masked.maskedtensor.core.MaskedTensor": "tensor",
    "int": "integer",
    "float": "number",
    "int | float": "number",
    "bool": "boolean",
    "str": "string",
    "torch.dtype": "dtype",
    "list[int]": "integers",
    "list[float]": "numbers",
}
_NESTED: Final = {("tensordot", "dims")}
_OUTPUTS: Final[dict[str, tuple[str, ...]]] = {
    "lstm": ("output", "h_n", "c_n"),
    "lstm_cell": ("h_1", "c_1"),
    "gru": ("output", "h_n"),
    "rnn_tanh": ("output", "h_n"),
    "rnn_relu": ("output", "h_n"),
    "std_mean": ("std", "mean"),
    "var_mean": ("var", "mean"),
}


def signatures(group: Group) -> tuple[Signature, ...]:
    """The signatures of an operation, differentiability not yet known; equal ones once."""
    written = WRITTEN.get(group.path)
    if written is not None:
        schemas = [torch._C.parse_schema(f"pullback::written{text}") for text in written]
        read = [_from_schema(group.name, schema) for schema in schemas]
    elif inspect.isfunction(group.function):
        read = [_from_python(group.function)]
    else:
        read = [_from_schema(group.name, overload._schema) for overload in group.overloads]
    unique: dict[tuple[Any, ...], Signature] = {}
    for signature in read:
        if signature is not None:
            unique.setdefault(
                (tuple((a.name, a.kind, a.required) for a in signature.arguments), len(signature.outputs)), signature
            )
    return tuple(sorted(_without_weaker(list(unique.values())), key=_plainness))


def _plainness(signature: Signature) -> tuple[int, int]:
    """Tensors before numbers (`mul(input, other: tensor)` comes first), one integer before a list (`squeeze(input, dim: integer)`)."""
    required = [argument.kind for argument in signature.arguments if argument.required]
    return required.count("number"), required.count("integers")


def _without_weaker(signatures: list[Signature]) -> list[Signature]:
    """Without those that another says as well: `sum(input)` beside `sum(input, dim=None)`."""

    def covered(small: Signature, large: Signature) -> bool:
        beside = {a.name: a for a in large.arguments}
        if (
            {a.name for a in small.arguments} == {a.name for a in large.arguments}
            or len(small.outputs) != len(large.outputs)
            or len(small.arguments) >= len(large.arguments)
        ):
            return False
        for argument in small.arguments:
            other = beside.pop(argument.name, None)
            if other is None or (other.kind, other.required) != (argument.kind, argument.required):
                return False
        return not any(a.required for a in beside.values())

    return [s for s in signatures if not any(covered(s, other) for other in signatures if other is not s)]


def _left_out(name: str, kind: str | None) -> bool:
    return name in LEFT_OUT and (name not in ONLY_IF_BOOLEAN or kind == "boolean")


def _from_schema(name: str, schema: Any) -> Signature | None:
    arguments: list[Argument] = []
    gap = False
    for index, argument in enumerate(schema.arguments):
        text = str(argument.real_type)
        optional = text.startswith("Optional[")
        kind = _KINDS.get(re.sub(r"^Optional\[(.*)\]$", r"\1", text))
        required = not argument.has_default_value()
        if kind is None or _left_out(argument.name, kind):
            if required and not optional:
                return None
            gap = gap or not argument.kwarg_only
            continue
        nullable = optional and kind == "tensor"
        arguments.append(
            Argument(
                name="input" if argument.name == "self" else argument.name,
                kind=kind,
                required=required and not nullable,
                default=_default(argument.default_value) if argument.has_default_value() else None,
                optional=optional,
                keyword_only=argument.kwarg_only or (gap and index > 0),
                bare=argument.N is not None,
                nested=(name, argument.name) in _NESTED,
            )
        )
    return Signature(tuple(arguments), _outputs(name, schema.returns))


def _default(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list | tuple):
        return [_default(member) for member in value]
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _outputs(name: str, returns: Any) -> tuple[Output, ...]:
    if len(returns) == 1:
        return (Output("output", False, several="List" in str(returns[0].real_type)),)
    names = _OUTPUTS.get(name) or tuple(r.name or f"output{i}" for i, r in enumerate(returns))
    return tuple(
        Output(names[i] if i < len(names) else f"output{i}", False, several="List" in str(r.real_type))
        for i, r in enumerate(returns)
    )


def _from_python(function: Any) -> Signature:
    arguments: list[Argument] = []
    gap = False
    for parameter in inspect.signature(function).parameters.values():
        text = _annotation(parameter.annotation)
        optional = text.endswith(" | None")
        kind = "dtype" if parameter.name == "dtype" else _ANNOTATIONS.get(text.removesuffix(" | None"))
        if _left_out(parameter.name, kind):
            gap = True
            continue
        if kind is None:
            raise LookupError(f"{function.__module__}.{function.__name__}: write the signature; `{parameter.name}` is {text}")
        empty = parameter.default is inspect.Parameter.empty
        arguments.append(
            Argument(
                name=parameter.name,
                kind=kind,
                required=empty and not (optional and kind == "tensor"),
                default=None if empty else _default(parameter.default),
                optional=optional,
                keyword_only=gap or parameter.kind is inspect.Parameter.KEYWORD_ONLY,
            )
        )
    returned = _annotation(inspect.signature(function).return_annotation)
    if returned != "torch.Tensor":
        raise LookupError(f"{function.__module__}.{function.__name__}: write the signature; it returns {returned}")
    return Signature(tuple(arguments), (Output("output", False),))


def _annotation(annotation: Any) -> str:
    text = inspect.formatannotation(annotation)
    return "torch.Tensor" if text == "Tensor" else text
