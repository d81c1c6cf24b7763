"""`torch.func` inside a program: `grad`, `vjp`, `jvp`, `jacrev`, `jacfwd`, `hessian`, `vmap`, and `autograd.functional`.

The function is read once on tensors of its own; the steps that it made are the part of the graph that is differentiated or mapped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from app.program.classes.records import named_tuple
from app.program.differentiation import nesting
from app.program.differentiation.parts import Gradient, Jacobian, Mapped, Tangent, check_drawn, part
from app.program.modules.layers import LayerValue
from app.program.modules.weights import Weights, named_weights
from app.program.reading.source import Refusal
from app.program.semantics.graph_values import Emit, Value, example, is_tensor, reachable
from app.program.semantics.static import named
from app.program.semantics.trace import Trace
from app.program.semantics.values import Instance

Invoke = Callable[[Value, tuple[Value, ...], dict[str, Value]], Value]


@dataclass(frozen=True, slots=True, eq=False)
class Transformed:
    """`torch.func.grad(f)` and its like, not yet called. `function`: the program's own, or what `vjp` kept."""

    kind: str
    function: Any
    options: dict[str, Value]


@dataclass(frozen=True, slots=True, eq=False)
class _ReadFunction:
    """What `torch.func.vjp` and `linearize` keep: where their function began and ended."""

    primals: tuple[Value, ...]
    inputs: list[fx.Node]
    result: Value
    outputs: list[fx.Node]


# Options by position after the function.
_OPTIONS = {
    "grad": ("argnums", "has_aux"), "grad_and_value": ("argnums", "has_aux"), "value_and_grad": ("argnums", "has_aux"),
    "jacrev": ("argnums", "has_aux"),
    "jacfwd": ("argnums", "has_aux"), "hessian": ("argnums",), "vmap": ("in_dims", "out_dims", "randomness"),
}  # fmt: skip
# JAX's words for them.
_OF_JAX = {"in_axes": "in_dims", "out_axes": "out_dims"}


