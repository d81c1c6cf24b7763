"""What must hold of a kernel's arguments before it may run; each check raises UnsafeValuesError.

A check sees plain tensors with values: it runs below autograd, below vmap and below the fakes. All are of PyTorch 2.13.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from app.catalogue.dtypes import dtype_name
from app.catalogue.kernels.unsafe_values import UnsafeValuesError

Arguments = Mapping[str, Any]
Check = Callable[[Arguments], None]
RECURRENCE_LIMIT: Final = 10**9  # some seconds
ZETA_LIMIT: Final = 10**7  # 0.14 s: 14 ns a step, measured at -1e5 to -3e7; explain and check run a step hundreds of times
RATE_LIMIT: Final = 9e18  # PyTorch counts events in int64, to 9.22e18; a draw strays from this rate by some 3e9, its root


def finite(argument: str, public: str | None = None) -> Check:
    """Every number of `argument` is finite. `public`: its name in the catalogue."""

    def check(arguments: Arguments) -> None:
        if not bool(torch.isfinite(arguments[argument]).all()):
            name = public or argument
            raise UnsafeValuesError(
                name, f"It is not defined where `{name}` is NaN or infinite (PyTorch crashes there).", "finite numbers"
            )

    return check


def within(values: Tensor, low: int, high: int, argument: str, words: str) -> None:
    """Refuse `values` that are not from `low` to `high`; `words` go on with the range that was given."""
    if values.numel() == 0:
        return
    least, most = torch.stack(values.aminmax()).tolist()  # asked once: on a GPU each number that is asked for takes a wait
    if least < low or most > high:
        run = f"from {least} to {most}"
        expected = f"integers from {low} to {high}" if high >= low else "no values at all"
        raise UnsafeValuesError(argument, f"{words} {run}.", expected, run)


def _lengths(lengths: Any) -> Tensor:
    return lengths.to(torch.int64) if isinstance(lengths, Tensor) else torch.tensor(list(lengths), dtype=torch.int64)


def ctc_loss(arguments: Arguments) -> None:
    """The labels in use are classes. Labels behind a target's length are padding, and may be anything."""
    scores, targets = arguments["log_probs"], arguments["targets"]
    lengths = _lengths(arguments["target_lengths"]).to(targets.device)
    steps, classes = scores.shape[0], scores.shape[-1]
    samples = scores.shape[1] if scores.dim() > 2 else 1
    inputs = _lengths(arguments["input_lengths"])
    for name, lengths_of in (("input_lengths", inputs), ("target_lengths", lengths)):
        if lengths_of.numel() != samples:
            expected = f"{samples} lengths"
            raise UnsafeValuesError(
                name,
                f"There is one length for each of {samples} samples, and {lengths_of.numel()} came.",
                expected,
                f"{lengths_of.numel()}",
            )
    within(inputs, 0, steps, "input_lengths", f"`log_probs` has {steps} steps, and the input lengths run")
    room = targets.shape[1] if targets.dim() > 1 else targets.shape[0]
    within(lengths, 0, room, "target_lengths", f"`targets` has room for {room} labels, and the target lengths run")
    if targets.dim() > 1:
        used = targets[torch.arange(room, device=targets.device) < lengths.unsqueeze(1)]
    else:
        total = int(lengths.sum())
        if total > room:
            raise UnsafeValuesError(
                "target_lengths",
                f"They sum to {total}, and `targets` has {room} labels.",
                f"a sum of at most {room}",
                f"{total}",
            )
        used = targets[:total]
    within(used, 0, classes - 1, "targets", f"Every target must be a class below {classes}; the targets run")


