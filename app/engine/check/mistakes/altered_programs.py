"""Mistakes that are the right derivative of another program: one without its eps, in degrees, of a sum for a mean, an index off by one."""

from __future__ import annotations

import dataclasses
import inspect
import math
import operator
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeGuard

import torch
from torch import Tensor, fx
from torch.nn import functional

from app.catalogue.facts import operations_with, values
from app.engine.check.mistakes.case import Case, Claim, moved_to, place_of
from app.engine.explain.findings import operation_of
from app.engine.stepwise.detached import is_detaching
from app.engine.stepwise.point import Point, name_of, step_of

_ATTENTION: Final = "scaled_dot_product_attention"
_NODES: Final = 64  # a longer program is not altered
_SMALL: Final = 1e-2  # what is added to keep a number away from zero is at most this
_DEGREE: Final = math.pi / 180  # in radians

_AXES: Final = 4  # of a tensor with more none is tried in the place of another
_GROUPS: Final = 17  # of a normalisation, less one: as many as are tried

# A change of one node of a copied graph, with its code and sentence.
Change = tuple[str, str, Callable[[fx.Graph, fx.Node], None]]


def altered(case: Case) -> Iterator[Claim]:
    """Every change that gives the client's derivative."""
    return programs_that_fit(case, _SOURCES)


def programs_that_fit(case: Case, sources: Sequence[Callable[[fx.Node], Iterator[Change]]]) -> Iterator[Claim]:
    """Every change of one step, of those that `sources` know, that gives the client's derivative; where none does, of all that it fits."""
    function = case.objective.point.function
    nodes = [node for node in function.graph.nodes if node.op == "call_function"]
    if len(nodes) > _NODES:
        return
    alike: dict[tuple[str, str], list[_Numbered]] = defaultdict(list)
    is_explained = False
    for number, node in enumerate(nodes):
        for source in sources:
            for code, text, change in source(node):
                alike[code, text].append((number, change))
                if case.fits(_derivative(case, [(number, change)])):
                    is_explained = True
                    yield Claim(code, f"{text}{place_of(node)}.")
    for (code, text), changes in alike.items() if not is_explained else ():
        for chosen in _together(nodes, changes):
            if case.fits(_derivative(case, chosen)):
                yield Claim(code, f"{text}{place_of(nodes[chosen[0][0]])}, wherever it can be.")


# A change and the number of its step.
_Numbered = tuple[int, Callable[[fx.Graph, fx.Node], None]]


def _together(nodes: Sequence[fx.Node], changes: Sequence[_Numbered]) -> Iterator[Sequence[_Numbered]]:
    """One change made at all steps: of one place of the text, as the turns of a loop are, and of the whole program."""
    places: dict[Any, list[_Numbered]] = defaultdict(list)
    for number, change in changes:
        places[step_of(nodes[number])].append((number, change))
    yield from (chosen for chosen in places.values() if 1 < len(chosen) < len(changes))
    if len(changes) > 1:
        yield changes


def _derivative(case: Case, changes: Sequence[_Numbered]) -> Tensor | None:
    """That of the program with some steps changed."""
    function, copy = case.objective.point.function, fx.Graph()
    copy.output(copy.graph_copy(function.graph, {}))
    nodes = [node for node in copy.nodes if node.op == "call_function"]
    try:
        for number, change in changes:
            change(copy, nodes[number])
    except (TypeError, ValueError, IndexError):
        return None
    return case.of_program(dataclasses.replace(function, held_graph=copy))


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _eps(node: fx.Node) -> Iterator[Change]:
    """What is added, or kept as a margin, against division by zero."""
    if name_of(node) in ("add", "sub", "clamp", "clamp_min", "maximum"):
        for position, value in enumerate(node.args):
            if is_number(value) and 0 < abs(value) <= _SMALL:
                yield "missing_eps", f"The {value:g} is forgotten", with_argument(position, 0.0)
    for key, value in node.kwargs.items():
        if key in ("eps", "min") and is_number(value) and 0 < value <= _SMALL:
            yield "missing_eps", f"The {key} of {value:g} is forgotten", _with_keyword(key, 0.0)
    if name_of(node) in ("layer_norm", "batch_norm", "instance_norm", "group_norm") and "eps" not in node.kwargs:
        position = {"layer_norm": 4, "group_norm": 4}.get(name_of(node), 7)
        if position >= len(node.args):
            yield "missing_eps", "The eps of 1e-05 is forgotten", _with_keyword("eps", 0.0)


