"""What can be asked by name, described alike: operations of the catalogue and stored functions, as protocols list them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, lru_cache
from typing import Any, Final, Literal

from app.catalogue import read
from app.catalogue.entry import TENSOR_KINDS, Argument, Operation, Signature
from app.errors import PullbackError
from app.query import COMPLEX_DTYPES, FLOATING_DTYPES, Parameter

# Under this name a program is asked, whose text comes with the request.
PROGRAM: Final = "program"
Subject = Literal["operation", "function", "program"]


@dataclass(frozen=True, slots=True)
class ModelInput:
    """A tensor input. `dtype` and `shape` (extents, names of free axes): None where any will do; `several`: a list of tensors."""

    name: str
    required: bool
    differentiable: bool
    several: bool = False
    dtype: str | None = None
    shape: tuple[int | str, ...] | None = None
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class ModelParameter:
    """A plain argument. `kind`: of the catalogue's kinds, or `list`."""

    name: str
    kind: str
    required: bool
    default: Parameter = None
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """An output. `several`: a list whose length the call decides."""

    name: str
    differentiable: bool
    several: bool = False


@dataclass(frozen=True)
class Model:
    """One thing that can be asked by name.

    Attributes:
        usual_outputs: what a call with the inputs and parameters of the example gives; `outputs` holds those of every signature.
        order: how many times it can be differentiated: 0, 1, or 2 for twice and more.
        random: it needs a seed.
        may_draw: it needs one, or does where a parameter asks for dropout.
        example: inputs and parameters of a query that works as it stands.
    """

    name: str
    subject: Subject
    summary: str
    inputs: tuple[ModelInput, ...]
    parameters: tuple[ModelParameter, ...]
    outputs: tuple[ModelOutput, ...]
    usual_outputs: tuple[ModelOutput, ...]
    order: int
    random: bool
    may_draw: bool = False
    documentation: str = ""
    example: Mapping[str, Any] | None = None

    @cached_property
    def input_names(self) -> Mapping[str, ModelInput]:
        return {tensor.name: tensor for tensor in self.inputs}

    @cached_property
    def parameter_names(self) -> Mapping[str, ModelParameter]:
        return {parameter.name: parameter for parameter in self.parameters}

    @cached_property
    def differentiable_inputs(self) -> tuple[ModelInput, ...]:
        """Those with a derivative, where the model has one."""
        return tuple(tensor for tensor in self.inputs if tensor.differentiable) if self.order else ()


class Models:
    """Every model of a server. A kept function hides an operation of its name: whoever put it there meant it.

    Arguments:
        functions: the entries of the kept functions, as `GET /v1/functions` lists them; broken files among them are left out.
    """

    def __init__(self, functions: Iterable[Mapping[str, Any]] = ()) -> None:
        self.functions: Mapping[str, Model] = {
            entry["name"]: _of_function(entry) for entry in functions if "signature" in entry
        }

    def __iter__(self) -> Iterator[str]:
        """Names, functions first."""
        yield from self.functions
        for name in read.operations():
            if name not in self.functions:
                yield name

    def find(self, name: str) -> Model:
        """The model that `name` means, an operation's other names too.

        Raises:
            PullbackError: `unknown_operation`, with the nearest names.
        """
        function = self.functions.get(name)
        if function is not None:
            return function
        try:
            return of_operation(read.find(name).name)
        except PullbackError:
            near = get_close_matches(name, [*self.functions, *read.nearest(name)], n=4, cutoff=0.5)
            raise PullbackError(
                "unknown_operation",
                f"There is no operation or kept function `{name[:80]}`."
                + (f" The nearest names are {', '.join(near)}." if near else ""),
                at="model",
                given=name,
                fix="GET /v1/operations and /v1/functions list the names.",
            ) from None

    def function(self, name: str) -> Model:
        """Raises PullbackError: `unknown_function`, with the names of all."""
        if name not in self.functions:
            raise PullbackError(
                "unknown_function",
                f"No function is called {name[:80]!r}; there are {', '.join(list(self.functions)[:16]) or 'none'}.",
                at="name",
                given=name,
            )
        return self.functions[name]


@lru_cache(maxsize=4096)
def of_operation(name: str) -> Model:
    """The operation of this canonical name; arguments and outputs of all its signatures, each name once."""
    operation = read.operations()[name]
    outputs: dict[str, ModelOutput] = {}
    for signature in operation.signatures:
        for output in signature.outputs:
            outputs.setdefault(output.name, ModelOutput(output.name, output.differentiable, output.several))
    arguments = _arguments(operation)
    return Model(
        name=operation.name,
        subject="operation",
        summary=operation.summary,
        inputs=tuple(
            ModelInput(a.name, required, a.differentiable, a.kind == "tensors", meaning=a.meaning)
            for a, required in arguments
            if a.kind in TENSOR_KINDS
        ),
        parameters=tuple(
            ModelParameter(a.name, a.kind, required, a.default, a.meaning)
            for a, required in arguments
            if a.kind not in TENSOR_KINDS
        ),
        outputs=tuple(outputs.values()),
        usual_outputs=tuple(outputs[output.name] for output in _usual_signature(operation).outputs),
        order=operation.order,
        random="random" in operation.tags,
        may_draw=operation.may_draw,
        documentation=operation.documentation,
        example=operation.example,
    )


def _usual_signature(operation: Operation) -> Signature:
    """The first that has every name of the operation's example."""
    named = {*operation.example.get("inputs", {}), *operation.example.get("parameters", {})}
    fitting = (s for s in operation.signatures if named <= {argument.name for argument in s.arguments})
    return next(fitting, operation.signatures[0])


def _arguments(operation: Operation) -> Sequence[tuple[Argument, bool]]:
    """Each argument once as a tensor and once as a plain value where signatures differ, and whether every signature needs it."""
    arguments: dict[tuple[str, bool], tuple[Argument, int]] = {}
    for signature in operation.signatures:
        for argument in signature.arguments:
            key = (argument.name, argument.kind in TENSOR_KINDS)
            first, count = arguments.get(key, (argument, 0))
            arguments[key] = (first, count + argument.required)
    return [(argument, count == len(operation.signatures)) for argument, count in arguments.values()]


def _of_function(entry: Mapping[str, Any]) -> Model:
    signature = entry["signature"]
    differentiable = (*FLOATING_DTYPES, *COMPLEX_DTYPES)
    outputs = tuple(ModelOutput(spec["name"], True) for spec in signature["outputs"])
    return Model(
        name=entry["name"],
        subject="function",
        summary=entry["description"],
        inputs=tuple(
            ModelInput(
                spec["name"],
                True,
                spec["dtype"] in differentiable,
                dtype=spec["dtype"],
                shape=None if spec["shape"] is None else tuple(spec["shape"]),
            )
            for spec in signature["inputs"]
        ),
        parameters=tuple(
            ModelParameter(spec["name"], spec["kind"], spec["required"], spec.get("default"))
            for spec in signature["parameters"]
        ),
        outputs=outputs,
        usual_outputs=outputs,
        order=2 if any(spec["dtype"] in differentiable for spec in signature["inputs"]) else 0,
        random=False,
        example=entry.get("example"),
    )
