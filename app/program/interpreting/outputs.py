"""What a program gives: its `return`, its last expression, its last assignment, or its last function called on the inputs."""

from __future__ import annotations

import ast
from collections.abc import Collection, KeysView, Sequence, ValuesView
from typing import Any, Final

from app.errors import PullbackError
from app.program.differentiation.optimizers import OptimizerState, OptimizerValue
from app.program.differentiation.schedules import SchedulerValue
from app.program.interpreting.definitions import Returned
from app.program.interpreting.expressions import SHOWN, Reader
from app.program.interpreting.statements import Runner, is_text
from app.program.library import vocabulary
from app.program.modules.layers import LayerValue
from app.program.reading.source import Refusal
from app.program.semantics.graph_values import MultiOutput, Value, is_tensor
from app.program.semantics.static import named
from app.program.semantics.values import MISSING, ClassValue, FunctionValue, Inert, Instance, Iterator, Named

_NO_OUTPUT: Final = Refusal(
    "The program returns nothing.", "End it with `return y`, or with an expression on a line of its own."
)
_IDLE: Final = (OptimizerValue, OptimizerState, SchedulerValue, Inert)
_SHOWING: Final = ("item", "tolist", "numpy", "detach", "cpu")
_CALLABLE: Final = (FunctionValue, ClassValue, Instance, LayerValue)


def program(reader: Reader, runner: Runner, body: Sequence[ast.stmt]) -> Returned:
    """Runs a whole program. Raises `bad_program` where lines of it cannot be read, with all of them, and where it returns nothing."""
    *before, last = body or [ast.Pass(lineno=1, col_offset=0)]
    bare = isinstance(last, ast.Expr) and not is_text(last) and not _is_quiet(reader, last)
    returned: Returned | None = None
    try:
        left = runner.block(before if bare else body)
        if bare and before and isinstance(before[-1], ast.Return):
            raise reader.source.refused(Refusal("Nothing after `return` is ever read.", "Delete these lines."), last)
        if isinstance(left, Returned):
            returned = left
        elif bare and isinstance(last, ast.Expr):
            returned = _last(reader, last)
        _refuse_problems(reader)
        output = returned if returned is not None and returned.value is not None else _ending(reader, last)
        return Returned(reader.read(output.value), output.node)
    except Refusal as refusal:
        _refuse_problems(reader, reader.source.refused(refusal, last))
        raise
    except PullbackError as error:
        _refuse_problems(reader, error)
        raise


def _is_quiet(reader: Reader, statement: ast.Expr) -> bool:
    """Whether the last line is one that gives nothing: `loss.backward()`, `print(loss)`, `optimizer.step()`."""
    call = statement.value
    if not isinstance(call, ast.Call):
        return False
    path = reader.dotted(call.func)
    if path is not None and vocabulary.ignored_call(path) is not None:
        return True
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    return name in ("backward", "step", "zero_grad", "append", "extend")


def _last(reader: Reader, statement: ast.Expr) -> Returned | None:
    reader.statement = statement
    value = reader.value(statement.value)
    if isinstance(value, Named):
        raise reader.source.refused(vocabulary.not_called(value), statement)
    return None if isinstance(value, Inert) or value is SHOWN else Returned(value, statement.value)


def _refuse_problems(reader: Reader, last: PullbackError | None = None) -> None:
    """Raises the first of what cannot be read, with all of it."""
    from app.program.interpreting.state import DependentError

    problems = [*reader.source.problems, *reader.problems]
    if last is not None and not isinstance(last, DependentError) and all(last.at != known.at for known in problems):
        problems.append(last)
    if not problems:
        return
    problems.sort(key=_place)
    first = problems[0]
    raise PullbackError(
        first.code, first.detail, at=first.at, expected=first.expected, given=first.given, fix=first.fix,
        problems=problems if len(problems) > 1 else (),
    )  # fmt: skip


def _place(error: PullbackError) -> tuple[int, int]:
    line, _, column = (error.at or "").partition(":")
    return (int(line), int(column)) if line.isdigit() and column.isdigit() else (0, 0)


def _ending(reader: Reader, last: ast.stmt) -> Returned:
    """The output of a program that neither returns nor ends with an expression."""
    final = _final_loss(reader)
    if final is not None:
        return final
    values = [reader.scope[name] for name in reader.assigned if name in reader.scope]
    if any(isinstance(value, _IDLE) for value in values):
        values = []  # an optimizer is a tool of the program, nothing that it computes
    loss = reader.calls.gradients.last
    holds = any(_holds_tensor(reader, value) for value in values)
    shown = _shown(reader, last) if loss is None and not holds else None
    if shown is not None:
        return shown
    if (
        reader.assigned
        and values
        and not any(isinstance(value, _CALLABLE) for value in values)
        and _is_answer(reader, last, values, holds)
    ):
        nodes = [ast.copy_location(ast.Name(name, ast.Load()), last) for name in reader.assigned]
        if len(values) == 1:
            return Returned(values[0], nodes[0])
        return Returned(tuple(values), ast.copy_location(ast.Tuple(list(nodes), ast.Load()), last))
    if loss is not None:
        return Returned(loss, ast.copy_location(ast.Name("loss", ast.Load()), last))
    if reader.defined or any(isinstance(value, _CALLABLE) for value in values):
        callables = [value for value in values if isinstance(value, _CALLABLE)]
        return Returned(_called(reader, last, callables[-1] if callables else reader.defined[-1][1]), _nameless(last))
    if values:
        return Returned(values[0], _nameless(last))
    raise reader.source.refused(_NO_OUTPUT, last)


