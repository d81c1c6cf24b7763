"""`torch.nn.utils.rnn`: sequences of several lengths, packed without their padding, and RNN, LSTM and GRU over them.

Which rows are packed hangs on the lengths alone, which are plain numbers while a program is read; so packing, padding and the
recurrence are steps of indexing, products and the cell's own formula, of which every derivative exists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from app.program.classes.records import Record
from app.program.modules.layers import LayerValue, Weight, computed_weights
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.aside import aside
from app.program.semantics.graph_values import Emit, Value, example, fixed, is_tensor
from app.program.semantics.static import named

NAMES: Final = tuple(
    f"nn.utils.rnn.{name}" for name in ("pack_padded_sequence", "pack_sequence", "pad_packed_sequence", "PackedSequence")
)
_ARGUMENTS: Final = {
    "pack_padded_sequence": ("input", "lengths", "batch_first", "enforce_sorted"),
    "pack_sequence": ("sequences", "enforce_sorted"),
    "pad_packed_sequence": ("sequence", "batch_first", "padding_value", "total_length"),
    "PackedSequence": ("data", "batch_sizes", "sorted_indices", "unsorted_indices"),
}
# Of its tensors those of gates, one after the other along the first axis.
_GATES: Final = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
Rows = tuple[tuple[int, ...], tuple[int, ...]]


class PackedSequence(Record):
    """PyTorch's named tuple of that name; all but its data are plain numbers here."""

    fields = _ARGUMENTS["PackedSequence"]