def segment_reduce(arguments: Arguments) -> None:
    """The segments cover the data from its start, in order, and no more of it."""
    data, axis = arguments["data"], arguments["axis"]
    axis = axis + data.dim() if axis < 0 else axis
    if not 0 <= axis < max(data.dim(), 1):
        return  # PyTorch's own refusal
    size = data.shape[axis] if data.dim() else 0
    lengths, offsets = arguments["lengths"], arguments["offsets"]
    for name, segments in (("lengths", lengths), ("offsets", offsets)):
        if segments is not None and tuple(segments.shape[:-1]) != tuple(data.shape[:axis]):
            raise UnsafeValuesError(
                name,
                f"`{name}` needs the leading axes of `data`, {list(data.shape[:axis])}, and one more.",
                f"shape {[*data.shape[:axis], '*']}",
                f"shape {list(segments.shape)}",
            )
    if lengths is not None:
        within(lengths, 0, size, "lengths", f"`data` has {size} rows, and the lengths run")
        sums = lengths.to(torch.int64).sum(-1)
        if bool((sums != size).any()):
            span = f"sums from {int(sums.min())} to {int(sums.max())}"
            raise UnsafeValuesError(
                "lengths", f"The lengths must sum to the {size} rows of `data`; there are {span}.", f"a sum of {size}", span
            )
    if offsets is not None:
        _offsets(offsets, size, "data")


def _offsets(offsets: Tensor, size: int, of: str, *, whole: bool = False) -> None:
    """Offsets begin at 0, never decrease, and end at `size` at most; exactly there where `whole`."""
    if offsets.shape[-1] == 0:
        raise UnsafeValuesError("offsets", "There must be at least one offset, 0.", "offsets that begin with 0", "none")
    if offsets.numel() == 0:
        return
    within(offsets, 0, size, "offsets", f"`{of}` has {size} rows, and the offsets run")
    if bool((offsets[..., 0] != 0).any()):
        offending = f"{int(offsets[..., 0].max())}"
        raise UnsafeValuesError(
            "offsets", f"The first offset must be 0, not {offending}.", "offsets that begin with 0", offending
        )
    if bool((offsets[..., 1:] < offsets[..., :-1]).any()):
        raise UnsafeValuesError("offsets", "The offsets must not decrease.", "offsets in rising order", "some that decrease")
    if whole and bool((offsets[..., -1] != size).any()):
        offending = f"{int(offsets[..., -1].min())}"
        raise UnsafeValuesError(
            "offsets", f"The last offset must be {size}, the size of `{of}`.", f"{size} as the last", offending
        )


def embedding(arguments: Arguments) -> None:
    """Not a crash, but PyTorch's words ("index out of range in self") help nobody."""
    table = arguments["weight"]
    rows = table.shape[0] if table.dim() else 0
    within(arguments["indices"], 0, rows - 1, "input", f"`weight` has {rows} rows, and the indices run")


def embedding_bag(arguments: Arguments) -> None:
    """Every index is in a bag."""
    embedding(arguments)
    indices, offsets = arguments["indices"], arguments["offsets"]
    if indices.numel() == 0 and offsets.numel() == 0 and not arguments["include_last_offset"]:
        return
    _offsets(offsets, indices.numel(), "input", whole=arguments["include_last_offset"])


def _pivots_fit(factors_name: str, factors: Tensor, pivots_name: str, pivots: Tensor, expected: list[int]) -> None:
    if list(pivots.shape) != expected:
        raise UnsafeValuesError(
            pivots_name,
            f"`{factors_name}` of shape {list(factors.shape)} needs pivots of shape {expected}.",
            f"shape {expected}",
            f"shape {list(pivots.shape)}",
        )


def lu_unpack(arguments: Arguments) -> None:
    """There is one pivot for each of the leading min(m, n) rows."""
    factors, pivots = arguments["LU_data"], arguments["LU_pivots"]
    if factors.dim() < 2 or not arguments["unpack_pivots"]:
        return
    _pivots_fit("LU_data", factors, "LU_pivots", pivots, [*factors.shape[:-2], min(factors.shape[-2:])])
    within(pivots, 1, factors.shape[-2], "LU_pivots", f"Pivots are row numbers from 1 to {factors.shape[-2]}; they run")


