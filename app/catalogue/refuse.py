"""The refusal of a query whose names or kinds fit no signature: which signature was nearest, and what to send instead."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from app.catalogue.argument_kinds import WORDS
from app.catalogue.entry import TENSOR_KINDS, Argument, Operation, Signature
from app.catalogue.left_out import LEFT_OUT
from app.errors import PullbackError, shortened
from app.query import Parameter

# In the order in which they are told: what is wrong with something sent comes before what is missing.
ProblemKind = Literal[
    "tensor_for_parameter",
    "parameter_for_tensor",
    "list_for_tensor",
    "tensor_for_list",
    "twice",
    "wrong_kind",
    "unknown",
    "missing",
]
_ORDER: Final = {kind: index for index, kind in enumerate(ProblemKind.__args__)}  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why one name does not fit a signature; `argument` is the one it was taken for."""

    kind: ProblemKind
    name: str
    argument: Argument | None
    detail: str = ""


def usage(operation: Operation, signatures: Sequence[Signature] | None = None) -> str:
    """The signatures as one line: `softmax(input: tensor, dim: integer, dtype: dtype = null)`."""
    shown = operation.signatures if signatures is None else signatures
    return " or ".join(f"{operation.name}({', '.join(_shown(a) for a in signature.arguments)})" for signature in shown[:4])


def _shown(argument: Argument) -> str:
    said = f"{argument.name}: {argument.kind}"
    return said if argument.required else f"{said} = {json.dumps(argument.default)}"


def refusal(
    operation: Operation,
    failed: Sequence[tuple[Signature, Sequence[Problem]]],
    tensors: Mapping[str, int | None],
    parameters: Mapping[str, Parameter],
) -> PullbackError:
    """The error for the signature that came nearest."""

    def distance(refused: tuple[Signature, Sequence[Problem]]) -> tuple[int, int, int]:
        kinds = [problem.kind for problem in refused[1]]
        return kinds.count("unknown"), len(kinds), -max(_ORDER[kind] for kind in kinds)

    signature, problems = min(failed, key=distance)
    problem = min(problems, key=lambda p: _ORDER[p.kind])
    where = "inputs" if problem.name in tensors else "parameters"
    said = _Case(operation, signature, problem, where, parameters.get(problem.name), failed)
    return _TELLERS[problem.kind](said)


@dataclass(frozen=True, slots=True)
class _Case:
    operation: Operation
    signature: Signature
    problem: Problem
    where: str
    value: Parameter
    failed: Sequence[tuple[Signature, Sequence[Problem]]]

    @property
    def argument(self) -> Argument:
        if self.problem.argument is None:
            raise LookupError(self.problem.name)
        return self.problem.argument

    def error(
        self, detail: str, fix: str, *, expected: str | None = None, given: Any = None, where: str | None = None
    ) -> PullbackError:
        room = where or self.where
        return PullbackError(
            "bad_tensor" if room == "inputs" else "bad_parameter",
            detail,
            at=f"{room}.{self.problem.name}",
            expected=expected or usage(self.operation),
            given=given,
            fix=fix,
        )


def _unknown(case: _Case) -> PullbackError:
    name, operation = case.problem.name, case.operation.name
    reason = LEFT_OUT.get(name)
    if reason is not None:
        return case.error(f"`{operation}` takes no `{name}` here: {reason}.", f'Leave "{name}" out.')
    known = {a.name: a for signature, _ in case.failed for a in signature.arguments}
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        room = "inputs" if known[near[0]].kind in TENSOR_KINDS else "parameters"
        return case.error(
            f"`{operation}` has no argument `{name}`. Did you mean `{near[0]}`?", f'Send it as {room}["{near[0]}"].'
        )
    names = ", ".join(f"`{other}`" for other in known)
    return case.error(
        f"`{operation}` has no argument `{name}`; its arguments are {names}.", f'Leave "{name}" out, or use one of these names.'
    )


def _twice(case: _Case) -> PullbackError:
    return case.error(
        f"`{case.problem.name}` and `{case.problem.detail}` are the same argument of `{case.operation.name}`.",
        "Send one of them.",
    )


def _tensor_for_parameter(case: _Case) -> PullbackError:
    name = case.problem.name
    return case.error(
        f"`{name}` of `{case.operation.name}` is {WORDS[case.argument.kind]} and no tensor.",
        f'Move it to "parameters": {{"{name}": …}}.',
        expected=f"parameters.{name}: {case.argument.kind}",
        given="a tensor",
    )


def _parameter_for_tensor(case: _Case) -> PullbackError:
    name = case.problem.name
    return case.error(
        f"`{name}` of `{case.operation.name}` is {WORDS[case.argument.kind]}; what stands in `parameters` is a plain value.",
        f'Move it to "inputs": {{"{name}": …}}; a bare number there is a 0-d tensor.',
        expected=f"inputs.{name}: {case.argument.kind}",
        given=_as_json(case.value),
    )


def _list_for_tensor(case: _Case) -> PullbackError:
    return case.error(
        f"`{case.problem.name}` of `{case.operation.name}` is one tensor, and a list of tensors was sent.",
        'Send one tensor: a nested list of numbers, or {"data": …, "dtype": …}.',
        given="a list of tensors",
    )


def _tensor_for_list(case: _Case) -> PullbackError:
    name = case.problem.name
    return case.error(
        f"`{name}` of `{case.operation.name}` is a list of tensors, and one tensor was sent.",
        f'Send "{name}": [{{"data": …}}, {{"data": …}}], or a list of nested lists of different shapes.',
        given="one tensor",
    )


def _wrong_kind(case: _Case) -> PullbackError:
    argument = case.argument
    kinds = {a.kind for signature, _ in case.failed for a in signature.arguments if a.name == argument.name}
    wanted = " or ".join(dict.fromkeys(WORDS[kind] for kind in [argument.kind, *sorted(kinds)]))
    bare = argument.kind in ("numbers", "integers", "booleans") and not isinstance(case.value, tuple | list)
    detail = case.problem.detail
    return case.error(
        f"`{argument.name}` of `{case.operation.name}` must be {wanted}"
        + (f": {detail}." if detail and detail != "null" else "."),
        f"Send {wanted}{', or a single value' if bare else ''}"
        + ("." if argument.required else f", or leave it out for the default, {_shown(argument).rpartition(' = ')[2]}."),
        expected=wanted,
        given=_as_json(case.value),
    )


def _missing(case: _Case) -> PullbackError:
    argument = case.argument
    room = "inputs" if argument.kind in TENSOR_KINDS else "parameters"
    meaning = f" ({argument.meaning.rstrip('.')})" if argument.meaning else ""
    return case.error(
        f"`{case.operation.name}` needs `{argument.name}`, {WORDS[argument.kind]}{meaning}.",
        f'Add "{room}": {{"{argument.name}": …}}.',
        where=room,
    )


def _as_json(value: Parameter) -> str:
    words = {type(None): "null", bool: "true" if value else "false", str: f'"{value}"' if isinstance(value, str) else ""}
    return shortened(words.get(type(value)) or (list(value) if isinstance(value, tuple) else value), 100)


_TELLERS: Final[dict[str, Callable[[_Case], PullbackError]]] = {
    "unknown": _unknown,
    "twice": _twice,
    "tensor_for_parameter": _tensor_for_parameter,
    "parameter_for_tensor": _parameter_for_tensor,
    "list_for_tensor": _list_for_tensor,
    "tensor_for_list": _tensor_for_list,
    "wrong_kind": _wrong_kind,
    "missing": _missing,
}