def _index(node: fx.Node) -> Iterator[Change]:
    """An index, a bound of a slice or a shift that is off by one."""
    if name_of(node) == "getitem":
        for by in (1, -1):
            yield "off_by_one", "An index is off by one", _with_index(_moved, by)
            yield "off_by_one", "A slice is off by one", _with_index(_slid, by)
    if name_of(node) in ("roll", "diagonal", "triu", "tril", "select", "narrow"):
        for position, value in enumerate(node.args[1:], start=1):
            if isinstance(value, int) and not isinstance(value, bool):
                for by in (1, -1):
                    yield (
                        "off_by_one",
                        f"A shift or index of `{operation_of(node)}` is off by one",
                        with_argument(position, value + by),
                    )


def _moved(index: Any, by: int) -> Any:
    if isinstance(index, bool) or index is None or index is Ellipsis:
        return index
    if isinstance(index, int):
        if (index < 0) != (index + by < 0):
            raise ValueError(index)  # the other end, which is no neighbour
        return index + by
    if isinstance(index, tuple):
        return tuple(_moved(member, by) for member in index)
    if isinstance(index, slice):
        return slice(_moved(index.start, by), _moved(index.stop, by), index.step)
    raise TypeError(index)


def _slid(index: Any, by: int) -> Any:
    """Slices moved as a whole: [:-1] to [1:]."""
    if isinstance(index, tuple):
        return tuple(_slid(member, by) for member in index)
    if not isinstance(index, slice) or index.step not in (None, 1):
        return index
    start, stop = (index.start or 0) + by, index.stop
    stop = (-1 if by < 0 else None) if stop is None else stop + by
    return slice(start if start > 0 else None, None if stop == 0 else stop, index.step)


def _degrees(node: fx.Node) -> Iterator[Change]:
    if name_of(node) in operations_with("angle", "argument"):
        for by, text in ((_DEGREE, "The angle is taken in degrees"), (1 / _DEGREE, "The angle is multiplied by 180/π")):
            yield "degrees", text, _with_scaled_argument(by)


def _base(node: fx.Node) -> Iterator[Change]:
    for other, base in ((torch.log, "e"), (torch.log2, "2"), (torch.log10, "10")):
        if name_of(node) in ("log", *values("logarithm_to")) and name_of(node) != other.__name__:
            yield "log_base", f"The logarithm is taken to the base {base}", with_target(other)


def _reduction(node: fx.Node) -> Iterator[Change]:
    for own, other in (("mean", torch.sum), ("sum", torch.mean)):
        if name_of(node) == own:
            yield "wrong_reduction", f"A {other.__name__} is taken where the program has a {own}", with_target(other)


def _correction(node: fx.Node) -> Iterator[Change]:
    if name_of(node) not in ("var", "std"):
        return
    for key in ("unbiased", "correction"):
        for value in (False, True) if key == "unbiased" else (0, 1):
            yield (
                "variance_correction",
                "The variance is divided by n where n - 1 belongs, or the other way round",
                _with_keyword(key, value),
            )


def _order(node: fx.Node) -> Iterator[Change]:
    if name_of(node) in ("sub", "truediv", "div", "matmul", "pow", "atan2", "kl_div") and len(node.args) > 1:
        yield "swapped", f"The two arguments of `{operation_of(node)}` are swapped", _with_swapped_arguments


def _transposition(node: fx.Node) -> Iterator[Change]:
    if name_of(node) in ("T", "mT", "t", "transpose", "adjoint", "mH", "swapaxes"):
        yield "transposed_product", "A transpose is forgotten", with_target(_same)


def _same(tensor: Tensor, *_: Any) -> Tensor:
    return tensor


def _detached(node: fx.Node) -> Iterator[Change]:
    """A value that is detached, alone or with all others, differentiated like any other."""
    if is_detaching(node):
        text = f"The derivative is taken through `{operation_of(node)}`, where PyTorch ends it"
        yield "ignored_detach", text, with_target(_same)
        yield "ignored_detach", text, _with_none_detached