def ldl_solve(arguments: Arguments) -> None:
    """Pivots are as LAPACK's sytrf writes them: rows from 1, a 2 by 2 block as a pair of equal negative ones."""
    factors, pivots = arguments["LD"], arguments["pivots"]
    if factors.dim() < 2:
        return
    _pivots_fit("LD", factors, "pivots", pivots, list(factors.shape[:-1]))
    size = factors.shape[-1]
    within(
        pivots.abs(), 1, size, "pivots", f"Pivots are row numbers from 1 to {size}, or their negatives; their magnitudes run"
    )
    halves = torch.zeros(pivots.shape[:-1], dtype=torch.bool, device=pivots.device)
    broken = halves
    for row in range(size):  # a block's second half must follow its first
        pivot = pivots[..., row]
        broken = broken | (halves & (pivot != pivots[..., row - 1]))
        halves = (pivot < 0) & ~halves
    if bool((broken | halves).any()):
        expected = "negative pivots in equal pairs, as ldl_factor gives them"
        raise UnsafeValuesError("pivots", "A negative pivot stands for a 2 by 2 block, so they come in equal pairs.", expected)


def lstsq(arguments: Arguments) -> None:
    """LAPACK's gelss dies on a right side without columns, and gelsd refuses it."""
    matrix, right = arguments["self"], arguments["b"]
    vector = right.dim() == 1 or (right.dim() == matrix.dim() - 1 and right.shape == matrix.shape[:-1])
    if arguments["driver"] in ("gelss", "gelsd") and not vector and right.shape[-1] == 0 and matrix.numel():
        raise UnsafeValuesError(
            "b", "The right side has no columns, and this driver needs one.", "at least 1 column", f"shape {list(right.shape)}"
        )


def pdist(arguments: Arguments) -> None:
    points = arguments["self"]
    if points.dim() == 2 and points.shape[0] == 0 and points.shape[1]:
        raise UnsafeValuesError(
            "input",
            "It needs at least one point; PyTorch crashes on none.",
            "shape [n, m] with n ≥ 1",
            f"shape {list(points.shape)}",
        )


def _least(one: Any, other: Any) -> tuple[int, Tensor, Tensor] | None:
    """The least integer of the dtype that the two are computed in, and both in that dtype; None where it is not integral."""
    dtype = torch.result_type(one, other)
    if dtype.is_floating_point or dtype.is_complex or dtype == torch.bool or not dtype.is_signed:
        return None
    return torch.iinfo(dtype).min, torch.as_tensor(one, dtype=dtype), torch.as_tensor(other, dtype=dtype)


def truncated_division(arguments: Arguments) -> None:
    """The least integer by -1 does not fit its dtype; the processor stops the program there."""
    if arguments["rounding_mode"] != "trunc":
        return
    smallest = _least(arguments["self"], arguments["other"])
    if smallest is not None and bool(((smallest[1] == smallest[0]) & (smallest[2] == -1)).any()):
        raise UnsafeValuesError(
            "other",
            f"{smallest[0]} divided by -1 does not fit its dtype, {_name(smallest[1])}.",
            "a quotient that fits the dtype",
        )


def least_common_multiple(arguments: Arguments) -> None:
    """No multiple of the least integer fits its dtype, and PyTorch's way to it may divide the least integer by -1."""
    smallest = _least(arguments["self"], arguments["other"])
    if smallest is None:
        return
    least, one, other = smallest
    if bool(((one == least) & (other != 0)).any() | ((other == least) & (one != 0)).any()):
        raise UnsafeValuesError(
            "input", f"No common multiple of {least} fits its dtype, {_name(one)}.", f"integers above {least}", f"{least}"
        )


def binomial(arguments: Arguments) -> None:
    """PyTorch's sampler looks for ever for a draw of NaN trials."""
    if bool(torch.isnan(arguments["count"]).any()):
        raise UnsafeValuesError("count", "There is no draw from NaN trials.", "numbers", "NaN")


