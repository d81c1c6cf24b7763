"""From the text of a program to a Function: the road through reading, running the statements on examples, and the outputs."""

from __future__ import annotations

import functools
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor

from app.errors import PullbackError
from app.program.errors import REFUSALS, tensors_in
from app.program.function import RAISED, RAN, Function, Initial, Printed, Remark, Step
from app.program.graph_runner import GraphRunner, floating_default
from app.program.interpreting.expressions import Reader
from app.program.interpreting.outputs import outputs, program
from app.program.interpreting.prints import PrintedGradient
from app.program.interpreting.statements import Runner
from app.program.modules.layers import LayerValue
from app.program.packages import numpy_arrays
from app.program.reading.source import Refusal, Source, read
from app.program.semantics import sizes
from app.program.semantics.graph_values import Value, example, reachable
from app.program.semantics.scopes import Scope
from app.program.semantics.static import Budget
from app.program.semantics.trace import Trace
from app.query import Parameter

Inputs = Mapping[str, Tensor | tuple[Tensor, ...]]
# Lines named in one note; more would only make it longer than the program.
_NOTE_LINES: Final = 20


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
        inputs: name → example tensor, or tuple of them; fakes (the caller has entered their mode) or real ones. Dotted names are
            weights (`layer.weight`).
        parameters: name → plain value.
        dtype: the floating dtype that factories take.
        casts: inputs that a stored function's annotations want in another dtype.

    Raises:
        PullbackError: `bad_program` with `at` = line:column; `too_costly`; `shape_mismatch`, `operation_failed` where PyTorch refuses a step.
        DataDependentOutputException, DynamicOutputShapeException: under fakes, where only data decides a shape or a branch; build
            again on real tensors.
    """
    source = read(text)
    floating = dtype.to_real() if dtype.is_complex else dtype
    reading = functools.partial(_read, source, inputs, parameters, casts or {}, floating, title)
    if source.waits:
        return reading()  # what a size that is no number yet refuses would be taken for an error of the program
    if any(isinstance(tensor, FakeTensor) for tensor in tensors_in(list(inputs.values()))):
        return reading()  # of what is large a reading serves these sizes alone
    with sizes.unsettled() as were_met:
        try:
            return reading()
        except (PullbackError, *REFUSALS):
            if not were_met():
                raise
    return reading()  # what is refused speaks of plain numbers, and where a size is no number for somebody it is one now


def _read(
    source: Source,
    inputs: Inputs,
    parameters: Mapping[str, Parameter],
    casts: Mapping[str, torch.dtype],
    floating: torch.dtype,
    title: str,
) -> Function:
    trace = Trace(Budget())
    if numpy_arrays.is_alone(source.tree, source.lines):
        trace.marks = {numpy_arrays.ARRAY: True}
    names, leaves, sent = _names(trace, inputs, parameters, casts)
    reader = Reader(source, trace, Scope(own=names), floating, sent)
    reader.tensors = [name for name in inputs if name in names]
    try:
        with torch.no_grad(), floating_default(floating), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            returned = program(reader, Runner(reader), source.tree.body)
            reader.located(returned.node, lambda: trace.finish(outputs(reader, returned)))
            _check_weights(reader, sent)
    except RecursionError as error:
        raise PullbackError(
            "bad_program", "The program is nested too deeply.", at="1:1", fix="Give names to the parts of the expression."
        ) from error
    return _function(reader, title, tuple(leaves), floating)


def _function(reader: Reader, title: str, leaves: tuple[str, ...], floating: torch.dtype) -> Function:
    """What was read, as a Function."""
    trace = reader.trace
    drawing = _drawing(reader)
    return Function(
        title=title,
        held_graph=trace.graph,
        leaves=leaves,
        outputs=trace.outputs,
        random=bool(drawing),
        # What weights begin with is drawn again, so that what is drawn later is what PyTorch draws after it.
        call=GraphRunner(trace.graph, floating, frozenset(trace.drawing if drawing else ())),
        static=trace.static,
        dtype=floating,
        notes=_notes(reader),
        branches=tuple(reader.calls.branches),
        initial=_initial(reader, floating),
        printed=_printed(reader, floating),
        remarks=_remarks(reader),
        seed=trace.randomness.seed,
        modified=reader.calls.gradients.overwrites.modified(leaves, reader.calls.gradients.taken()),
    )


def _drawing(reader: Reader) -> set[fx.Node]:
    """The steps that draw, without those that draw only what weights begin with: a weight that nobody sent is sent as it began."""
    trace = reader.trace
    if not trace.initialising:
        return trace.drawing
    firsts = {weight.first or trace.now(weight.initial) for weight in reader.weights.initial.values()}
    outputs = trace.graph.output_node().all_input_nodes
    shown = reachable(outputs, lambda node: () if node in firsts else node.all_input_nodes) - firsts
    return trace.drawing - (trace.initialising - shown)


def _check_weights(reader: Reader, sent: Mapping[str, fx.Node]) -> None:
    """Refuses inputs with dotted names that are weights of nothing."""
    try:
        reader.weights.refuse_unused([name for name in sent if not name.isidentifier()])
    except Refusal as refusal:
        raise PullbackError("bad_tensor", refusal.detail, at=f"inputs.{refusal.given}", fix=refusal.fix) from None


def _initial(reader: Reader, dtype: torch.dtype) -> Initial | None:
    weights = reader.weights.initial
    if not weights:
        return None
    trace = reader.trace
    nodes = [weight.first or trace.now(weight.initial) for weight in weights.values()]
    needed = reachable(nodes, lambda node: node.all_input_nodes)
    return Initial(
        names=tuple(weights),
        call=_giving(trace, nodes, dtype),
        random=any(node in trace.drawing for node in needed),
        shapes={name: tuple(example(node).shape) for name, node in zip(weights, nodes, strict=True)},
        fixed=_is_fixed(trace, needed),
        written=frozenset(
            name for name, weight in weights.items() if weight.parent is None or not isinstance(weight.parent[0], LayerValue)
        ),
    )


def _is_fixed(trace: Trace, needed: set[fx.Node]) -> bool:
    """Whether no input leads to these nodes, nor to what is drawn before them from the same generator."""
    leading = reachable([*needed, *_drawn_before(trace, needed)], lambda node: node.all_input_nodes)
    return all(node.op != "placeholder" for node in leading)


_INTO_INPUT: Final = (
    "PyTorch refuses to write into a leaf that requires grad; here what is sent counts as computed before, and is written into"
)


def _remarks(reader: Reader) -> tuple[Remark, ...]:
    leaves, step = reader.calls.gradients.leaves, reader.trace.into_input
    if step is not None:
        leaves.remark(
            (step.line, step.column, step.text), step.operation, _INTO_INPUT, "Write into a copy: `y = x.clone()` before."
        )
    remarks = leaves.remarks
    return tuple(remarks[place] for place in sorted(remarks)[:_NOTE_LINES])


def _printed(reader: Reader, dtype: torch.dtype) -> Printed | None:
    shown = [(place, entry) for (place, _), entry in reader.printed.items() if entry.gradient is not None]
    if not shown:
        return None
    places = tuple((line, column, _printed_text(reader, (line, column, text), entry)) for (line, column, text), entry in shown)
    return Printed(places, _giving(reader.trace, [entry.gradient for _, entry in shown if entry.gradient is not None], dtype))


def _printed_text(reader: Reader, place: tuple[int, int, str], entry: PrintedGradient) -> str:
    """What is printed; of which weight, where a loop prints several there, and how often."""
    text = f"`{place[2]}`"
    weight = reader.weights.weight_of(entry.tensor)
    if weight is not None and sum(other == place for other, _ in reader.printed) > 1:
        text += f" of {reader.weights.name_of(weight)}"
    return text if entry.times == 1 else f"{text} ({entry.times} times, the last time)"


def _giving(trace: Trace, nodes: Sequence[fx.Node], dtype: torch.dtype) -> GraphRunner:
    """Leaves → what these nodes of the program hold. Sizes among their arguments are settled: it is not run with others."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    drawn = _drawn_before(trace, nodes)
    needed = reachable([*nodes, *drawn], lambda node: node.all_input_nodes)
    for node in trace.graph.nodes:
        if node.op == "placeholder":
            copies[node] = graph.placeholder(node.name)
        elif node in needed:
            sizes.settled(node.meta.get("sized"))
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[node] for node in nodes))
    return GraphRunner(graph, dtype, frozenset(copies[node] for node in drawn))


