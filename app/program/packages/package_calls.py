"""Calls of packages beside PyTorch's operations: copies, einops, NumPy's arrays, tqdm, limits of dtypes, data loaders."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import torch

from app.program.classes import type_dispatch
from app.program.classes.special_methods import is_object
from app.program.classes.standard_library import StandardLibrary
from app.program.differentiation import nesting
from app.program.library import attributes, inplace, plain, vocabulary
from app.program.library.builtins import Builtins
from app.program.library.lookup import lookup
from app.program.modules import packed
from app.program.modules.weights import Weights
from app.program.packages import copying, datasets, einops_patterns, numpy_arrays, random_numbers
from app.program.packages.itertools_functions import Itertools
from app.program.packages.python_containers import Containers
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.graph_values import Emit, Value, is_tensor
from app.program.semantics.trace import Trace
from app.program.semantics.values import CHECKED, SCALER, Begun, Inert, Named, special

Called = Callable[[tuple[Value, ...], dict[str, Value]], Value]


def _is_array(value: list[Value] | tuple[Value, ...], name: str, position: int) -> bool:
    """Whether NumPy takes a list or tuple for an array: the first argument, and the second of arithmetic."""
    return (
        position == 0
        or (isinstance(value, list) and name not in ("einsum", "split", "array_split"))
        or name in ("multiply", "add", "subtract", "divide", "dot")
    )


def _subsequent_mask(size: int) -> torch.Tensor:
    """-inf above the diagonal, 0 elsewhere."""
    return torch.full((size, size), -torch.inf).triu(1)


# `tqdm(total=n)`.
BAR: Final = Inert("a progress bar")


class Packages:
    """What a program calls of packages; `operation`, `make` and `stacked` do what PyTorch's own names do."""

    def __init__(
        self,
        trace: Trace,
        dtype: torch.dtype,
        weights: Weights,
        invoke: Callable[[Value, tuple[Value, ...], dict[str, Value]], Value],
        operation: Callable[..., Any],
        make: Callable[..., Any],
        stacked: Callable[[Emit, Value], Value],
        builtins: Builtins,
    ) -> None:
        self._trace, self._dtype, self._weights, self._invoke = trace, dtype, weights, invoke
        self._operation, self._make, self._stacked = operation, make, stacked
        self._builtins = builtins
        self._streams: dict[str, random_numbers.Stream] = {}
        self._bars: dict[int, Value] = {}  # what `tqdm` was given, by `id`

    def resolve(self, short: str, emit: Emit) -> Called | None:
        """What stands beside PyTorch's operations: limits of dtypes, copies, einops, functions that give what they are given."""
        if short in ("finfo", "iinfo", "np.finfo", "np.iinfo"):
            return lambda args, kwargs: plain.limits(short, args, self._dtype)
        if short in ("copy.deepcopy", "deepcopy"):
            return lambda args, kwargs: copying.copied(emit, self._weights, args[0], self._trace.budget.spend)
        if short == "copy.copy":
            return lambda args, kwargs: copying.shallow(args[0], self._trace.budget.spend)
        if short in einops_patterns.LAYERS:
            return lambda args, kwargs: einops_patterns.layer(short, args, kwargs)
        if short in einops_patterns.NAMES:
            return lambda args, kwargs: einops_patterns.call(emit, short, args, kwargs)
        if short in vocabulary.SAME:
            return lambda args, kwargs: args[short == "typing.cast"] if args else Named("compile")
        if short in ("tqdm.tqdm", "tqdm.trange", "tqdm.auto.tqdm", "tqdm.notebook.tqdm", "tqdm.std.tqdm", "tqdm.auto.trange"):
            return lambda args, kwargs: self._bar(
                static.span(*args) if short.endswith("trange") else args[0] if args else kwargs.get("iterable", BAR)
            )
        if short in ("allclose", "equal"):
            return functools.partial(self._same, emit, "isclose" if short == "allclose" else "eq")
        if short == "nn.utils.parameters_to_vector":
            return lambda args, kwargs: self._operation(emit, "cat", ([self._flat(emit, value) for value in args[0]],), {})
        if short == "is_grad_enabled":
            return lambda args, kwargs: self._trace.grad_enabled
        if short in ("is_tensor", "get_default_dtype"):
            return lambda args, kwargs: is_tensor(args[0]) if short == "is_tensor" else self._dtype
        drawing = random_numbers.resolved(self._streams, short, self.arrays(emit))
        if drawing is not None:
            return drawing
        if short.startswith("np."):
            return self._of_numpy(short.removeprefix("np."), emit)
        return self._of_training(short, emit) or self._python(emit, short)

    def _bar(self, members: Value) -> Value:
        self._bars[id(members)] = members
        return members

    def is_bar(self, value: Value, method: str) -> bool:
        """Whether `tqdm` gave it, and a method is one of a bar."""
        return id(value) in self._bars and method in datasets.OF_BARS

    def _of_training(self, short: str, emit: Emit) -> Called | None:
        """What stands around a model: checkpoints, scalers, checks, data."""
        if short in ("utils.checkpoint.checkpoint", "checkpoint"):
            rest = ("use_reentrant", "preserve_rng_state", "determinism_check", "debug")
            return lambda args, kwargs: self._invoke(args[0], args[1:], {k: v for k, v in kwargs.items() if k not in rest})
        if short in ("utils.checkpoint.checkpoint_sequential", "checkpoint_sequential"):
            return lambda args, kwargs: functools.reduce(
                lambda value, part: self._invoke(part, (value,), {}), self._builtins.items(emit, args[0]), args[2]
            )
        if short in ("cuda.amp.GradScaler", "amp.GradScaler", "GradScaler"):
            return lambda args, kwargs: SCALER
        if short == "nn.Transformer.generate_square_subsequent_mask":
            return lambda args, kwargs: emit("generate_square_subsequent_mask", _subsequent_mask, (args[0],), {})
        if short in ("contextlib.contextmanager", "contextmanager"):
            return lambda args, kwargs: replace(args[0], role="context")
        if short in packed.NAMES:
            items, numbers = (functools.partial(each, emit) for each in (self._builtins.items, self._builtins.numbers))
            return functools.partial(packed.Packing(items, numbers).called, emit, short)
        if short == "dataclasses.field":
            return lambda args, kwargs: (
                Begun(kwargs["default_factory"]) if "default_factory" in kwargs else kwargs.get("default")
            )
        if short in ("autograd.gradcheck", "autograd.gradgradcheck", "gradcheck", "gradgradcheck"):
            return lambda args, kwargs: CHECKED
        name = short.rpartition(".")[2]
        if short.startswith("utils.data.") and name in datasets.NAMES:
            return functools.partial(datasets.called, self._loading(), self._trace, name, emit)
        return None

    def _loading(self) -> datasets.Reading:
        return datasets.Reading(
            self._builtins.items,
            lambda function, values: self._invoke(function, values, {}),
            self._builtins.numbers,
            self._length,
        )

    def _length(self, value: Value) -> int | None:
        """Of a dataset of the program; None where it has none."""
        if is_object(value) and special(value, "__len__") is None:
            return None
        return self._builtins.table["len"](lambda *_: None, (value,), {})  # type: ignore[no-any-return]

    def _python(self, emit: Emit, short: str) -> Called | None:
        """Python's containers, and the functions of `itertools`."""
        items, operate = functools.partial(self._builtins.items, emit), functools.partial(self._builtins.operate, emit)
        stream = functools.partial(self._builtins.stream, emit)
        over = Itertools(
            self._invoke, items, stream, operate, self._trace.budget.spend, lambda value: self._builtins.holds(value)
        )
        keyed = functools.partial(self._builtins.ordering.keys, emit)
        return (
            over.resolve(short)
            or type_dispatch.resolved(short)
            or StandardLibrary(items, keyed, self._trace.budget.spend).resolve(short)
            or Containers(self._invoke, items, operate).resolve(short)
        )

    def _same(self, emit: Emit, operation: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """`torch.allclose(a, b)`, `torch.equal(a, b)`: one truth value, which a condition follows."""
        return self._operation(emit, "all", (self._operation(emit, operation, args, kwargs),), {})

    def _flat(self, emit: Emit, value: Value) -> Value:
        return self._operation(emit, "reshape", (value, (-1,)), {})

    def _of_numpy(self, name: str, emit: Emit) -> Called | None:
        """NumPy's functions on arrays, which are tensors here; of what a derivative passes NumPy itself refuses."""
        if name in plain.NUMPY_ARRAYS:
            return functools.partial(self._array, emit, plain.NUMPY_ARRAYS[name])
        operation = plain.NUMPY_OPERATIONS.get(name, name)
        composed = numpy_arrays.COMPOSED.get(name)
        if lookup(operation) is None and composed is None:
            return None

        def called(args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
            tensors = nesting.leaves([list(args), kwargs])
            if not tensors and name in ("mod", "remainder") and all(map(static.is_number, args)):
                return self._builtins.operate(emit, "%", *args)
            if not tensors and name in (*static.MATH, *plain.NUMPY):
                return plain.number(plain.NUMPY.get(name, name), args)
            if any(self._trace.is_live(tensor) and not numpy_arrays.is_array(tensor) for tensor in tensors):
                raise Refusal(f"`np.{name}` is NumPy's, and no derivative passes it.", f"Write `torch.{operation}(…)`.")
            stacked = tuple(
                self._stacked(emit, list(a))
                if isinstance(a, list | tuple) and name not in plain.NUMPY_LISTS and _is_array(a, name, i)
                else self._make(emit, "tensor", (a,), {})
                if tensors and name in plain.NUMPY_OF_TWO and static.is_number(a)
                else a
                for i, a in enumerate(args)
            )
            if composed is not None:
                return numpy_arrays.marked(emit(f"np.{name}", composed, stacked, kwargs))
            value = numpy_arrays.function(functools.partial(self._operation, emit), name, stacked, kwargs)
            if value is None:
                value = self._operation(emit, operation, *plain.numpy_arguments(name, stacked, kwargs))
            return numpy_arrays.marked(value)

        return called

    def arrays(self, emit: Emit) -> random_numbers.Arrays:
        """What NumPy's generators make of arrays."""
        return random_numbers.Arrays(
            lambda numbers: self._array(emit, "tensor", (numbers,), {}),
            lambda array, places: numpy_arrays.marked(attributes.indexed(emit, array, places)),
            lambda array, value: inplace.set_item(self._trace, emit, array, slice(None), value),
            self._trace.budget.spend,
        )

    def _array(self, emit: Emit, maker: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """`np.array(x)`: NumPy asks every tensor for its numbers, and those that require grad refuse."""
        held = nesting.leaves([list(args), kwargs])
        if self._trace.marks and held and maker == "tensor":
            value = self._stacked(emit, args[0])
            named = {"dtype": kwargs["dtype"]} if kwargs.get("dtype") is not None else {}
            return attributes.method(emit, value, "to" if named else "clone", (), named, self._dtype)
        for tensor in held if self._trace.grad_enabled else ():
            attributes.refuse_as_numpy(self._trace.now(tensor))
        return numpy_arrays.marked(self._make(emit, maker, args, kwargs))
