"""One catalogue operation as a Function: a graph of one call, and a callable that goes round the graph."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    UnsupportedOperatorException,
)

from app.catalogue.bind import Bound, Leaf, bind
from app.catalogue.call import Drawing, arguments, called, prepared
from app.catalogue.entry import Operation, Signature
from app.catalogue.kernels.ranks import check_arguments, check_result
from app.catalogue.kernels.unsafe_values import UnsafeValuesError
from app.catalogue.refuse import usage
from app.errors import PullbackError
from app.program.errors import REFUSALS, refusal
from app.program.function import Function, Step
from app.query import Parameter

# Only the values decide these shapes: the caller builds again, on real tensors.
_DYNAMIC: Final = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)
_TEXT_LIMIT: Final = 60  # characters of an argument in a formula: twice the longest (30) of the catalogue's examples


def build_operation(
    operation: Operation, inputs: Mapping[str, Tensor | tuple[Tensor, ...]], parameters: Mapping[str, Parameter]
) -> Function:
    """The Function of one call of `operation`.

    Arguments:
        inputs: name → example tensor, or tuple of them; fakes (the caller has entered their mode) or real ones.
        parameters: name → plain value.

    Raises:
        PullbackError: `bad_tensor`, `bad_parameter` where names or kinds do not fit; `shape_mismatch`, `operation_failed`… where
            PyTorch refuses the call.
        DataDependentOutputException, DynamicOutputShapeException: under fakes, where only data decides a shape; build again on
            real tensors.
    """
    tensors = {name: len(value) if isinstance(value, tuple) else None for name, value in inputs.items()}
    bound = bind(operation, tensors, parameters)
    leaves = dict(_leaves(inputs))
    names = tuple(leaves)
    run = prepared(bound, names)
    with torch.no_grad(), Drawing() as drawing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = _executed(bound, run, leaves, parameters)
    paths = _paths(result)
    outputs = _named(operation, bound.signature, result, paths)
    graph = _graph(bound, leaves, parameters, result, paths)
    static = bool(leaves) and all(isinstance(tensor, FakeTensor) for tensor in leaves.values())
    return Function(operation.name, graph, names, outputs, drawing.seen, _caller(run, paths), static)


def _leaves(inputs: Mapping[str, Tensor | tuple[Tensor, ...]]) -> Iterator[tuple[str, Tensor]]:
    for name, value in inputs.items():
        if isinstance(value, tuple):
            yield from ((f"{name}.{index}", member) for index, member in enumerate(value))
        else:
            yield name, value


def _executed(bound: Bound, run: Callable[..., Any], leaves: Mapping[str, Tensor], parameters: Mapping[str, Parameter]) -> Any:
    operation = bound.operation
    try:
        check_arguments(operation.name, (*bound.args, *bound.kwargs.values()))
        result = run(*leaves.values())
        check_result(result)
        return result
    except (PullbackError, *_DYNAMIC):
        raise
    except REFUSALS as error:
        refused = refusal(error, operation.name, leaves.values(), lambda: usage(operation))
        at = (
            error.place({name.partition(".")[0] for name in leaves}, parameters)
            if isinstance(error, UnsafeValuesError)
            else "inputs"
        )
        raise PullbackError(
            refused.code,
            refused.detail,
            at=at,
            expected=refused.expected or usage(operation),
            given=refused.given,
            fix=refused.fix,
        ) from error


# Where an output stands in a result: () for the result itself, (1,) for its second member, (1, 0) for the first of a list there.
_Path = tuple[int, ...]


def _paths(result: Any, at: _Path = ()) -> tuple[_Path, ...]:
    """The tensors of a result, in order; what is None (weights that were not asked for) is left out."""
    if isinstance(result, Tensor):
        return (at,)
    if isinstance(result, list | tuple):
        return tuple(path for index, member in enumerate(result) for path in _paths(member, (*at, index)))
    return ()


def _named(operation: Operation, signature: Signature, result: Any, paths: tuple[_Path, ...]) -> tuple[str, ...]:
    if isinstance(result, Tensor):
        return ("output",)
    count = len(result)
    fields = getattr(type(result), "__match_args__", ())
    described = next(
        (
            s.outputs
            for s in (signature, *operation.signatures)
            if len(s.outputs) == count and not (count == 1 and s.outputs[0].several)
        ),
        None,
    )
    if any(output.several and len(signature.outputs) == 1 for output in signature.outputs):
        heads = tuple(f"output.{index}" for index in range(count))
    elif described is not None:
        heads = tuple(output.name for output in described)
    elif len(fields) == count:
        heads = tuple(fields)
    else:
        heads = tuple(f"output{index}" for index in range(count))
    return tuple(".".join((heads[path[0]], *map(str, path[1:]))) for path in paths)


def _caller(run: Callable[..., Any], paths: tuple[_Path, ...]) -> Callable[..., tuple[Tensor, ...]]:
    if paths == ((),):
        return lambda *leaves: (run(*leaves),)
    if all(path == (index,) for index, path in enumerate(paths)):
        count = len(paths)
        return lambda *leaves: tuple(run(*leaves)[:count])

    def call(*leaves: Tensor) -> tuple[Tensor, ...]:
        result = run(*leaves)
        return tuple(_member(result, path) for path in paths)

    return call


def _member(result: Any, path: _Path) -> Any:
    for index in path:
        result = result[index]
    return result


def _graph(
    bound: Bound, leaves: Mapping[str, Tensor], parameters: Mapping[str, Parameter], result: Any, paths: tuple[_Path, ...]
) -> fx.Graph:
    """Placeholders, the call, one `getitem` for each output of several; every node with the step and the value it had."""
    graph = fx.Graph()
    step = Step(1, 1, _text(bound, parameters), bound.operation.name)
    nodes: dict[str, fx.Node] = {}
    for index, (name, tensor) in enumerate(leaves.items()):
        node = graph.placeholder(f"leaf{index}")
        node.meta["val"] = tensor
        nodes[name] = node
    for name in bound.copied:
        copy = graph.call_function(torch.clone, (nodes[name],))
        copy.meta["step"], copy.meta["val"] = step, leaves[name]
        nodes[name] = copy
    args, kwargs = arguments(bound, nodes.__getitem__)
    call = graph.call_function(called(bound.operation), tuple(args), kwargs)
    call.meta["step"], call.meta["val"] = step, result
    picks: dict[_Path, fx.Node] = {(): call}

    def picked(path: _Path) -> fx.Node:
        if path not in picks:
            node = graph.call_function(operator.getitem, (picked(path[:-1]), path[-1]))
            node.meta["step"], node.meta["val"] = step, _member(result, path)
            picks[path] = node
        return picks[path]

    graph.output(tuple(picked(path) for path in paths))
    return graph


def _text(bound: Bound, parameters: Mapping[str, Parameter]) -> str:
    """The call as one would write it: `softmax(input, dim=-1)`."""

    def written(value: Any) -> str:
        if isinstance(value, Leaf):
            return str(value)
        if isinstance(value, tuple) and value and isinstance(value[0], Leaf):
            return "[" + ", ".join(value) + "]"
        return repr(list(value) if isinstance(value, tuple) else value)

    named = zip((argument.name for argument in bound.signature.arguments), bound.args, strict=False)
    parts = [written(v) if _is_leaf(v) else f"{name}={written(v)}" for name, v in named if v is not None or name in parameters]
    parts += [f"{name}={written(value)}" for name, value in bound.kwargs.items()]
    return f"{bound.operation.name}({', '.join(p if len(p) <= _TEXT_LIMIT else p[:_TEXT_LIMIT] + '…' for p in parts)})"


def _is_leaf(value: Any) -> bool:
    return isinstance(value, Leaf) or (isinstance(value, tuple) and bool(value) and isinstance(value[0], Leaf))
