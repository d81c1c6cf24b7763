"""Chooses an operation's signature by the names and kinds of a query, and orders its values as the call wants them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.catalogue.argument_kinds import WrongKindError, converted
from app.catalogue.entry import TENSOR_KINDS, Argument, Operation, Signature
from app.catalogue.refuse import Problem, refusal
from app.query import Parameter

# Other words for the first tensor, and for arguments that NumPy calls differently; PyTorch takes most of them too.
_FIRST: Final = ("self", "input", "A", "x", "tensor")
_SYNONYMS: Final = {"axis": "dim", "axes": "dims", "keepdims": "keepdim"}


class Leaf(str):
    """The place of one tensor, by the name that the query gives it (`input`, `tensors.0`)."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Bound:
    """One call, ready but for its tensors.

    Attributes:
        args, kwargs: hold `Leaf` for a tensor, a tuple of `Leaf` for a list of them, plain values otherwise (a dtype by name).
            `args` are the first arguments of `signature`, in order.
        copied: leaves that PyTorch would write to, so that the call is given a copy.
    """

    operation: Operation
    signature: Signature
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    copied: frozenset[str] = field(default_factory=frozenset)


def bind(operation: Operation, tensors: Mapping[str, int | None], parameters: Mapping[str, Parameter]) -> Bound:
    """The call of `operation` for these names.

    Arguments:
        tensors: input name → None for one tensor, n for a list of n tensors.
        parameters: parameter name → plain value.

    Raises:
        PullbackError: `bad_tensor` or `bad_parameter`: an unknown or missing name, a tensor where a plain value belongs or the
            other way round, a value of the wrong kind.
    """
    best: tuple[tuple[int, int, int], _Fit] | None = None
    failed: list[_Fit] = []
    for signature in operation.signatures:
        fit = _Fit(signature, tensors, parameters)
        if fit.problems:
            failed.append(fit)
            continue
        # A required switch (`return_indices`) tells the signature with one output more: sent as false it means the other.
        required = sum(-1 if fit.values[a.name] is False else 1 for a in signature.arguments if a.required)
        rank = (-fit.wrapped, required, -len(signature.arguments))
        if best is None or rank > best[0]:
            best = (rank, fit)
    if best is None:
        raise refusal(operation, [(fit.signature, fit.problems) for fit in failed], tensors, parameters)
    return _ordered(operation, best[1])


class _Fit:
    """How the query's names and values lie on one signature: values by argument, or the problems."""

    def __init__(self, signature: Signature, tensors: Mapping[str, int | None], parameters: Mapping[str, Parameter]) -> None:
        self.signature = signature
        self.values: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self.wrapped = 0
        known = {argument.name: argument for argument in signature.arguments}
        taken: dict[str, str] = {}
        for sent in (*tensors, *parameters):
            name = _meant(sent, known, signature, tensors, parameters)
            argument = known.get(name)
            if argument is None:
                self.problems.append(Problem("unknown", sent, None))
            elif name in taken:
                self.problems.append(Problem("twice", sent, argument, taken[name]))
            elif sent in tensors:
                self._take_tensor(sent, argument, tensors[sent])
            else:
                self._take_parameter(sent, argument, parameters[sent])
            taken[name] = sent
        for argument in signature.arguments:
            if argument.required and argument.name not in taken:
                self.problems.append(Problem("missing", argument.name, argument))

    def _take_tensor(self, sent: str, argument: Argument, count: int | None) -> None:
        if argument.kind not in TENSOR_KINDS:
            self.problems.append(Problem("tensor_for_parameter", sent, argument))
        elif argument.kind == "tensor" and count is not None:
            self.problems.append(Problem("list_for_tensor", sent, argument))
        elif argument.kind == "tensors" and count is None:
            self.problems.append(Problem("tensor_for_list", sent, argument))
        elif count is None:
            self.values[argument.name] = Leaf(sent)
        else:
            self.values[argument.name] = tuple(Leaf(f"{sent}.{index}") for index in range(count))

    def _take_parameter(self, sent: str, argument: Argument, value: Parameter) -> None:
        if argument.kind in TENSOR_KINDS:
            if value is None and (argument.optional or not argument.required):
                self.values[argument.name] = None
            else:
                self.problems.append(Problem("parameter_for_tensor", sent, argument))
            return
        try:
            self.values[argument.name] = converted(argument, value)
        except WrongKindError as error:
            self.problems.append(Problem("wrong_kind", sent, argument, str(error)))
            return
        self.wrapped += argument.kind.endswith("s") and not argument.bare and not isinstance(value, tuple | list | None)


def _meant(
    sent: str, known: Mapping[str, Argument], signature: Signature, tensors: Mapping[str, Any], parameters: Mapping[str, Any]
) -> str:
    """The argument that `given` means: itself, or another word for it where it is not taken."""
    if sent in known:
        return sent
    synonym = _SYNONYMS.get(sent, sent)
    first = signature.arguments[0].name if signature.arguments else sent
    tensor = next((a.name for a in signature.arguments if a.kind in TENSOR_KINDS), first)
    if sent in _FIRST:
        synonym = tensor
    return synonym if synonym in known and synonym not in tensors and synonym not in parameters else sent


def _ordered(operation: Operation, fit: _Fit) -> Bound:
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    gap = False
    for argument in fit.signature.arguments:
        is_sent = argument.name in fit.values
        if is_sent and (gap or argument.keyword_only):
            kwargs[argument.name] = fit.values[argument.name]
        elif is_sent:
            args.append(fit.values[argument.name])
        elif argument.kind == "tensor" and not gap and not argument.keyword_only:
            args.append(None)  # some public functions have no default for a tensor that may be None
        else:
            gap = True
    copied = frozenset(
        str(fit.values[a.name]) for a in fit.signature.arguments if a.copied and isinstance(fit.values.get(a.name), Leaf)
    )
    return Bound(operation, fit.signature, tuple(args), kwargs, copied)