def _drawn_before(trace: Trace, nodes: Iterable[fx.Node]) -> list[fx.Node]:
    """The steps that draw from the generator of random numbers before the last of `nodes`."""
    order = list(trace.graph.nodes)
    last = max(map(order.index, nodes), default=-1)
    return [node for node in order[: last + 1] if node in trace.drawing]


def _notes(reader: Reader) -> tuple[tuple[str, str, str], ...]:
    notes: list[tuple[str, str, str]] = []
    if reader.ignored:
        lines = sorted(reader.ignored.items())
        listed = "; ".join(f"line {line}: {what}" for line, what in lines[:_NOTE_LINES])
        more = f"; and {len(lines) - _NOTE_LINES} more" if len(lines) > _NOTE_LINES else ""
        notes.append(("ignored", "program", f"These mean nothing here and were left out: {listed}{more}."))
    seen: set[tuple[int, int]] = set()
    for branch in reader.calls.branches:
        step = branch.step
        if (step.line, step.column) in seen or len(seen) >= _NOTE_LINES:
            continue
        seen.add((step.line, step.column))
        what = f"is {branch.value} here" if isinstance(branch.value, bool) else f"was read as the number {branch.value!r}"
        what = "was read as plain numbers" if isinstance(branch.value, str) else what
        subject = f"the step {branch.value} for these values" if branch.value in (RAISED, RAN) else f"the value {what}"
        notes.append(
            (
                "branch",
                f"{step.line}:{step.column}",
                f"Line {step.line}, `{step.text}`: {subject}, and the program goes on accordingly; the derivatives are those "
                "of this branch.",
            )
        )
    for (place, _), entry in reader.printed.items():
        if entry.gradient is None:
            line, column, _text = place
            sentence = (
                f"Line {line} prints {_printed_text(reader, place, entry)}: None, for no `backward()` before it led there."
            )
            notes.append(("printed", f"{line}:{column}", sentence))
    frozen = reader.weights.frozen()
    if frozen:
        listed = ", ".join(f"`{name}`" for name in frozen[:_NOTE_LINES]) + (" and others" if len(frozen) > _NOTE_LINES else "")
        sentence = (
            f'The program froze {listed}: PyTorch computes no gradient for frozen weights. Without "wrt" the derivatives here are with respect '
            'to all inputs, frozen or not; name those that you want in "wrt".'
        )
        notes.append(("frozen", "wrt", sentence))
    for remark in _remarks(reader):
        notes.append(("leaf", f"{remark.step.line}:{remark.step.column}", remark.sentence()))
    return tuple(notes)


