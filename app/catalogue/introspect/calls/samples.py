"""Sample calls of every operation: from PyTorch's own test database, from the reviewed examples, or grown from samples of a sibling."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor

from app.catalogue.bind import Bound, Leaf, bind
from app.catalogue.call import prepared
from app.catalogue.dtypes import dtype_name
from app.catalogue.entry import Argument, Operation, Signature
from app.catalogue.introspect.calls.examples import EXAMPLES
from app.catalogue.introspect.opinfos import opinfos, seed_cpu
from app.catalogue.left_out import LEFT_OUT
from app.errors import PullbackError

Tensors = dict[str, Tensor | tuple[Tensor, ...]]
# Samples are taken in the first of these dtypes that the operation has.
_DTYPES: Final = (torch.float64, torch.complex128, torch.int64, torch.bool, torch.float32)
_DRAWN: Final = 16  # samples asked of one OpInfo
# PyTorch's tests give these their first two tensors in the other order.
_EXCHANGED: Final = ("nn.functional.embedding", "nn.functional.embedding_bag", "where")
_ELEMENTS: Final = 3000  # of a sample that is called, so that thousands of calls take minutes
_SEED: Final = 42  # with which PyTorch's own tests run operations that draw
REFUSALS: Final = (
    RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError, ArithmeticError, PullbackError,
)  # fmt: skip
# What may stand in a required argument that no sample shows.
_GUESSES: Final[dict[str, tuple[Any, ...]]] = {
    "number": (1.0, 0.5, 2),
    "integer": (0, 1, 2, 3),
    "boolean": (True, False),
    "string": ("fro", "nuc", "same", "add", "multiply", "trunc", "sum", "mean"),
    "dtype": ("float64",),
    "integers": ((0,), (1,), (2,), (1, 1), (0, 1)),
    "numbers": ((1.0,), (1.0, 1.0)),
    "booleans": ((True,),),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One call that works: tensors and plain values by argument name, and how they bind."""

    tensors: Tensors
    parameters: dict[str, Any]
    bound: Bound

    def leaves(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name, value in self.tensors.items():
            if isinstance(value, tuple):
                tensors.update({f"{name}.{index}": member for index, member in enumerate(value)})
            else:
                tensors[name] = value
        return tensors

    def run(self, leaves: Mapping[str, Tensor] | None = None) -> Any:
        torch.default_generator.manual_seed(_SEED)
        # Copies: some functions write to their arguments.
        tensors = {name: tensor.clone() for name, tensor in self.leaves().items()} if leaves is None else leaves
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return prepared(self.bound, tuple(tensors), public=True)(*tensors.values())

    def elements(self) -> int:
        return sum(tensor.numel() for tensor in self.leaves().values())


@cache
def _infos() -> dict[str, list[Any]]:
    infos: dict[str, list[Any]] = {}
    for info in opinfos():
        infos.setdefault(info.name, []).append(info)
    return infos


def samples(operation: Operation) -> list[Sample]:
    """Samples that bind and run, those of the reviewed examples first; at least one for each signature where one can be found."""
    tried_samples = [s for query in EXAMPLES.get(operation.name, ()) if (s := tried(operation, *_read(query))) is not None]
    if len(tried_samples) != len(EXAMPLES.get(operation.name, ())):
        raise LookupError(f"a reviewed example of {operation.name} does not run")
    for name in (operation.name, *operation.aliases):
        for info in _infos().get(name, ()):
            tried_samples.extend(_from_info(operation, info))
    shown = {id(sample.bound.signature) for sample in tried_samples}
    for signature in operation.signatures:
        if id(signature) not in shown:
            tried_samples.extend(itertools.islice(_grown(operation, signature, tried_samples), 2))
    return tried_samples


def tried(operation: Operation, tensors: Tensors, parameters: dict[str, Any]) -> Sample | None:
    """The sample, if it binds and runs."""
    counts = {name: len(value) if isinstance(value, tuple) else None for name, value in tensors.items()}
    try:
        sample = Sample(tensors, parameters, bind(operation, counts, parameters))
        sample.run()
    except REFUSALS:
        return None
    return sample


def _read(query: Mapping[str, Any]) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and parameters of a reviewed example."""

    def tensor(value: Any) -> Tensor:
        if isinstance(value, dict):
            dtype = getattr(torch, value["dtype"])
            if dtype.is_complex:
                return torch.view_as_complex(torch.tensor(value["data"], dtype=torch.float64)).to(dtype)
            return torch.tensor(value["data"], dtype=dtype)
        read = torch.tensor(value, dtype=torch.float64)
        return read if torch.tensor(value).is_floating_point() else torch.tensor(value)

    tensors: Tensors = {
        name: tuple(tensor(member) for member in value["list"])
        if isinstance(value, dict) and "list" in value
        else tensor(value)
        for name, value in query["inputs"].items()
    }
    return tensors, {name: _plain(value) for name, value in query.get("parameters", {}).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return dtype_name(value)
    if isinstance(value, list | tuple):
        return tuple(_plain(member) for member in value)
    return value


def _from_info(operation: Operation, info: Any) -> Iterator[Sample]:
    supported = info.supported_dtypes("cpu")
    dtype = next((d for d in _DTYPES if d in supported), None)
    if dtype is None:
        return
    seed_cpu(_SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = list(itertools.islice(info.sample_inputs("cpu", dtype, requires_grad=False), _DRAWN))
    for opinfo_sample in drawn:
        values = [opinfo_sample.input, *opinfo_sample.args]
        if info.name in _EXCHANGED:
            values[:2] = values[1::-1]
        for signature in operation.signatures:
            placed = arrange(signature, values, opinfo_sample.kwargs)
            if placed is None:
                continue
            sample = tried(operation, *placed)
            if sample is not None and sample.elements() <= _ELEMENTS and _same(info, opinfo_sample, sample):
                yield sample
                break


def arrange(signature: Signature, values: list[Any], named: Mapping[str, Any]) -> tuple[Tensors, dict[str, Any]] | None:
    """A positional sample laid on `signature` in call order, or by kind where the sample has another order; None where it does not fit."""
    named = {
        name: value for name, value in named.items() if name not in LEFT_OUT or name in {a.name for a in signature.arguments}
    }
    free = [argument for argument in signature.arguments if argument.name not in named]
    known = {argument.name: argument for argument in signature.arguments}
    if not set(named) <= set(known):
        return None
    ordered: list[tuple[Argument, Any]] = []
    if free and free[0].kind == "tensors" and values and all(isinstance(value, Tensor) for value in values):
        ordered = [(free[0], tuple(values))]
    else:
        for value in values:
            fits = next((a for a in free if _fits(a, value)), None)
            if fits is None:
                return None
            free.remove(fits)
            ordered.append((fits, value))
    tensors: Tensors = {}
    parameters: dict[str, Any] = {}
    for argument, value in [*ordered, *((known[name], value) for name, value in named.items())]:
        if not _fits(argument, value):
            return None
        if argument.kind == "tensor" and value is not None:
            tensors[argument.name] = value
        elif argument.kind == "tensors":
            tensors[argument.name] = tuple(value)
        else:
            parameters[argument.name] = _plain(value)
    return tensors, parameters


def _fits(argument: Argument, value: Any) -> bool:
    if argument.kind == "tensor":
        return isinstance(value, Tensor) or (value is None and argument.optional)
    if argument.kind == "tensors":
        return isinstance(value, list | tuple) and bool(value) and all(isinstance(member, Tensor) for member in value)
    if isinstance(value, Tensor) or (isinstance(value, list | tuple) and any(isinstance(member, Tensor) for member in value)):
        return False
    kinds = {"string": str, "boolean": bool, "dtype": torch.dtype}
    if value is not None and argument.kind in kinds:
        return isinstance(value, kinds[argument.kind])
    return not isinstance(value, str | torch.dtype) or value is None


def _same(info: Any, opinfo_sample: Any, sample: Sample) -> bool:
    """Whether the sample means what PyTorch's test means (it may have had another order of arguments)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(_SEED)
        wanted = info.op(opinfo_sample.input, *opinfo_sample.args, **opinfo_sample.kwargs)
    return close(wanted, sample.run())


def close(wanted: Any, actual: Any) -> bool:
    """Whether two results agree in structure, shape, dtype and (to rounding) values; drawn numbers need not."""
    if isinstance(wanted, Tensor) and isinstance(actual, Tensor):
        if wanted.shape != actual.shape or wanted.dtype != actual.dtype:
            return False
        return torch.allclose(wanted, actual, rtol=1e-6, atol=1e-8, equal_nan=True)
    if isinstance(wanted, list | tuple) and isinstance(actual, list | tuple):
        return len(wanted) == len(actual) and all(itertools.starmap(close, zip(wanted, actual, strict=True)))
    return wanted is None and actual is None


def _grown(operation: Operation, signature: Signature, known: list[Sample]) -> Iterator[Sample]:
    """Samples of `signature` made from those of its siblings: the same names, numbers for tensors, guesses for the rest."""
    for base in sorted(known, key=Sample.elements)[:12]:
        choices: list[tuple[Any, ...]] = []
        for argument in signature.arguments:
            shown = base.tensors.get(argument.name, base.parameters.get(argument.name))
            if shown is None and not argument.required:
                continue
            choices.append(tuple((argument, value) for value in _candidates(argument, shown, base)))
        for combination in itertools.islice(itertools.product(*choices), 60):
            tensors: Tensors = {a.name: v for a, v in combination if isinstance(v, Tensor) or a.kind == "tensors"}
            parameters = {a.name: v for a, v in combination if a.name not in tensors}
            sample = tried(operation, tensors, parameters)
            if sample is not None and sample.bound.signature is signature:
                yield sample
                break


def _candidates(argument: Argument, shown: Any, base: Sample) -> tuple[Any, ...]:
    if argument.kind == "tensor":
        if isinstance(shown, Tensor):
            return (shown,)
        like = next((t for t in base.leaves().values() if t.numel()), torch.ones(3, dtype=torch.float64))
        number = shown if isinstance(shown, int | float) and not isinstance(shown, bool) else 1.0
        return like, torch.tensor(number, dtype=torch.float64), torch.tensor([1, 2]), torch.ones(like.shape, dtype=torch.bool)
    if argument.kind == "tensors":
        if isinstance(shown, tuple) and shown and isinstance(shown[0], Tensor):
            return (shown,)
        like = next(iter(base.leaves().values()), torch.ones(3, dtype=torch.float64))
        return (like, like), (like,), (torch.arange(float(like.shape[0]) if like.dim() else 1.0, dtype=torch.float64),)
    with suppress(TypeError, ValueError):
        if isinstance(shown, Tensor) and argument.kind == "number":
            return (2.0, 2)
    guesses = _GUESSES[argument.kind]
    return guesses if shown is None or isinstance(shown, Tensor) else (shown, *guesses)


def leaf_argument(name: str, bound: Bound) -> Argument | None:
    """The argument in which a leaf stands."""
    by_name = {argument.name: argument for argument in bound.signature.arguments}
    for argument, value in [
        *zip(bound.signature.arguments, bound.args, strict=False),
        *((by_name[k], v) for k, v in bound.kwargs.items()),
    ]:
        if value == name and isinstance(value, Leaf):
            return argument
        if isinstance(value, tuple) and any(isinstance(member, Leaf) and member == name for member in value):
            return argument
    return None