def _axis(node: fx.Node) -> Iterator[Change]:
    """Another axis."""
    by_place = name_of(node) in operations_with("second_argument", "dim") | frozenset(values("reduces"))
    own = node.kwargs.get("dim", node.args[1] if by_place and len(node.args) > 1 else None)
    entering = node.all_input_nodes[0].meta.get("val") if node.all_input_nodes else None
    if isinstance(own, int) and not isinstance(own, bool) and isinstance(entering, Tensor):
        for axis in range(entering.ndim if entering.ndim <= _AXES else 0):
            if axis != own % entering.ndim:
                text = f"Axis {axis} is taken where the program has axis {own % entering.ndim}"
                yield "wrong_axis", text, _with_keyword_in("dim", 1, axis)


def taken_for_another(case: Case) -> Iterator[Claim]:
    """Every operation that people take for another, or whose arguments they take for others."""
    if case.elements(case.expected) > 1:  # of one element any number would do
        yield from programs_that_fit(case, (_other_operation, _other_arguments, _axis))


def _other_operation(node: fx.Node) -> Iterator[Change]:
    for path in values("taken_for").get(name_of(node), ()):
        other = operator.attrgetter(path)(torch)
        shown = path.replace("nn.functional.", "F.")
        yield "other_operation", f"`{shown}` is differentiated in the place of `{operation_of(node)}`", _as_other(other)


def _as_other(other: Callable[..., Any]) -> Callable[[fx.Graph, fx.Node], None]:
    def change(graph: fx.Graph, node: fx.Node) -> None:
        try:
            names = inspect.signature(other).parameters
            node.kwargs = {key: value for key, value in node.kwargs.items() if key in names}
        except ValueError:  # most of PyTorch's built-in functions have no signature
            pass
        node.target = other

    return change


def _other_arguments(node: fx.Node) -> Iterator[Change]:
    name, op = name_of(node), operation_of(node)
    if name == "kl_div":
        yield "swapped", f"The two distributions of `{op}` are swapped", with_target(_reverse_divergence)
    if name == "gelu":
        other = "none" if node.kwargs.get("approximate") == "tanh" else "tanh"
        text = f"`{op}` is differentiated {'without' if other == 'none' else 'with'} its tanh approximation"
        yield "other_operation", text, _with_keyword("approximate", other)
    if name == "einsum" and len(node.args) == 3:
        yield "swapped", f"The two tensors of `{op}` are swapped", _with_swapped_tensors
    if name == "pad":
        yield (
            "not_moved_back",
            f"What `{op}` puts in front is not cut off: the elements are not moved back",
            with_target(_padded_behind),
        )
    if name in ("batch_norm", "instance_norm"):
        text = f"`{op}` is differentiated with the running mean and variance, as in evaluation"
        yield "statistics_constant", text, _in_evaluation
        yield (
            "statistics_constant",
            f"`{op}` is differentiated with the mean and variance of the batch, as in training",
            _in_training,
        )
    if name == "group_norm":
        for count in range(1, _GROUPS):
            text = f"The statistics of `{op}` are those of {count} group{'s' if count > 1 else ''}"
            yield "wrong_axis", text, _with_keyword_in("num_groups", 1, count)