class Packing:
    """The functions of `torch.nn.utils.rnn` in one program.

    Arguments:
        items: the members of what may be several tensors.
        numbers: the plain numbers in a tensor.
    """

    def __init__(self, items: Callable[[Value], list[Value]], numbers: Callable[[Value], list[int]]) -> None:
        self._items, self._numbers = items, numbers

    def called(self, emit: Emit, short: str, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
        """`pack_padded_sequence(x, lengths)` and the others."""
        name = short.rpartition(".")[2]
        options = dict(zip(_ARGUMENTS[name], args, strict=False)) | dict(kwargs)
        if len(args) > len(_ARGUMENTS[name]) or not options.keys() <= set(_ARGUMENTS[name]):
            raise Refusal(f"`{name}` takes {', '.join(_ARGUMENTS[name])}.", "Compare the call with PyTorch's page of it.")
        if name == "pad_packed_sequence":
            return _padded(emit, options)
        if name == "PackedSequence":
            sizes = tuple(self._whole(options.get("batch_sizes")))
            return PackedSequence((options.get("data"), sizes, options.get("sorted_indices"), options.get("unsorted_indices")))
        if name == "pack_sequence":
            sequences = self._items(options.get("sequences"))
            options["lengths"] = [example(sequence).size(0) for sequence in sequences]
            options["input"] = emit(name, nn.utils.rnn.pad_sequence, (sequences,), {})
        return self._packed(emit, options)

    def _packed(self, emit: Emit, options: Mapping[str, Any]) -> Value:
        x: Any = options.get("input")
        if not is_tensor(x) or example(x).ndim < 2:
            raise Refusal(f"`pack_padded_sequence` packs a padded batch, not {named(x)}.", "Pad it: `pad_sequence(list)`.")
        first = bool(options.get("batch_first", False))
        lengths = self._whole(options.get("lengths"))
        batch, steps = (example(x).size(0 if first else 1), example(x).size(1 if first else 0))
        if len(lengths) != batch or any(not 0 < length <= steps for length in lengths):
            raise Refusal(
                f"`pack_padded_sequence` is given a batch of {batch} sequences of up to {steps} steps, and the lengths {lengths}.",
                "Give a length of at least 1 for each; of a batch whose first axis is the batch `batch_first=True` too.",
                code="shape_mismatch",
                raises="RuntimeError",
            )
        order: list[int] | None = None
        if not options.get("enforce_sorted", True):
            with aside():
                order = torch.tensor(lengths, device="cpu").sort(descending=True)[1].tolist()
        elif sorted(lengths, reverse=True) != lengths:
            raise Refusal(
                "The lengths do not fall from one sequence to the next, which `enforce_sorted=True` wants.",
                "Write `enforce_sorted=False`.",
                code="operation_failed",
                raises="RuntimeError",
            )
        ordered = lengths if order is None else [lengths[index] for index in order]
        sizes = tuple(sum(length > step for length in ordered) for step in range(ordered[0]))
        members = range(batch) if order is None else order
        where = [(members[row], step) for step, size in enumerate(sizes) for row in range(size)]
        rows = tuple(index for index, _ in where), tuple(step for _, step in where)
        data = emit("pack_padded_sequence", fixed(taken_rows, rows if first else rows[::-1]), (x,), {})
        return PackedSequence((data, sizes, order, None if order is None else _inverse(order)))

    def _whole(self, value: Value) -> list[int]:
        members = self._numbers(value) if is_tensor(value) else self._items(value)
        plain = [self._numbers(member) if is_tensor(member) else member for member in members]
        return [static.integer(member, "A length") for member in plain]


def _inverse(order: Sequence[int]) -> list[int]:
    inverse = [0] * len(order)
    for position, index in enumerate(order):
        inverse[index] = position
    return inverse


def _packed_of(value: Value, name: str) -> PackedSequence:
    if not isinstance(value, PackedSequence):
        raise Refusal(f"`{name}` takes a packed sequence, not {named(value)}.", "Give it what `pack_padded_sequence` gives.")
    return value


def _padded(emit: Emit, options: Mapping[str, Any]) -> Value:
    data, sizes, _, unsorted = _packed_of(options.get("sequence"), "pad_packed_sequence")
    lengths = [sum(size > row for size in sizes) for row in range(sizes[0])]
    total = options.get("total_length")
    if total is not None and total < len(sizes):
        raise Refusal(
            f"`total_length` is at least the {len(sizes)} steps of the longest sequence.",
            code="operation_failed",
            raises="ValueError",
        )
    order = range(len(lengths)) if unsorted is None else unsorted
    starts = [sum(sizes[:step]) for step in range(len(sizes))]
    lengths = [lengths[row] for row in order]
    steps = range(len(sizes) if total is None else total)
    grid = [
        [starts[step] + row if step < lengths[index] else -1 for index, row in enumerate(order)] for step in steps
    ]  # fmt: skip
    if options.get("batch_first"):
        grid = [list(column) for column in zip(*grid, strict=True)]
    where = tuple(map(tuple, grid))
    padded = emit("pad_packed_sequence", fixed(padded_rows, where, options.get("padding_value", 0.0)), (data,), {})
    return padded, emit("tensor", torch.tensor, (lengths,), {"device": "cpu"})


def taken_rows(rows: Rows, x: Tensor) -> Tensor:
    """`x[rows]`."""
    first, second = (torch.tensor(indices, device=x.device) for indices in rows)
    return x[first, second]


def padded_rows(where: tuple[tuple[int, ...], ...], padding: float, data: Tensor) -> Tensor:
    """The rows of `data` in the places of their numbers, and `padding` where that is -1."""
    numbers = torch.tensor(where, device=data.device)
    empty = (numbers < 0).reshape(*numbers.shape, *(1 for _ in data.shape[1:]))
    return data[numbers.clamp(min=0)].masked_fill(empty, padding)


def called_layer(
    emit: Emit,
    spread: Callable[[Emit, Value], list[Value]],
    layer: LayerValue,
    tensor_of: Callable[[Weight], Any],
    args: tuple[Value, ...],
    kwargs: Mapping[str, Value],
) -> Value:
    """`lstm(packed, hidden)`."""
    if layer.name not in ("RNN", "LSTM", "GRU"):
        raise Refusal(f"`nn.{layer.name}` takes tensors, not a packed sequence.", "Give it `packed.data`.", raises="TypeError")
    data, sizes, order, unsorted = _packed_of(args[0], f"nn.{layer.name}")
    hidden = args[1] if len(args) > 1 else kwargs.get("hx")
    begins = [] if hidden is None else [hidden] if is_tensor(hidden) else spread(emit, hidden)
    computed = computed_weights(emit, layer, tensor_of)
    sources = {source for rule in layer.computed.values() for source in rule.sources}
    names = [*(name for name in layer.weights if name not in sources), *computed]
    tensors = [computed[name] if name in computed else tensor_of(layer.weights[name]) for name in names]
    orders = None if order is None else (tuple(order), tuple(unsorted))
    target = fixed(run_packed, layer.skeleton, tuple(names), layer.training, sizes, orders)
    output, *ends = spread(emit, emit(f"nn.{layer.name}", target, (tensors, data, *begins), {}, random=True))
    return PackedSequence((output, sizes, order, unsorted)), tuple(ends) if layer.name == "LSTM" else ends[0]


def run_packed(
    skeleton: Any,
    names: tuple[str, ...],
    training: bool,
    sizes: tuple[int, ...],
    orders: Rows | None,
    weights: list[Tensor],
    data: Tensor,
    *begins: Tensor,
) -> tuple[Tensor, ...]:
    """The rows that a recurrent module gives for packed ones, and the last states of each sequence."""
    held = dict(zip(names, weights, strict=True))
    directions = 2 if skeleton.bidirectional else 1
    widths = (skeleton.proj_size or skeleton.hidden_size, skeleton.hidden_size)[: 2 if skeleton.mode == "LSTM" else 1]
    states = begins or tuple(data.new_zeros(skeleton.num_layers * directions, sizes[0], width) for width in widths)
    if orders is not None and begins:
        states = tuple(state.index_select(1, torch.tensor(orders[0], device=data.device)) for state in states)
    ends: list[tuple[Tensor, ...]] = []
    for layer in range(skeleton.num_layers):
        outputs = []
        for direction in range(directions):
            ending = f"_l{layer}{'_reverse' * direction}"
            own = {name.removesuffix(ending): weight for name, weight in held.items() if name.endswith(ending)}
            number = layer * directions + direction
            output, end = _recurrence(skeleton.mode, own, data, sizes, [state[number] for state in states], bool(direction))
            outputs.append(output)
            ends.append(end)
        data = torch.cat(outputs, -1)
        if training and skeleton.dropout and layer + 1 < skeleton.num_layers:
            data = nn.functional.dropout(data, skeleton.dropout)
    last = tuple(torch.stack(parts) for parts in zip(*ends, strict=True))
    if orders is not None:
        last = tuple(part.index_select(1, torch.tensor(orders[1], device=data.device)) for part in last)
    return data, *last


def _recurrence(
    mode: str, own: Mapping[str, Tensor], data: Tensor, sizes: tuple[int, ...], begin: list[Tensor], backwards: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One direction of one layer: in step t the first `sizes[t]` sequences go on; the others have ended, or have not begun."""
    entering = torch.split(nn.functional.linear(data, own["weight_ih"], own.get("bias_ih")), list(sizes))
    count = sizes[-1] if backwards else sizes[0]
    states = [state[:count] for state in begin]
    outputs: list[Tensor] = []
    ended: list[list[Tensor]] = []
    for x in reversed(entering) if backwards else entering:
        size = x.shape[0]
        if size < count:
            ended.append([state[size:] for state in states])
            states = [state[:size] for state in states]
        elif size > count:
            states = [torch.cat([state, first[count:size]]) for state, first in zip(states, begin, strict=True)]
        count = size
        states = _cell(mode, own, x, states)
        outputs.append(states[0])
    ended.append(states)
    end = tuple(torch.cat([part[index] for part in reversed(ended)]) for index in range(len(states)))
    return torch.cat(outputs[::-1] if backwards else outputs), end


def _cell(mode: str, own: Mapping[str, Tensor], x: Tensor, states: list[Tensor]) -> list[Tensor]:
    """A step of PyTorch's cell, `x` through its weights already."""
    h = states[0]
    recurrent = nn.functional.linear(h, own["weight_hh"], own.get("bias_hh"))
    if mode == "LSTM":
        i, f, g, o = (x + recurrent).chunk(_GATES[mode], -1)
        c = f.sigmoid() * states[1] + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return [nn.functional.linear(h, own["weight_hr"]) if "weight_hr" in own else h, c]
    if mode == "GRU":
        (reset, update, new), (r, z, n) = x.chunk(_GATES[mode], -1), recurrent.chunk(_GATES[mode], -1)
        new = (new + (reset + r).sigmoid() * n).tanh()
        return [new + (update + z).sigmoid() * (h - new)]
    return [(x + recurrent).tanh() if mode == "RNN_TANH" else (x + recurrent).relu()]