class Transforms:
    """Transformations of the functions of one program."""

    def __init__(self, trace: Trace, dtype: torch.dtype, weights: Weights, invoke: Invoke) -> None:
        self._trace, self._dtype, self._weights, self._invoke = trace, dtype, weights, invoke
        self._duals: dict[fx.Node, fx.Node] = {}  # by `make_dual`: tensor → its tangent

    @functools.cached_property
    def table(self) -> dict[str, Callable[[Emit, tuple[Value, ...], dict[str, Value]], Value]]:
        """By name; made where a program first calls something by its name."""
        kinds = {kind: functools.partial(self._transformation, kind) for kind in _OPTIONS}
        return {
            "func.vjp": self._vjp, "func.jvp": self._jvp, "func.functional_call": self._functional_call,
            "autograd.functional.jacobian": self._jacobian, "autograd.functional.hessian": self._hessian,
            "autograd.functional.vjp": self._old_vjp, "autograd.functional.jvp": self._old_jvp,
            "autograd.functional.hvp": self._hvp, "autograd.functional.vhp": self._hvp,
            "autograd.forward_ad.make_dual": self._make_dual, "autograd.forward_ad.unpack_dual": self._unpack_dual,
            "func.stack_module_state": self._stacked_state, "func.linearize": self._linearized,
            **{f"func.{kind}": transform for kind, transform in kinds.items()}, "vmap": kinds["vmap"],
        }  # fmt: skip

    def _transformation(self, kind: str, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Transformed:
        if not args:
            raise Refusal(f"`{kind}` takes a function.", f"Write `torch.func.{kind}(f)(x)`.")
        if is_tensor(args[0]):
            raise Refusal(f"`{kind}` takes a function, not a tensor.", f"Write `torch.func.{kind}(lambda x: …)(x)`.")
        named = {_OF_JAX.get(name, name): value for name, value in kwargs.items() if name != "func"}
        options = dict(zip(_OPTIONS[kind], args[1:], strict=False)) | named
        return Transformed(kind, args[0], options)

    def invoke(self, emit: Emit, transformed: Transformed, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """Calls what a transformation gave."""
        kind = transformed.kind
        if kind == "vjp":
            return self._apply_vjp(emit, transformed.function, args)
        if kind == "linearize":
            return self._along(emit, transformed.function, args)
        if kind == "vmap":
            return self._mapped(emit, transformed, args, kwargs)
        if kind in ("grad", "grad_and_value", "value_and_grad"):
            return self._gradient(emit, transformed, args, kwargs)
        return self._derivative(emit, transformed, args, kwargs)

    # Reading a function on tensors of its own.

    def _begun(self, emit: Emit, value: Value) -> tuple[Value, list[fx.Node]]:
        """`value` with tensors of its own in the place of those in it, and these."""
        own = nesting.each(value, lambda node: emit("clone", torch.clone, (node,), {}))
        return own, nesting.leaves(own)

    def _ended(self, value: Value) -> list[fx.Node]:
        if not nesting.leaves(value):
            raise Refusal(
                f"The function that is differentiated gives {named(value)}, not a tensor.", "Return a tensor from it."
            )
        return [self._trace.now(node) for node in nesting.leaves(value)]

    def _read(
        self, emit: Emit, transformed: Transformed, args: tuple[Value, ...], kwargs: dict[str, Value]
    ) -> tuple[Any, list[fx.Node], list[fx.Node], Value, Value]:
        """The arguments that are differentiated, their tensors, the outputs' tensors, the result and what comes beside it."""
        argnums = transformed.options.get("argnums", 0)
        chosen = (argnums,) if isinstance(argnums, int) else tuple(argnums)
        if any(not isinstance(n, int) or not -len(args) <= n < len(args) for n in chosen):
            raise Refusal("`argnums` names arguments that the function is not given.", "Count them from 0.")
        arguments = list(args)
        inputs: list[fx.Node] = []
        for number in chosen:
            arguments[number], own = self._begun(emit, args[number])
            inputs += own
        if not inputs:
            raise Refusal("There is no tensor to differentiate by.", "Give the function a floating tensor.")
        result, *aux = _parted(self._invoke(transformed.function, tuple(arguments), kwargs), transformed.options)
        beside = aux[0] if aux else None
        structure: Any = args[chosen[0]] if isinstance(argnums, int) else tuple(args[n] for n in chosen)
        return structure, inputs, self._ended(result), result, beside

    def _section(self, inputs: list[fx.Node], outputs: list[fx.Node]) -> Any:
        return part(self._trace.graph, inputs, outputs, self._dtype, self._trace.drawing)

    def _picked(self, derivatives: Value, count: int) -> list[Value]:
        return [self._trace.pick(derivatives, index) for index in range(count)]

    # Derivatives.

    def _gradient(self, emit: Emit, transformed: Transformed, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        structure, inputs, outputs, result, beside = self._read(emit, transformed, args, kwargs)
        if len(outputs) != 1 or outputs[0].meta["val"].dim() != 0:
            raise Refusal(
                "`torch.func.grad` is of a function that gives one number.",
                "Return `.sum()` or `.mean()` of it, or use `torch.func.jacrev`.",
                code="not_scalar",
            )
        section = self._section(inputs, outputs)
        derivatives = emit("func.grad", Gradient(section.run), (inputs, list(section.free), None), {}, exact=True)
        gradients = nesting.rebuilt(structure, iter(self._picked(derivatives, len(inputs))))
        if transformed.kind != "grad":
            pair = (gradients, (result, beside)) if transformed.options.get("has_aux") else (gradients, result)
            return pair if transformed.kind == "grad_and_value" else pair[::-1]
        return (gradients, beside) if transformed.options.get("has_aux") else gradients

    def _derivative(self, emit: Emit, transformed: Transformed, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        structure, inputs, outputs, result, beside = self._read(emit, transformed, args, kwargs)
        blocks = self._blocks(emit, transformed.kind, inputs, outputs)
        if transformed.kind == "hessian":
            rows = [nesting.rebuilt(structure, iter(row)) for row in blocks]
            value = nesting.rebuilt(structure, iter(rows))
        else:
            rows = [nesting.rebuilt(structure, iter(row)) for row in blocks]
            value = nesting.rebuilt(result, iter(rows))
        return (value, beside) if transformed.options.get("has_aux") else value

    def _blocks(self, emit: Emit, kind: str, inputs: list[fx.Node], outputs: list[fx.Node]) -> list[list[Value]]:
        if kind == "hessian" and len(outputs) != 1:
            raise Refusal("`hessian` is of a function that gives one tensor.", "Return one of them.", code="not_scalar")
        section = self._section(inputs, outputs)
        derivatives = emit(f"func.{kind}", Jacobian(section.run, kind), (inputs, list(section.free)), {}, exact=True)
        count, rows = len(inputs), len(inputs) if kind == "hessian" else len(outputs)
        members = self._picked(derivatives, rows * count)
        return [members[row * count : (row + 1) * count] for row in range(rows)]

    def _vjp(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        function, *primals = args
        vjp, aux = self._read_at(emit, function, tuple(primals), kwargs)
        return vjp.result, Transformed("vjp", vjp, {}), *aux

    def _linearized(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """`linearize(f, x)`: what f gives at x, and its derivative there along any direction, in which x is a constant."""
        function, *primals = args
        value, _ = self._read_at(emit, function, tuple(primals), {})
        constant = nesting.each(tuple(primals), lambda node: emit("detach", torch.Tensor.detach, (node,), {}))
        linear, _ = self._read_at(emit, function, constant, {})
        return value.result, Transformed("linearize", linear, {})

    def _read_at(
        self, emit: Emit, function: Value, primals: tuple[Value, ...], options: Mapping[str, Value]
    ) -> tuple[_ReadFunction, list[Value]]:
        """A function read at `primals`, and what it gives beside its result under `has_aux=True`."""
        own, inputs = self._begun(emit, primals)
        result, *aux = _parted(self._invoke(function, own, {}), options)
        return _ReadFunction(primals, inputs, result, self._ended(result)), aux

    def _apply_vjp(self, emit: Emit, vjp: _ReadFunction, args: tuple[Value, ...]) -> Value:
        weights = [self._trace.now(node) for value in args for node in nesting.leaves(value)]
        if len(weights) != len(vjp.outputs):
            raise Refusal("The cotangent has another form than what the function gives.", "Give one tensor for each output.")
        section = self._section(vjp.inputs, vjp.outputs)
        derivatives = emit("func.vjp", Gradient(section.run), (vjp.inputs, list(section.free), weights), {}, exact=True)
        return nesting.rebuilt(vjp.primals, iter(self._picked(derivatives, len(vjp.inputs))))

    def _jvp(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        options: dict[str, Value] = {name: kwargs[name] for name in ("has_aux", "strict") if name in kwargs}
        function, primals, tangents = (*args, *[value for name, value in kwargs.items() if name not in options])[:3]
        if not isinstance(primals, tuple | list) or not isinstance(tangents, tuple | list):
            raise Refusal("`jvp` takes tuples of primals and tangents.", "Write `torch.func.jvp(f, (x,), (v,))`.")
        function_read, aux = self._read_at(emit, function, tuple(primals), options)
        return function_read.result, self._along(emit, function_read, tuple(tangents)), *aux

    def _along(self, emit: Emit, read: _ReadFunction, tangents: tuple[Value, ...]) -> Value:
        """The derivative of a function that was read, along directions."""
        along = [self._trace.now(node) for node in nesting.leaves(tangents)]
        if len(along) != len(read.inputs):
            raise Refusal("The tangents have another form than the primals.", "Give one tensor for each input.")
        section = self._section(read.inputs, read.outputs)
        derivatives = emit("func.jvp", Tangent(section.run), (read.inputs, list(section.free), along), {}, exact=True)
        return nesting.rebuilt(read.result, iter(self._picked(derivatives, len(read.outputs))))

    # `torch.autograd.forward_ad`.

    def _make_dual(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """`make_dual(primal, tangent)`: a tensor of its own, whose tangent what is computed from it carries along."""
        primal, tangent = (*args, *kwargs.values())[:2]
        if not (is_tensor(primal) and is_tensor(tangent)):
            raise Refusal("`make_dual` takes a tensor and its tangent.", "Write `fwAD.make_dual(x, v)`.")
        dual = emit("clone", torch.clone, (primal,), {})
        self._duals[self._trace.now(dual)] = self._trace.now(tangent)
        return dual

    def _unpack_dual(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """`unpack_dual(y)`: y and its tangent, None where no dual tensor leads to it."""
        output = self._trace.now(args[0])
        below = reachable([output], lambda node: node.all_input_nodes)
        duals = [dual for dual in self._duals if dual in below]
        tangent: Value = None
        if output in self._duals:
            tangent = self._duals[output]
        elif duals:
            section = self._section(duals, [output])
            along = [self._duals[dual] for dual in duals]
            derivatives = emit("func.jvp", Tangent(section.run), (duals, list(section.free), along), {}, exact=True)
            (tangent,) = self._picked(derivatives, 1)
        return named_tuple((args[0], tangent), ("primal", "tangent"))

    # `torch.autograd.functional`, whose results are cut off unless `create_graph=True`.

    def _loose(self, emit: Emit, value: Value, kwargs: Mapping[str, Value]) -> Value:
        if kwargs.get("create_graph"):
            return value
        return nesting.each(value, lambda node: emit("detach", torch.Tensor.detach, (node,), {}))

    def _jacobian(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        function, primals, is_tuple = _taken(args)
        own, inputs = self._begun(emit, primals)
        result = self._invoke(function, own, {})
        rows = [tuple(row) if is_tuple else row[0] for row in self._blocks(emit, "jacrev", inputs, self._ended(result))]
        return self._loose(emit, nesting.rebuilt(result, iter(rows)), kwargs)

    def _hessian(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        function, primals, is_tuple = _taken(args)
        own, inputs = self._begun(emit, primals)
        result = self._invoke(function, own, {})
        if not is_tensor(result) or not example(result).is_single():
            raise Refusal("`hessian` is of a function that gives one number.", "Return `.sum()` of it.", code="not_scalar")
        rows = self._blocks(emit, "hessian", inputs, self._ended(result))
        return self._loose(emit, tuple(map(tuple, rows)) if is_tuple else rows[0][0], kwargs)

    def _old_vjp(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        function, primals, is_tuple = _taken(args)
        result, vjp = self._vjp(emit, (function, *primals), {})
        weights = args[2] if len(args) > 2 else kwargs.get("v")
        if weights is None:
            weights = nesting.each(result, lambda node: emit("ones_like", torch.ones_like, (node,), {}))
        gradients = self._apply_vjp(emit, vjp.function, (weights,))
        return self._loose(emit, (result, gradients if is_tuple else gradients[0]), kwargs)

    def _old_jvp(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        function, primals, _ = _taken(args)
        tangents = args[2] if len(args) > 2 else kwargs.get("v")
        result = self._jvp(emit, (function, primals, tangents if isinstance(tangents, tuple | list) else (tangents,)), {})
        return self._loose(emit, result, kwargs)

    def _hvp(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        function, primals, is_tuple = _taken(args)
        direction = args[2] if len(args) > 2 else kwargs.get("v")
        own, inputs = self._begun(emit, primals)
        result = self._invoke(function, own, {})
        first = self._section(inputs, self._ended(result))
        gradient = emit("func.grad", Gradient(first.run), (inputs, list(first.free), None), {}, exact=True)
        slopes = [self._trace.now(node) for node in self._picked(gradient, len(inputs))]
        second = self._section(inputs, slopes)
        weights = [self._trace.now(node) for node in nesting.leaves(direction)]
        derivatives = emit("func.vjp", Gradient(second.run), (inputs, list(second.free), weights), {}, exact=True)
        products = tuple(self._picked(derivatives, len(inputs)))
        return self._loose(emit, (result, products if is_tuple else products[0]), kwargs)

    # Mapping, and modules with other weights.

    def _stacked_state(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """`stack_module_state(models)`: the parameters, and the buffers, of modules of one kind, stacked by name."""
        modules = args[0]
        if (
            not isinstance(modules, list | tuple)
            or not modules
            or not all(isinstance(m, Instance | LayerValue) for m in modules)
        ):
            raise Refusal("`stack_module_state` takes a list of modules.", "Write `stack_module_state(models)`.")
        states = [dict(named_weights(module)) for module in modules]
        if len({tuple(state) for state in states}) > 1:
            raise Refusal("The modules have other weights than each other.", "Give modules of one kind.", raises="RuntimeError")
        parts: tuple[dict[str, Value], dict[str, Value]] = ({}, {})
        for name, first in states[0].items():
            whole = emit("stack", torch.stack, ([self._weights.tensor_of(state[name]) for state in states],), {})
            parts[not first.trained][name] = emit("detach", torch.Tensor.detach, (whole,), {})
        return parts

    def _mapped(self, emit: Emit, transformed: Transformed, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        options = transformed.options
        dims = options.get("in_dims", 0)
        spread = [
            self._spread(dims if isinstance(dims, int) or dims is None else dims[i], value) for i, value in enumerate(args)
        ]
        spread += [self._spread(0, value) for value in kwargs.values()]
        inputs, axes = [n for nodes, _ in spread for n in nodes], [a for _, dims in spread for a in dims]
        if not any(axis is not None for axis in axes):
            raise Refusal("`vmap` needs a tensor with an axis to map over.", "Give `in_dims` an axis for one argument.")
        sizes = {example(n).extent(a) for n, a in zip(inputs, axes, strict=True) if a is not None and example(n).ndim}
        if len(sizes) != 1 or 0 in sizes:
            raise Refusal(f"The mapped axes have {sorted(sizes)} members; they must agree.", code="shape_mismatch")
        samples = [
            node if axis is None else emit("select", torch.select, (node, axis, 0), {})
            for node, axis in zip(inputs, axes, strict=True)
        ]
        starts = [emit("clone", torch.clone, (node,), {}) for node in samples]
        members = iter(starts)
        own = tuple(nesting.rebuilt(value, members) for value in args)
        named_own = {key: nesting.rebuilt(value, members) for key, value in kwargs.items()}
        before = set(self._trace.drawing)
        result = self._invoke(transformed.function, own, named_own)
        check_drawn(self._trace.drawing - before, options.get("randomness", "error"))
        outputs = self._ended(result)
        out = options.get("out_dims", 0)
        out_dims = (out,) * len(outputs) if isinstance(out, int) else tuple(out)
        section = self._section(starts, outputs)
        target = Mapped(section.run, tuple(axes), out_dims, str(options.get("randomness", "error")))
        whole = [self._trace.now(node) for node in inputs]
        derivatives = emit("vmap", target, (whole, list(section.free)), {}, exact=True)
        return nesting.rebuilt(result, iter(self._picked(derivatives, len(outputs))))

    def _spread(self, dims: Value, value: Value) -> tuple[list[fx.Node], list[int | None]]:
        nodes = nesting.leaves(value)
        if dims is None or isinstance(dims, int):
            return nodes, [dims] * len(nodes)
        axes = list(dims.values()) if isinstance(dims, dict) else list(dims)
        return nodes, axes

    def _functional_call(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        module, values, *rest = args
        positional = rest[0] if rest else kwargs.get("args", ())
        named_args = rest[1] if len(rest) > 1 else kwargs.get("kwargs") or {}
        values = {k: v for one in values for k, v in one.items()} if isinstance(values, tuple | list) else values
        if not isinstance(module, LayerValue | Instance) or not isinstance(values, dict):
            raise Refusal("`functional_call` takes a module, a dict of its weights, and arguments.")
        weights = dict(named_weights(module))
        before = {name: weight.node for name, weight in weights.items()}
        unknown = [name for name in values if name not in weights]
        if unknown:
            raise Refusal(f"The module has no weight `{unknown[0]}`.", f"Its weights are {', '.join(weights) or 'none'}.")
        try:
            for name, value in values.items():
                weights[name].node = value
            return self._invoke(
                module, tuple(positional) if isinstance(positional, tuple | list) else (positional,), dict(named_args)
            )
        finally:
            for name, node in before.items():
                weights[name].node = node


def _parted(result: Value, options: Mapping[str, Value]) -> tuple[Value, ...]:
    """What a function gives: under `has_aux=True` its result and what comes beside it."""
    if not options.get("has_aux"):
        return (result,)
    if not isinstance(result, tuple) or len(result) != 2:
        raise Refusal("With `has_aux=True` the function returns a pair.", "Write `return loss, aux`.")
    return result


def _taken(args: tuple[Value, ...]) -> tuple[Value, tuple[Value, ...], bool]:
    """A function, what it is differentiated by, and whether that is a tuple."""
    function, inputs = args[0], args[1]
    is_tuple = isinstance(inputs, tuple | list)
    return function, tuple(inputs) if is_tuple else (inputs,), is_tuple