def _reverse_divergence(logs: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if kwargs.get("log_target"):
        return functional.kl_div(target, logs, *args, **kwargs)
    return functional.kl_div(target.log(), logs.exp(), *args, **kwargs)


def _padded_behind(x: Tensor, pad: Sequence[int], *args: Any, **kwargs: Any) -> Tensor:
    behind = [n for before, after in zip(pad[::2], pad[1::2], strict=True) for n in (0, before + after)]
    return functional.pad(x, behind, *args, **kwargs)


def _in_evaluation(graph: fx.Graph, node: fx.Node) -> None:
    _with_keyword_in("training" if name_of(node) == "batch_norm" else "use_input_stats", 5, False)(graph, node)


def _in_training(graph: fx.Graph, node: fx.Node) -> None:
    for position, key in ((1, "running_mean"), (2, "running_var")):  # which training would write into
        _with_keyword_in(key, position, None)(graph, node)
    _with_keyword_in("training" if name_of(node) == "batch_norm" else "use_input_stats", 5, True)(graph, node)


def _with_keyword_in(key: str, position: int, value: Any) -> Callable[[fx.Graph, fx.Node], None]:
    """The argument by its place, where it stands there, else by its name."""

    def change(graph: fx.Graph, node: fx.Node) -> None:
        if position < len(node.args):
            with_argument(position, value)(graph, node)
        else:
            _with_keyword(key, value)(graph, node)

    return change


_SOURCES: Final = (_eps, _index, _degrees, _base, _reduction, _correction, _order, _transposition, _detached)


def with_argument(position: int, value: Any) -> Callable[[fx.Graph, fx.Node], None]:
    def change(graph: fx.Graph, node: fx.Node) -> None:
        node.args = (*node.args[:position], value, *node.args[position + 1 :])

    return change


def _with_index(moved: Callable[[Any, int], Any], by: int) -> Callable[[fx.Graph, fx.Node], None]:
    def change(graph: fx.Graph, node: fx.Node) -> None:
        node.args = (node.args[0], moved(node.args[1], by))

    return change


def _with_keyword(key: str, value: Any) -> Callable[[fx.Graph, fx.Node], None]:
    def change(graph: fx.Graph, node: fx.Node) -> None:
        node.kwargs = {k: v for k, v in node.kwargs.items() if k not in ("unbiased", "correction") or k == key} | {key: value}

    return change


def with_target(target: Callable[..., Any]) -> Callable[[fx.Graph, fx.Node], None]:
    def change(graph: fx.Graph, node: fx.Node) -> None:
        node.target = target

    return change


def _with_none_detached(graph: fx.Graph, node: fx.Node) -> None:
    for other in graph.nodes:
        if is_detaching(other):
            other.target = _same


def _with_scaled_argument(by: float) -> Callable[[fx.Graph, fx.Node], None]:
    def change(graph: fx.Graph, node: fx.Node) -> None:
        with graph.inserting_before(node):
            scaled = graph.call_function(torch.mul, (node.args[0], by))
        node.args = (scaled, *node.args[1:])

    return change


def _with_swapped_tensors(graph: fx.Graph, node: fx.Node) -> None:
    node.args = (node.args[0], node.args[2], node.args[1])


def _with_swapped_arguments(graph: fx.Graph, node: fx.Node) -> None:
    node.args = (node.args[1], node.args[0], *node.args[2:])


def with_attention_in_steps(case: Case) -> Case | None:
    """The same of the program with attention written out, as two products and a softmax; None where it has none, or with a mask."""
    function, copy, copies = case.objective.point.function, fx.Graph(), dict[fx.Node, fx.Node]()
    copy.output(copy.graph_copy(function.graph, copies))
    attentions = [record for record in case.trace.records if name_of(record.node) == _ATTENTION]
    if not attentions or any(len(r.node.args) != 3 or set(r.node.kwargs) - {"scale"} for r in attentions):
        return None
    for record in attentions:
        scale = record.node.kwargs.get("scale")
        _write_attention_out(copy, copies[record.node], record.inputs[0].shape[-1] ** -0.5 if scale is None else scale)
    point = case.objective.point
    written_out = Point(dataclasses.replace(function, held_graph=copy), point.leaves, case.seed, wide=point.wide)
    objective = moved_to(case.objective, written_out)
    return Case(
        case.name, case.ours, case.expected, case.relative, objective, case.seed, loosest=case.loosest, written=case.written
    )


def _write_attention_out(graph: fx.Graph, node: fx.Node, scale: Any) -> None:
    step, (query, key, value) = step_of(node), node.args

    def call(target: Callable[..., Any], *args: Any) -> fx.Node:
        new = graph.call_function(target, args)
        new.meta = {"step": None if step is None else dataclasses.replace(step, operation=target.__name__)}
        return new

    with graph.inserting_before(node):
        products = call(torch.matmul, query, call(torch.transpose, key, -2, -1))
        result = call(torch.matmul, call(torch.softmax, call(torch.mul, products, scale), -1), value)
    node.replace_all_uses_with(result)
    graph.erase_node(node)