def _final_loss(reader: Reader) -> Returned | None:
    """The loss of a final `loss.backward()`; what only shows, checks or steps may stand behind it."""
    for statement in reversed(reader.source.tree.body):
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "backward":
            loss = (
                reader.scope.get(call.func.value.id) if isinstance(call.func.value, ast.Name) else reader.calls.gradients.last
            )
            return Returned(loss, call.func.value) if is_tensor(reader.read(loss)) else None
        is_shown = isinstance(call, ast.Call) and _is_quiet(reader, statement)  # type: ignore[arg-type]
        if not (is_shown or isinstance(statement, ast.Assert | ast.Pass | ast.Delete)):
            return None
    return None


def _known(reader: Reader, node: ast.expr) -> Value:
    return reader.known(lambda: reader.read(reader.value(node)))


def _shown(reader: Reader, last: ast.stmt) -> Returned | None:
    """The tensors that a last `print` shows: `print("theta:", theta.item())`; None where it shows none."""
    call = last.value if isinstance(last, ast.Expr) else None
    if not isinstance(call, ast.Call) or reader.dotted(call.func) != "print":
        return None
    nodes = [_bare(node) for argument in call.args for node in _parts_shown(argument)]
    pairs = [(node, _known(reader, node)) for node in nodes]
    pairs = [(node, value) for node, value in pairs if is_tensor(value)]
    if not pairs:
        return None
    if len(pairs) == 1:
        return Returned(pairs[0][1], pairs[0][0])
    values = tuple(value for _, value in pairs)
    return Returned(values, ast.copy_location(ast.Tuple([node for node, _ in pairs], ast.Load()), last))


def _parts_shown(argument: ast.expr) -> list[ast.expr]:
    """What stands in one argument of `print`: it, or the fields of its text."""
    if isinstance(argument, ast.JoinedStr):
        return [part.value for part in argument.values if isinstance(part, ast.FormattedValue)]
    if isinstance(argument, ast.BinOp) and isinstance(argument.op, ast.Mod) and isinstance(argument.left, ast.Constant):
        return argument.right.elts if isinstance(argument.right, ast.Tuple) else [argument.right]
    if isinstance(argument, ast.Call) and isinstance(argument.func, ast.Attribute) and argument.func.attr == "format":
        return list(argument.args)
    return [argument]


def _bare(node: ast.expr) -> ast.expr:
    """The tensor whose numbers are shown: `loss` of `loss.detach().item()`."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _SHOWING:
        node = node.func.value
    return node


def _is_answer(reader: Reader, last: ast.stmt, values: list[Value], holds: bool) -> bool:
    """Whether what was assigned last is what the program computes: beside definitions, tensors and what was computed of numbers read of them."""
    if not reader.defined or holds:
        return True
    if (
        not isinstance(last, ast.Assign | ast.AnnAssign | ast.AugAssign)
        or last.value is None
        or not reader.calls.reads.has_numbers
    ):
        return False
    is_computed = any(isinstance(part, ast.Name | ast.Call) for part in ast.walk(last.value))
    return is_computed and any(isinstance(member, float) for value in values for member in _members(value))


def _holds_tensor(reader: Reader, value: Value) -> bool:
    if isinstance(value, Iterator):  # a look at its members would take them
        return True
    return any(is_tensor(reader.read(member)) or isinstance(member, MultiOutput) for member in _members(value))


def _members(value: Value) -> Collection[Value]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)


def _nameless(last: ast.stmt) -> ast.expr:
    return ast.copy_location(ast.Constant(None), last)


def _called(reader: Reader, last: ast.stmt, function: Value) -> Value:
    """A function of the program on the inputs and parameters of its arguments' names."""
    if isinstance(function, ClassValue) and function.custom:
        arguments = _arguments_of(reader, function.find("forward"), instance=function.find("setup_context") is MISSING)
        return reader.located(last, lambda: reader.method(last, function, "apply", tuple(arguments.values()), {}))
    if isinstance(function, ClassValue):
        function = reader.invoke(last, function, (), _arguments_of(reader, function.find("__init__"), instance=True))
    if isinstance(function, LayerValue):
        return reader.invoke(last, function, tuple(reader.scope[name] for name in reader.tensors), {})
    forward = (
        function.kind.find("forward") if isinstance(function, Instance) and isinstance(function.kind, ClassValue) else function
    )
    if not isinstance(forward, FunctionValue):
        return reader.invoke(last, function, tuple(reader.scope[name] for name in reader.tensors), {})
    arguments = _arguments_of(reader, forward, instance=isinstance(function, Instance))
    return reader.located(last, lambda: reader.invoke(last, function, (), arguments))


