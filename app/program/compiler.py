"""From the text of a program to a Function: the road through reading, running the statements on examples, and the outputs.

Knows the order of these. Refuses to know the language's details and what is wanted of the Function.
"""

from __future__ import annotations

import ast
import unicodedata
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from app.errors import PullbackError
from app.program.function import Function, Step
from app.program.graph_runner import GraphRunner, floating_default
from app.program.interpreting.expressions import Reader
from app.program.interpreting.statements import Runner, outputs
from app.program.reading.source import Refusal, Source, read, wrapper
from app.program.semantics.static import Budget
from app.program.semantics.trace import Trace, Value
from app.program.stored import default_value
from app.query import Parameter

Inputs = Mapping[str, Tensor | tuple[Tensor, ...]]


def build_program(
    text: str,
    inputs: Inputs,
    parameters: Mapping[str, Parameter],
    dtype: torch.dtype,
    title: str = "program",
    casts: Mapping[str, torch.dtype] | None = None,
) -> Function:
    """The Function of a program's text (docs/contract.md, section 5).

    Arguments:
        text: the program.
        inputs: name → example tensor, or tuple of them; fakes (the caller has entered their mode) or real ones.
        parameters: name → plain value.
        dtype: the floating dtype that factories take.
        casts: inputs that a kept function's annotations want in another dtype.

    Raises:
        PullbackError: `bad_program` with `at` = line:column; `too_costly`; `shape_mismatch`, `operation_failed` where PyTorch refuses a step.
        DataDependentOutputException, DynamicOutputShapeException: under fakes, where only data decides a shape; build again on real tensors.
    """
    source = read(text)
    trace = Trace(Budget())
    names, leaves = _names(trace, inputs, parameters, casts or {})
    body = _body(source, names)
    floating = dtype.to_real() if dtype.is_complex else dtype
    reader = Reader(source, trace, names, floating, _device(inputs))
    try:
        with torch.no_grad(), floating_default(floating), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            returned = Runner(reader).program(body)
            reader.located(returned.node, lambda: trace.finish(outputs(reader, returned)))
    except RecursionError as error:
        raise PullbackError(
            "bad_program", "The program is nested too deeply.", at="1:1", fix="Give names to the parts of the expression."
        ) from error
    return Function(
        title=title,
        graph=trace.graph,
        leaves=tuple(leaves),
        outputs=trace.outputs,
        random=bool(trace.drawing),
        call=GraphRunner(trace.graph, floating, frozenset(trace.drawing)),
        static=trace.static,
        dtype=floating,
    )


def _names(
    trace: Trace, inputs: Inputs, parameters: Mapping[str, Parameter], casts: Mapping[str, torch.dtype]
) -> tuple[dict[str, Value], list[str]]:
    names: dict[str, Value] = {}
    leaves: list[str] = []
    for given, value in inputs.items():
        name = _checked(given, f"inputs.{given}", names)
        if isinstance(value, Tensor):
            names[name] = trace.leaf(len(leaves), value)
            leaves.append(given)
        else:
            members = []
            for index, tensor in enumerate(value):
                members.append(trace.leaf(len(leaves), tensor))
                leaves.append(f"{given}.{index}")
            names[name] = members
    for given, wanted in casts.items():
        step = Step(1, 1, f"{given}: {str(wanted).removeprefix('torch.')}", "to")
        names[given] = trace.call(step, torch.Tensor.to, (names[given], wanted))
    for given, parameter in parameters.items():
        name = _checked(given, f"parameters.{given}", names)
        names[name] = _as_list(parameter)
    return names, leaves


def _checked(given: str, at: str, names: Mapping[str, Value]) -> str:
    """The name as Python reads it in a text (NFKC), refused where no text could mean it."""
    name = unicodedata.normalize("NFKC", given)
    if not name.isidentifier() or name.startswith("__") or name in ("True", "False", "None"):
        raise PullbackError(
            "bad_program",
            "This name cannot be used in a program.",
            at=at,
            expected="letters, digits and _",
            given=given,
            fix="Rename it.",
        )
    if name in names:
        raise PullbackError("bad_program", f"The name `{name}` is given twice.", at=at, fix="Rename one of the two.")
    return name


def _as_list(parameter: Parameter) -> Value:
    return [_as_list(member) for member in parameter] if isinstance(parameter, tuple) else parameter


def _device(inputs: Inputs) -> torch.device | None:
    for value in inputs.values():
        for tensor in value if isinstance(value, tuple) else (value,):
            return tensor.device
    return None


def _body(source: Source, names: dict[str, Value]) -> list[ast.stmt]:
    """The statements; those of the one `def` that wraps them, whose arguments must be inputs or parameters or have defaults."""
    function = wrapper(source.tree)
    if function is None:
        return source.tree.body
    arguments = [*function.args.posonlyargs, *function.args.args]
    defaults = dict(zip([a.arg for a in arguments][::-1], function.args.defaults[::-1], strict=False))
    defaults |= {a.arg: d for a, d in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True) if d is not None}
    for argument in (*arguments, *function.args.kwonlyargs):
        default = default_value(source, defaults[argument.arg]) if argument.arg in defaults else None
        if argument.arg in names:
            continue
        if argument.arg not in defaults:
            fix = f'Send "{argument.arg}" in "inputs" or "parameters".'
            raise source.refused(
                Refusal(f"The argument `{argument.arg}` is neither an input nor a parameter of the query.", fix), argument
            )
        names[argument.arg] = default
    return function.body
