"""What the name before a bracket means: a builtin, a maker of tensors, arithmetic on plain numbers, an operation, a module…"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from app.catalogue.call import target
from app.program.classes.records import Record
from app.program.differentiation import clipping, custom_functions, lbfgs, nesting, optimizers, schedules
from app.program.differentiation.gradients import Gradients
from app.program.differentiation.hooks import Hooks
from app.program.differentiation.transforms import Transforms
from app.program.function import Branch
from app.program.library import attributes as tensors
from app.program.library import builtins, containers, factories, inplace, left_out_names, plain, vocabulary
from app.program.library.distributions import Distributions, DistributionValue
from app.program.library.lookup import call, lookup, softmax_axis, unknown
from app.program.library.reads import Reads
from app.program.modules import initial, reparametrized
from app.program.modules.layers import Weight, constructed
from app.program.modules.weights import Weights
from app.program.packages import formatting, numpy_arrays, python_containers
from app.program.packages.package_calls import Packages
from app.program.reading.source import Refusal
from app.program.semantics import sets, static
from app.program.semantics.graph_values import Emit, MultiOutput, Value, example, fixed, is_floating, is_tensor
from app.program.semantics.scopes import Scope
from app.program.semantics.static import named
from app.program.semantics.trace import Trace
from app.program.semantics.values import ClassValue, ContextValue, ErrorValue, Instance, Iterator

Called = Callable[[tuple[Value, ...], dict[str, Value]], Value]
Invoke = Callable[[Value, tuple[Value, ...], dict[str, Value]], Value]
# Writes that leave nothing of what a weight held: before any gradient is taken, they say what it begins with.
_BEGINNING: Final = ("normal_", "uniform_", "fill_", "zero_", "copy_")
_SOFTMAX: Final = ("softmax", "log_softmax", "nn.functional.softmin", "nn.functional.softmax", "nn.functional.log_softmax")
# Of the budget of evaluated expressions; a module takes about a millisecond to construct.
_CONSTRUCTION: Final = 300
_MATH_ROOTS: Final = ("math", "np")
# Where an operation's third place, or its keyword, says that it writes into its argument.
_INPLACE: Final = "inplace"


class Calls:
    """Calls in one program.

    Attributes:
        names: the program's own names, which may shadow operations.
        takes_derivatives: the text takes derivatives itself: a step that they pass may draw nothing.
        is_trying: whether an `except` may take what is raised; set by who reads the program.
        builtins: Python's functions over the same trace.
    """

    def __init__(self, trace: Trace, scope: Scope, dtype: torch.dtype, weights: Weights, invoke: Invoke) -> None:
        self.names = scope
        self.is_trying: Callable[[], bool] = lambda: False
        self.takes_derivatives = False
        self.branches: list[Branch] = []
        self.reads = Reads(trace, self.branches)
        self.builtins = builtins.Builtins(trace, self.operation, self.reads, invoke)
        self.gradients = Gradients(
            trace, dtype, weights.weight_of, Hooks(trace, dtype, invoke, self.branches, weights.weight_of)
        )
        self.transforms = Transforms(trace, dtype, weights, invoke)
        self.distributions = Distributions(lambda: self.is_trying())
        self._plain = plain.Plain(invoke, self.builtins, trace.budget.spend)
        self.packages = Packages(trace, dtype, weights, invoke, self.operation, self._new_tensor, self._stacked, self.builtins)
        self._invoke = invoke
        self._trace, self._dtype, self._weights = trace, dtype, weights

    def resolve(self, name: str, emit: Emit) -> Called:
        """What a call of `name` does: a function of (args, kwargs). Raises a refusal where `name` means nothing here."""
        short = vocabulary.spelled(name)
        if vocabulary.is_context(name):
            return lambda args, kwargs: ContextValue(name, (*args, *kwargs.values()))
        if vocabulary.is_exception(name):
            return lambda args, kwargs: ErrorValue("an error", name.rpartition(".")[2], args)
        if name in vocabulary.TEXT_METHODS:
            return lambda args, kwargs: self.method(emit, args[0], name[4:], args[1:], kwargs)
        if name in self.builtins.table:
            return functools.partial(self.builtins.table[name], emit)
        special = self._special(short, emit) or self.packages.resolve(short, emit)
        if special is not None:
            takes_streams = short.rpartition(".")[2] in self._plain.table or python_containers.is_container(short)
            return special if takes_streams else functools.partial(self._listed, emit, special)
        base = name.removeprefix("torch.")
        if base in ("detach", "stop_gradient"):
            return functools.partial(_detached, emit)
        if short == "np.array":
            base = "tensor"
        if base == "empty_like":  # what stands in it is written before it is read, or means nothing
            name = "zeros_like"
        if base == "normal":  # of tensors it is an operation, of plain numbers with a size a maker
            return lambda args, kwargs: (
                self.operation(emit, "normal", args, kwargs)
                if nesting.leaves(list(args))
                else self._new_tensor(emit, base, args, kwargs)
            )
        if base in factories.FACTORIES or base in factories.ALIASES:
            return functools.partial(self._new_tensor, emit, base)
        refusal = left_out_names.refused(name)
        if refusal:
            raise refusal
        return self._operation_named(name, short, emit)

    def _listed(self, emit: Emit, called: Called, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """A call that goes through the generators it is given: `autograd.grad(y, net.parameters())`."""
        plain = (self.builtins.items(emit, value) if isinstance(value, Iterator) else value for value in args)
        return called(
            tuple(plain), {k: self.builtins.items(emit, v) if isinstance(v, Iterator) else v for k, v in kwargs.items()}
        )

    def _operation_named(self, name: str, short: str, emit: Emit) -> Called:
        root, _, rest = short.partition(".")
        number = rest if root in _MATH_ROOTS else short
        number = plain.NUMPY.get(number, number) if root == "np" else number
        if number in static.MATH:
            math = functools.partial(self._math, emit, number, rest if root == "math" else name, root == "np")
            return functools.partial(self._listed, emit, math)
        if lookup(name) is None and lookup(short) is not None:
            name = short
        if lookup(name) is None:
            if short.endswith("_") and lookup(short[:-1]):
                return functools.partial(self._written, emit, short.rpartition(".")[2])
            raise unknown(name, tuple(self.names))
        return functools.partial(self.operation, emit, name)

    def _special(self, short: str, emit: Emit) -> Called | None:
        """Modules, their weights, derivatives, distributions, functions of functions."""
        layer = vocabulary.layer_name(short)
        if layer is not None:
            self._trace.budget.spend(_CONSTRUCTION)
            return lambda args, kwargs: constructed(emit, self.builtins.items, layer, args, kwargs)
        container = vocabulary.container_name(short)
        if container is not None:
            return lambda args, kwargs: containers.new_container(self._weights, container, args, kwargs)
        if short in ("nn.Parameter", "nn.parameter.Parameter"):
            return functools.partial(self._parameter, emit)
        return self._of_weights(short, emit) or self._of_derivatives(short, emit)

    def _of_weights(self, short: str, emit: Emit) -> Called | None:
        """What changes weights, or how they are computed."""
        if short.startswith("nn.init."):
            return lambda args, kwargs: initial.initialise(
                self._trace, emit, self._weights, short.removeprefix("nn.init."), args, kwargs
            )
        if short in reparametrized.NAMES:
            rules = reparametrized.Reparametrizations(self._trace, emit, lambda part, values: self._invoke(part, values, {}))
            return functools.partial(rules.called, short)
        if short in ("nn.utils.clip_grad_norm_", "nn.utils.clip_grad_value_"):
            items = functools.partial(self.builtins.items, emit)
            return functools.partial(clipping.clipped, self._trace, emit, self.gradients, items, short.rpartition(".")[2])
        return None

    def _of_derivatives(self, short: str, emit: Emit) -> Called | None:
        """Derivatives, distributions, optimizers, and functions of functions."""
        if short == "autograd.grad":
            return functools.partial(self.gradients.autograd_grad, emit)
        if short == "autograd.backward":
            return functools.partial(self.gradients.backward_of, emit)
        if short == "autograd.Variable" or short == "Variable":
            return functools.partial(self._variable, emit)
        if short in self.transforms.table:
            return functools.partial(self.transforms.table[short], emit)
        if short.startswith("distributions."):
            constructor: Called = self.distributions.resolve(emit, short)
            return constructor
        if short.startswith("optim.lr_scheduler."):
            return lambda args, kwargs: schedules.scheduled(
                short.rpartition(".")[2], lambda function, values: self._invoke(function, values, {}), args, kwargs
            )
        if short.startswith("optim."):
            return lambda args, kwargs: optimizers.constructed(
                short.removeprefix("optim."), functools.partial(self.builtins.items, emit), args, kwargs
            )
        known = short in self._plain.table or not short.startswith(("functools.", "collections."))
        tail = short if known else short.rpartition(".")[2]
        if tail in self._plain.table:
            return functools.partial(self._plain.table[tail], emit)
        if short in ("Size", "nn.Module"):
            return lambda args, kwargs: tuple(args[0]) if short == "Size" else Instance("ModuleList")
        return None

    def second_order_step(self, emit: Emit, optimizer: Any, closure: Value, invoke: Callable[[Value], Value]) -> Value:
        """`optimizer.step(closure)` of `LBFGS`."""
        return lbfgs.step(self._trace, self._dtype, self.gradients, self.branches, emit, optimizer, closure, invoke)

    def custom(self, emit: Emit, kind: ClassValue, args: tuple[Value, ...]) -> Value:
        """`F.apply(*args)` of a `torch.autograd.Function` of the program."""
        return custom_functions.called(self._trace, self._dtype, self._invoke, self.branches, emit, kind, args)

    def operation(self, emit: Emit, name: str, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
        """The step that calls the operation `name`."""
        operation = lookup(name)
        if operation is None:
            raise unknown(name, tuple(self.names))
        if operation.name in _SOFTMAX and set(kwargs) <= {"dtype"} and len(args) == 1 and is_tensor(args[0]):
            kwargs = {**kwargs, "dim": softmax_axis(name, args[0])}
        inside = _INPLACE in kwargs and bool(kwargs[_INPLACE])
        kwargs = {key: value for key, value in kwargs.items() if key != _INPLACE}
        if self.takes_derivatives and operation.name == "nn.functional.dropout" and not inside:
            value = self._dropped(emit, args, kwargs)
            if value is not None:
                return value
        if "out" in kwargs and is_tensor(kwargs["out"]):
            return self._into(emit, name, args, kwargs)
        flags = {argument.name: index for index, argument in enumerate(operation.signatures[0].arguments)}
        if _INPLACE in flags and len(args) > flags[_INPLACE]:
            inside = bool(args[flags[_INPLACE]])
            args = args[: flags[_INPLACE]]
        value = call(emit, operation, target(operation), name, self._list_members(name, args), kwargs)
        if inside and args and is_tensor(args[0]) and is_tensor(value):
            return inplace.write(self._trace, emit, args[0], value, name)
        return value

    def _dropped(self, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
        """`dropout(x, p, training)` as PyTorch computes it on the CPU: a mask, which is drawn, times x, which is differentiated."""
        options = {**dict(zip(("input", "p", "training"), args, strict=False)), **kwargs}
        x: Any = options.get("input")
        p = options.get("p", 0.5)
        is_right = is_tensor(x) and isinstance(p, float | int) and 0 < p < 1 and is_floating(example(x))
        if not is_right or not options.get("training", True) or not options.keys() <= {"input", "p", "training"}:
            return None
        mask = emit("dropout", fixed(_dropout_mask_like, p), (x,), {}, random=True)
        return emit("dropout", torch.mul, (x, mask), {})

    def _list_members(self, name: str, args: tuple[Value, ...]) -> tuple[Value, ...]:
        """A list's members, where an operation takes a list and is given what a step gave as several tensors."""
        if (
            args
            and isinstance(args[0], MultiOutput)
            and not args[0].fields
            and name.rpartition(".")[2] in ("stack", "cat", "concat", "hstack", "vstack")
        ):
            return (self.builtins.items(lambda *_: None, args[0]), *args[1:])
        return args

    def _into(self, emit: Emit, name: str, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
        out = kwargs["out"]
        value = self.operation(emit, name, args, {key: value for key, value in kwargs.items() if key != "out"})
        return inplace.write(self._trace, emit, out, value, name)

    def _written(self, emit: Emit, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """`torch.relu_(x)`, `F.elu_(x)`."""
        if not args or not is_tensor(args[0]):
            raise Refusal(f"`{name}` writes into a tensor, and is given none.")
        return self.method(emit, args[0], name, args[1:], kwargs)

    def method(self, emit: Emit, owner: Value, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """`owner.name(*args, **kwargs)`."""
        if is_tensor(owner):
            return self._tensor_method(emit, owner, name, args, kwargs)
        if isinstance(owner, DistributionValue):
            return self.distributions.method(emit, owner, name, args, kwargs)
        if isinstance(owner, MultiOutput):
            raise Refusal(
                f"`{owner.operation}` gives several tensors, so `.{name}()` has none to work on.",
                f"Take {builtins.parts_of(owner)} first.",
            )
        if isinstance(owner, list | tuple) and name in python_containers.LIST_METHODS:
            return python_containers.list_method(
                functools.partial(self.builtins.items, emit),
                functools.partial(self.builtins.ordering.ordered, emit),
                owner,
                name,
                args,
                kwargs,
                self._trace.budget.spend,
            )
        if isinstance(owner, sets.Distinct):
            return sets.method(functools.partial(self.builtins.items, emit), self._trace.budget.spend, owner, name, args)
        if isinstance(owner, Record) and name in ("_replace", "_asdict"):
            return containers.renewed(owner, name, kwargs)
        if isinstance(owner, tuple) and name == "numel" and not args:
            return functools.reduce(functools.partial(static.binary, "*"), owner, 1)
        if isinstance(owner, dict):
            return python_containers.dict_method(
                functools.partial(self.builtins.items, emit), owner, name, args, kwargs, self._trace.budget.spend
            )
        if isinstance(owner, str):
            if name == "join":
                args = tuple(self.builtins.items(emit, value) for value in args)
            return self.builtins.of_text(formatting.method(owner, name, args, kwargs))
        if static.is_number(owner) and name == "item" and not args:  # NumPy's: `np.finfo(np.float32).eps.item()`
            return owner
        if static.is_number(owner) and name in ("bit_length", "bit_count", "is_integer", "conjugate") and not args:
            return static.computed(lambda: getattr(owner, name)(), what=f"`.{name}()`")
        raise Refusal(
            f"{named(owner).capitalize()} has no `.{name}()` here.", "Methods belong to tensors; `tensor(2.0)` makes one."
        )

    def _tensor_method(self, emit: Emit, owner: Any, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        if numpy_arrays.is_array(owner):
            value = numpy_arrays.method(functools.partial(self.operation, emit), owner, name, args, kwargs)
            return numpy_arrays.marked(self._method_of(emit, owner, name, args, kwargs) if value is None else value)
        value = self._method_of(emit, owner, name, args, kwargs)
        return numpy_arrays.marked(value) if name == "numpy" else value

    def _method_of(self, emit: Emit, owner: Any, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        if name == "item" and not args:
            return self.reads.number(emit, owner)
        if name == "tolist" and not args:
            return self.reads.numbers(emit, owner)
        if name in _BEGINNING and self.gradients.last is None:
            weight = self._weights.held_by(owner)
            if weight is not None and not self._weights.is_used(weight) and self._begun(emit, weight, name, args, kwargs):
                return owner
        if name.endswith("_") and not name.endswith("__"):
            value = inplace.method(self._trace, emit, owner, name, args, kwargs)
            if value is not None:
                return value
        if name == "numpy" and not self._trace.grad_enabled:
            kwargs = {**kwargs, "force": True}  # PyTorch refuses only where derivatives are followed
        return tensors.method(emit, owner, name, args, kwargs, self._dtype)

    def _begun(self, emit: Emit, weight: Weight, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> bool:
        """`layer.weight.data.normal_(0, 0.02)`: what is sent for the weight stands, else it begins so."""
        enabled, self._trace.grad_enabled = self._trace.grad_enabled, False
        try:
            inplace.method(self._trace, emit, weight.initial, name, args, kwargs, initial=True)
            self._weights.begin(weight)
        finally:
            self._trace.grad_enabled = enabled
        return True

    def _new_tensor(self, emit: Emit, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        if factories.ALIASES.get(name, name) != "tensor":
            args = tuple(self.reads.size(emit, value) for value in args)
        leaf = bool(kwargs.pop("requires_grad", False))
        kwargs.pop("generator", None)
        value = factories.new_tensor(emit, name, args, kwargs, self._dtype, real=not self._trace.static, stack=self._stacked)
        if leaf and is_tensor(value):
            if not is_floating(example(value)):
                raise Refusal(
                    "Only floating and complex tensors can require grad; these are whole numbers.",
                    "Write them with a point, `torch.tensor([1.0, 2.0], requires_grad=True)`, or give `dtype=torch.float32`.",
                    code="operation_failed",
                )
            return Weight(value, typed="dtype" in kwargs)
        # `torch.from_numpy(a)` shows the memory of an array, and is a tensor
        return emit("detach", torch.Tensor.detach, (value,), {}) if numpy_arrays.is_array(value) else value

    def _stacked(self, emit: Emit, value: Value) -> Value:
        """`torch.tensor([x, y])` of tensors: `stack`."""
        if isinstance(value, list | tuple):
            members = [self._stacked(emit, member) for member in value]
            return emit("stack", torch.stack, (members,), {})
        if is_tensor(value):
            return value
        return emit("tensor", torch.tensor, (value,), {"dtype": self._dtype})

    def _variable(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """`Variable(x, requires_grad=True)`: a leaf as of the time before PyTorch 0.4."""
        live = is_tensor(args[0]) and self._trace.is_live(args[0])
        is_sent = live and args[0].op == "placeholder" and self._weights.weight_of(args[0]) is None
        value = emit("detach", torch.Tensor.detach, args[:1], {}) if live and not is_sent else args[0]
        return Weight(value) if is_tensor(value) and not is_sent and kwargs.get("requires_grad") else value

    def _parameter(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Weight:
        value = args[0] if args else kwargs.get("data")
        if not is_tensor(value):
            raise Refusal("`nn.Parameter` holds a tensor.", "Write `nn.Parameter(torch.zeros(3))`.")
        return Weight(emit("detach", torch.Tensor.detach, (value,), {}), trained=bool(kwargs.get("requires_grad", True)))

    def _math(
        self, emit: Emit, short: str, meant: str, foreign: bool, args: tuple[Value, ...], kwargs: dict[str, Value]
    ) -> Value:
        flat = args[0] if short in ("prod", "fsum") and args and isinstance(args[0], list | tuple) else args
        self._trace.budget.spend(1 + sum(len(value) if isinstance(value, list | tuple) else 1 for value in args) // 4)
        if args and not kwargs and all(static.is_number(value) for value in flat):
            return plain.number(short, args)
        if foreign:
            raise Refusal(f"`{meant}` of NumPy is for plain numbers here.", f"Write `torch.{short}(…)` for a tensor.")
        if len(args) == 1 and is_tensor(args[0]) and meant.startswith("math.") is False and lookup(meant) is None:
            return self.operation(emit, short, args, kwargs)
        return self.operation(emit, meant, args, kwargs)


def _dropout_mask_like(p: float, tensor: torch.Tensor) -> torch.Tensor:
    """What `dropout` multiplies by: 1 / (1 - p), or 0 with the probability p."""
    return torch.empty_like(tensor).bernoulli_(1 - p).div_(1 - p)


def _detached(emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
    if len(args) != 1 or kwargs:
        raise Refusal("`detach` takes one tensor.")
    return emit("detach", torch.Tensor.detach, args, {}) if is_tensor(args[0]) else args[0]