def _arguments_of(reader: Reader, function: Any, *, instance: bool) -> dict[str, Value]:
    if not isinstance(function, FunctionValue):
        return {}
    spec = function.node.args
    positional = [*spec.posonlyargs, *spec.args][1 if instance else 0 :]
    program_scope = reader.scope.program()
    arguments: dict[str, Value] = {}
    for argument in (*positional, *spec.kwonlyargs):
        if argument.arg in reader.inputs and argument.arg in program_scope:
            arguments[argument.arg] = program_scope[argument.arg]
        elif argument.arg not in function.defaults:
            raise reader.source.refused(
                Refusal(
                    f"The argument `{argument.arg}` is neither an input nor a parameter of the query.",
                    f'Send "{argument.arg}" in "inputs" or "parameters", or end the program with a call of `{function.name}`.',
                ),
                argument,
            )
    return arguments


def outputs(reader: Reader, returned: Returned) -> dict[str, Value]:
    """Names and tensors of what a program returned.

    One tensor is `output`. A dict gives its keys. A tuple of plain distinct names gives these, any other tuple `output0`, `output1`…,
    what an operation with several outputs gave PyTorch's names, a list of tensors `output.0`, `output.1`…, and a dict within a tuple
    `output.key`.
    """
    tensors: dict[str, Value] = {}
    for name, value in _named(returned).items():
        if value is not None or returned.value is None:  # `return out, None`
            _spread(reader, name, reader.read(value), tensors)
    if not tensors:
        raise Refusal("The program returns nothing.", "Return at least one tensor.")
    if len(tensors) > 256:
        raise Refusal(f"The program returns {len(tensors)} tensors; the limit is 256.", "Join them: `stack(list)`.")
    return tensors


def _named(returned: Returned) -> dict[str, Value]:
    value, node = returned.value, returned.node
    if isinstance(value, dict):
        return _keyed(value)
    if isinstance(value, tuple):
        names = [part.id for part in node.elts if isinstance(part, ast.Name)] if isinstance(node, ast.Tuple) else []
        if len(names) != len(value) or len(set(names)) != len(value):
            names = [f"output{index}" for index in range(len(value))]
        return dict(zip(names, value, strict=True))
    if isinstance(value, MultiOutput) and value.fields:
        return dict(zip(value.fields, _parts(value), strict=True))
    return {"output": value}


def _keyed(value: dict[Any, Value]) -> dict[str, Value]:
    for key in value:
        if not isinstance(key, str) or not key or len(key) > 128 or not key.isprintable():
            raise Refusal("The names of outputs are short strings.", 'Return a dict like `{"loss": loss}`.')
    return value


def _parts(value: MultiOutput) -> list[Value]:
    return [(value, index) for index in range(len(value.values))]


def _spread(reader: Reader, name: str, value: Value, tensors: dict[str, Value]) -> None:
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], MultiOutput):
        value = reader.trace.pick(*value)
    if isinstance(value, Iterator | KeysView | ValuesView):
        value = reader.builtins.items(reader.emitter(reader.statement or ast.Pass()), value)
    if is_tensor(value):
        _add(name, value, tensors)
    elif isinstance(value, bool | int | float | complex):
        _add(name, reader.calls.resolve("tensor", reader.emitter(reader.statement or ast.Pass()))((value,), {}), tensors)
    elif isinstance(value, MultiOutput):
        for index in range(len(value.values)):
            label = value.fields[index] if value.fields else str(index)
            _spread(reader, f"{name}.{label}", reader.trace.pick(value, index), tensors)
    elif isinstance(value, dict) and value and "." not in name:  # `return loss, {"mse": mse}`
        for key, member in _keyed(value).items():
            _spread(reader, f"{name}.{key}", reader.read(member), tensors)
    elif isinstance(value, list | tuple):
        if len(value) > 256:
            raise Refusal(f"The program returns a list of {len(value)} tensors; the limit is 256.", "Join them: `stack(list)`.")
        for index, member in enumerate(value):
            if not (is_tensor(member) or isinstance(member, bool | int | float | complex)):
                raise Refusal("A returned list holds tensors or numbers.", "Return a dict of tensors.")
            _spread(reader, f"{name}.{index}", member, tensors)
    else:
        if isinstance(value, Named):
            raise vocabulary.not_called(value)
        raise Refusal(f"`{name}` is {named(value)} and cannot be returned.", "Return tensors, or numbers.")


def _add(name: str, value: Value, tensors: dict[str, Value]) -> None:
    if name in tensors:
        raise Refusal(f"Two outputs are called `{name}`.", "Give them different names.")
    tensors[name] = value
