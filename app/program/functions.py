"""A stored function as a Function: its inputs checked against its annotations, its defaults filled in, its text built."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, fx

from app.catalogue.dtypes import dtype_name
from app.errors import PullbackError
from app.program.compiler import Inputs, build_program
from app.program.errors import shown
from app.program.function import Function
from app.program.semantics import questions
from app.program.stored import Functions, InputSpec, ParameterSpec, StoredFunction, kind_of, load
from app.query import COMPLEX_DTYPES, FLOATING_DTYPES, INTEGER_DTYPES, Parameter

__all__ = ["Functions", "StoredFunction", "build_function", "load"]

# What is taken where a kind of parameter is asked for.
_TAKEN = {
    "number": ("number", "integer"),
    "integer": ("integer",),
    "boolean": ("boolean",),
    "string": ("string",),
    "list": ("list",),
}


def build_function(
    function: StoredFunction, inputs: Inputs, parameters: Mapping[str, Parameter], dtype: torch.dtype
) -> Function:
    """The computation of a stored function for these inputs.

    Floating inputs may have any floating dtype, so that a query can ask for another than the annotation's (a bare list has it
    before it comes here); integers that come for a floating input are cast to it.

    Raises:
        PullbackError: `bad_tensor`, `bad_parameter`, `shape_mismatch` with `at`; and what `build_program` raises.
    """
    known = [spec.name for spec in function.inputs] + [spec.name for spec in function.parameters]
    _refuse_unknown(function, inputs, known, "inputs", "bad_tensor")
    _refuse_unknown(function, parameters, known, "parameters", "bad_parameter")
    casts: dict[str, torch.dtype] = {}
    extents: dict[str, tuple[int, str]] = {}
    for spec in function.inputs:
        tensor = _tensor(function, spec, inputs, parameters)
        if _cast_needed(spec, tensor):
            casts[spec.name] = getattr(torch, spec.dtype)
        _check_shape(spec, tensor, extents)
    plain = {spec.name: _parameter(function, spec, parameters) for spec in function.parameters if spec.name not in inputs}
    built = build_program(function.text, inputs, plain, dtype, function.name, casts)
    _note_annotations(function, built)
    return built


def _note_annotations(function: StoredFunction, built: Function) -> None:
    """For other shapes the graph holds where they agree with the annotations as well."""
    leaves = dict(zip(built.leaves, (node for node in built.graph.nodes if node.op == "placeholder"), strict=True))
    named: dict[str, tuple[fx.Node, int]] = {}
    for spec in function.inputs:
        for index, axis in enumerate(spec.shape or ()):
            node = leaves[spec.name]
            if isinstance(axis, int):
                questions.asked(node, questions.extent, index)
            elif named.setdefault(axis, (node, index)) != (node, index):
                questions.asked(node, questions.has_extent_of, index, *named[axis])


def _refuse_unknown(function: StoredFunction, names: Iterable[str], known: list[str], field: str, code: str) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise PullbackError(
                code,
                f"`{function.name}` has no {field[:-1]} `{name}`.",
                at=f"{field}.{name}",
                expected=", ".join(known),
                given=name,
                fix=f"Rename it `{near[0]}`." if near else "Leave it out.",
            )


def _tensor(function: StoredFunction, spec: InputSpec, inputs: Inputs, parameters: Mapping[str, Parameter]) -> Tensor:
    tensor = inputs.get(spec.name)
    at = f"inputs.{spec.name}"
    if isinstance(tensor, Tensor):
        return tensor
    expected = f"a tensor, {_wanted(spec)}"
    if tensor is not None:
        raise PullbackError(
            "bad_tensor", f"`{function.name}` takes one tensor as `{spec.name}`, not a list.", at=at, expected=expected
        )
    fix = 'Move it from "parameters" to "inputs".' if spec.name in parameters else f'Add "{spec.name}" to "inputs".'
    raise PullbackError("bad_tensor", f"`{function.name}` needs the input `{spec.name}`.", at=at, expected=expected, fix=fix)


def _wanted(spec: InputSpec) -> str:
    return spec.dtype if spec.shape is None else f"{spec.dtype}[{', '.join(map(str, spec.shape))}]"


def _cast_needed(spec: InputSpec, tensor: Tensor) -> bool:
    """Whether integers came where floating numbers are taken. Raises `bad_tensor` for what cannot be taken at all."""
    dtype = dtype_name(tensor.dtype)
    wanted, came = _rank(spec.dtype), _rank(dtype)
    if came == wanted or (wanted == 2 and came == 3):
        return False
    if stands_for(dtype, spec.dtype):
        return True
    raise PullbackError(
        "bad_tensor",
        f"`{spec.name}` must be {_wanted(spec)}, and {dtype} cannot stand for it.",
        at=f"inputs.{spec.name}",
        expected=_wanted(spec),
        given=shown(tensor),
        fix=f'Send {{"data": …, "dtype": "{spec.dtype}"}}.',
    )


def _rank(dtype: str) -> int:
    kinds = (("bool",), INTEGER_DTYPES, FLOATING_DTYPES, COMPLEX_DTYPES)
    return next(rank for rank, dtypes in enumerate(kinds) if dtype in dtypes)


def stands_for(dtype: str, annotated: str) -> bool:
    """Whether numbers of `dtype` may be taken as the `annotated` one: of the same kind, or wider by kind and floating."""
    wanted, came = _rank(annotated), _rank(dtype)
    return came == wanted or (wanted >= 2 and came < wanted)


def _check_shape(spec: InputSpec, tensor: Tensor, extents: dict[str, tuple[int, str]]) -> None:
    if spec.shape is None:
        return
    shape = list(tensor.shape)
    fits = len(shape) == len(spec.shape)
    for axis, extent in zip(spec.shape, shape, strict=False):
        if isinstance(axis, int):
            fits = fits and axis == extent
    if not fits:
        raise PullbackError(
            "shape_mismatch",
            f"`{spec.name}` must have the shape {list(spec.shape)}; got {shape}.",
            at=f"inputs.{spec.name}",
            expected=str(list(spec.shape)),
            given=str(shape),
        )
    for axis, extent in zip(spec.shape, shape, strict=True):
        if not isinstance(axis, str):
            continue
        known, first = extents.setdefault(axis, (extent, spec.name))
        if known != extent:
            raise PullbackError(
                "shape_mismatch",
                f"The axis `{axis}` has {known} elements in `{first}` and {extent} in `{spec.name}`; they must agree.",
                at=f"inputs.{spec.name}",
                expected=str([known if other == axis else other for other in spec.shape or ()]),
                given=str(shape),
            )


def _parameter(function: StoredFunction, spec: ParameterSpec, parameters: Mapping[str, Parameter]) -> Parameter:
    at = f"parameters.{spec.name}"
    if spec.name not in parameters:
        if spec.required:
            raise PullbackError(
                "bad_parameter",
                f"`{function.name}` needs the parameter `{spec.name}`.",
                at=at,
                expected=spec.kind,
                fix=f'Add "parameters": {{"{spec.name}": …}}.',
            )
        return spec.default
    value = parameters[spec.name]
    if value is None or kind_of(value) in _TAKEN[spec.kind]:
        return value
    raise PullbackError(
        "bad_parameter",
        f"`{spec.name}` must be of kind {spec.kind}.",
        at=at,
        expected=spec.kind,
        given=value,
        fix="Send a plain value.",
    )