def poisson(arguments: Arguments) -> None:
    """PyTorch counts the events in int64: beyond, a draw is negative."""
    rates = arguments["self"]
    if rates.numel() and float(rates.max()) > RATE_LIMIT:
        raise UnsafeValuesError(
            "input",
            f"PyTorch counts events in 64 bits, so rates go up to {RATE_LIMIT:.0e}; one is {float(rates.max()):.3g}.",
            f"rates up to {RATE_LIMIT:.0e}",
            f"{float(rates.max()):.3g}",
        )


def fractional_pool(arguments: Arguments) -> None:
    """Windows of at least one element, that begin within the input."""
    sizes = list(arguments["kernel_size"])
    if min(sizes) < 1:
        raise UnsafeValuesError(
            "kernel_size", f"A window has at least one element, and {sizes} came.", "sizes from 1", f"{sizes}"
        )
    samples = arguments["random_samples"]
    if not bool(((samples >= 0) & (samples < 1)).all()):
        raise UnsafeValuesError("_random_samples", "The samples must lie in [0, 1).", "numbers from 0 to below 1")


def polynomial(arguments: Arguments) -> None:
    """PyTorch follows a recurrence of as many steps as the degree, for each element."""
    x, degree = torch.as_tensor(arguments["x"]), torch.as_tensor(arguments["n"])
    if degree.numel() == 0 or x.numel() == 0:
        return
    highest = float(degree.max())
    if highest * max(x.numel(), degree.numel()) > RECURRENCE_LIMIT:
        raise UnsafeValuesError(
            "n",
            f"A degree of {highest:,.0f} for so many elements is more than {RECURRENCE_LIMIT:,} steps of the recurrence.",
            f"degrees, times elements, up to {RECURRENCE_LIMIT:,}",
            f"{highest:,.0f}",
            code="too_costly",
        )


def zeta(arguments: Arguments) -> None:
    """PyTorch adds up the terms below zero one by one, as many as `other` is negative; poles and what is not defined end at once."""
    exponent, start = torch.as_tensor(arguments["self"]), torch.as_tensor(arguments["other"])
    _terms_below_zero("other", torch.where((exponent > 1) & (exponent == exponent.double().floor()), start, 0.0))


def polygamma(arguments: Arguments) -> None:
    """From the second derivative of digamma on it is a zeta function; digamma and trigamma are reflected at zero."""
    if arguments["n"] > 1:
        _terms_below_zero("input", arguments["self"])


def _terms_below_zero(argument: str, start: Tensor) -> None:
    if not start.is_floating_point() or not start.numel():
        return
    summed = torch.where((start < 0) & (start != start.floor()), -start.double(), 0.0)
    if float(summed.sum()) > ZETA_LIMIT:
        lowest = f"{-float(summed.max()):.6g}"
        raise UnsafeValuesError(
            argument,
            f"At {lowest} PyTorch adds up one term for each whole number from there to zero, here more than {ZETA_LIMIT:,} in all.",
            f"magnitudes of negative elements that sum to at most {ZETA_LIMIT:,}",
            f"elements down to {lowest}",
            code="too_costly",
        )


def recurrent(arguments: Arguments) -> None:
    """There is one initial state for each layer and direction; PyTorch looks for those that are missing behind the others."""
    layers = arguments["num_layers"] * (2 if arguments["bidirectional"] else 1)
    states = arguments["hx"] if isinstance(arguments["hx"], list | tuple) else [arguments["hx"]]
    for state in states:
        if state.dim() > 1 and state.shape[0] != layers:
            raise UnsafeValuesError(
                "hx",
                f"There is one initial state for each layer and direction, {layers} here; a state of shape {list(state.shape)} came.",
                f"states of shape [{layers}, batch, hidden]",
                f"shape {list(state.shape)}",
            )


def _name(tensor: Tensor) -> str:
    return dtype_name(tensor.dtype)