def _names(
    trace: Trace, inputs: Inputs, parameters: Mapping[str, Parameter], casts: Mapping[str, torch.dtype]
) -> tuple[dict[str, Value], list[str], dict[str, fx.Node]]:
    """The names of the program, the leaves in order, and the tensors by the names under which they may be weights."""
    names: dict[str, Value] = {}
    sent: dict[str, fx.Node] = {}
    leaves: list[str] = []
    for sent_name, value in inputs.items():
        dotted = "." in sent_name and isinstance(value, Tensor)
        name = sent_name if dotted else _checked(sent_name, f"inputs.{sent_name}", names)
        if isinstance(value, Tensor):
            sent[name] = trace.leaf(len(leaves), value)
            leaves.append(sent_name)
            if not dotted:
                names[name] = sent[name]
            continue
        members = []
        for index, tensor in enumerate(value):
            members.append(trace.leaf(len(leaves), tensor))
            leaves.append(f"{sent_name}.{index}")
        names[name] = members
    for sent_name, wanted in casts.items():
        step = Step(1, 1, f"{sent_name}: {str(wanted).removeprefix('torch.')}", "to")
        names[sent_name] = trace.call(step, torch.Tensor.to, (names[sent_name], wanted))
    for sent_name, parameter in parameters.items():
        name = _checked(sent_name, f"parameters.{sent_name}", names)
        names[name] = _as_list(parameter)
    return names, leaves, sent


def _checked(sent_name: str, at: str, names: Mapping[str, Value]) -> str:
    """The name as Python reads it in a text (NFKC), refused where no text could mean it."""
    name = unicodedata.normalize("NFKC", sent_name)
    if not name.isidentifier() or name.startswith("__") or name in ("True", "False", "None"):
        raise PullbackError(
            "bad_program",
            "This name cannot be used in a program.",
            at=at,
            expected="letters, digits and _",
            given=sent_name,
            fix="Rename it.",
        )
    if name in names:
        raise PullbackError("bad_program", f"The name `{name}` is given twice.", at=at, fix="Rename one of the two.")
    return name


def _as_list(parameter: Parameter) -> Value:
    return [_as_list(member) for member in parameter] if isinstance(parameter, tuple) else parameter
