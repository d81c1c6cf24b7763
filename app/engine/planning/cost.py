"""What one forward costs: floating-point operations and bytes, counted while it runs on fakes."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple, Protocol

import torch
from torch import Tensor, fx
from torch.utils.flop_counter import flop_registry

from app.catalogue.kernels.guard import size_check
from app.catalogue.operator_mode import OperatorMode
from app.program.function import Function
from app.program.lifetimes import Lifetimes
from app.program.semantics.aside import is_aside

# Factorisations cost about this many times n·m·min(n, m) (Golub & Van Loan, Matrix Computations, 4th ed., sections 3 to 8).
# Whole words of the operator's name: `sqrt` and `erfinv` are none of them.
_CUBIC: Final = re.compile(
    r"(?:^|_)(?:svd|eig|eigh|eigvals|eigvalsh|qr|geqrf|ormqr|cholesky|inv|inverse|lu|det|slogdet|solve|lstsq|pinv|matrix_exp|householder|ldl"
    r"|triangular)(?:_|$)"
)
_CUBIC_FACTOR: Final = 4.0  # of them the middle: a QR takes some 2, an SVD with its vectors some 10
# Tensors as large as the largest that a step made of several operators holds at a time (attention: scores, and their softmax).
_WITHIN: Final = 2

# Bytes: while a step runs, in reverse mode, in forward mode, and in reverse mode of the same step in float64.
Scratch = tuple[int, int, int, int]
# By which the elements of a dtype are narrower than those of float64 and complex128.
WIDENING: Final = {torch.float16: 4, torch.bfloat16: 4, torch.float32: 2, torch.complex64: 2}


class StepCounts(Protocol):
    """What was counted of a step, as a Counter has it."""

    @property
    def flops(self) -> float: ...
    @property
    def bytes(self) -> int: ...
    @property
    def largest(self) -> int: ...
    @property
    def scratch(self) -> Scratch: ...


class Outline:
    """Shape and dtype of a tensor: all that is asked of it where the numbers in it have no say."""

    __slots__ = ("bytes", "dtype", "elements", "shape")
    is_cuda = False

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.shape, self.dtype = shape, dtype
        self.elements = math.prod(shape)
        self.bytes = self.elements * dtype.itemsize

    def numel(self) -> int:
        return self.elements

    def element_size(self) -> int:
        return self.dtype.itemsize


_SIZED: Final = (Tensor, Outline)


class Cost(NamedTuple):
    """Of one forward.

    Attributes:
        flops: floating-point operations.
        bytes: of every intermediate together: what autograd may keep.
        live_bytes: what is held at most at a time where nothing is kept for a backward.
        largest_bytes: of the largest tensor that is made, be it within a step; largest_value_bytes: of the values of the largest step.
        scratch_bytes: the most that one step takes for itself while it runs; backward_scratch_bytes: while it is differentiated in reverse
            mode; forward_mode_scratch_bytes: in forward mode, or a second time; wide_scratch_bytes: in reverse mode, in float64.
    """

    flops: float
    bytes: int
    live_bytes: int
    largest_bytes: int = 0
    scratch_bytes: int = 0
    backward_scratch_bytes: int = 0
    forward_mode_scratch_bytes: int = 0
    wide_scratch_bytes: int = 0
    largest_value_bytes: int = 0


# Scratch memory of kernels, in multiples of the largest tensor that they read or make, forward and backward: measured as the growth of a
# fresh process on the CPU, PyTorch 2.13.0, at 2 to 16 MB (`python -m tests.oracle.plan_sweep`; `matrix_exp` is differentiated by that of a
# matrix twice as large, and our own derivatives of `erfcx`, `log_ndtr`, `sinc`, `i1` and `i1e` hold a series of terms).
# A third number is that of forward mode, or of a second time.
_SCRATCH: Final[dict[str, tuple[float, ...]]] = {
    "linalg_matrix_exp": (24, 130), "matrix_exp": (24, 130), "_fft_r2c": (2, 4), "_fft_c2c": (2, 4), "_fft_c2r": (4, 4), "_logcumsumexp": (2, 32),
    "logcumsumexp": (2, 32), "cumprod": (2, 16),
    "topk": (2, 3), "mode": (2, 3), "multinomial": (2, 2), "kthvalue": (1, 3), "logsumexp": (1, 3), "nanmedian": (3, 4), "renorm": (3, 24),
    "sort": (2, 3), "median": (3, 4), "nonzero": (3, 3), "masked_select": (6, 6), "_unique2": (8, 8),
    "unique_dim": (8, 8), "unique_consecutive": (6, 6), "_cdist_forward": (2, 7), "im2col": (1, 2), "special_erfcx": (70, 76),
    "special_log_ndtr": (70, 86), "binary_cross_entropy_with_logits": (4, 16), "prod": (1, 9), "grid_sampler_2d": (2, 10, 24),
    "grid_sampler_3d": (2, 10), "mvlgamma": (2, 3), "native_batch_norm": (0, 2, 13),
    "mkldnn_rnn_layer": (3, 20, 60),  # all gates of all steps of an LSTM; differentiated again it is taken apart, step by step
    # Factorisations and solutions of square matrices of 4 MB and tall ones of 8 MB.
    "linalg_eig": (3, 14), "_linalg_svd": (4, 7), "linalg_svd": (4, 7), "_linalg_eigh": (4, 10, 20), "linalg_cholesky_ex": (3, 14),
    "cholesky_inverse": (3, 17), "cholesky_solve": (3, 9), "_linalg_det": (3, 29), "_linalg_slogdet": (3, 5), "_linalg_solve_ex": (3, 5),
    "linalg_inv_ex": (3, 5), "linalg_lu": (3, 10), "linalg_lu_factor_ex": (3, 8), "linalg_lu_solve": (3, 9), "lu_solve": (3, 9), "linalg_qr": (3, 5),
    "linalg_pinv": (4, 8), "linalg_lstsq": (4, 10), "linalg_solve_triangular": (2, 5), "triangular_solve": (3, 5), "linalg_ldl_factor_ex": (3, 5),
    "linalg_householder_product": (5, 80),
    "linalg_ldl_solve": (3, 5),
    # Long formulas of pointwise functions.
    "asin": (0, 5), "erfinv": (0, 4), "igamma": (0, 5), "igammac": (0, 5), "sinc": (0, 48),
    "special_i1": (0, 48), "special_i1e": (0, 52), "angle": (0, 4), "index_fill": (0, 4),
}  # fmt: skip
# Kernels whose scratch are indices, or pairs of a value and one: their factors are of elements of 8 bytes, however narrow these are.
_OF_INDICES: Final = frozenset(
    {"sort", "topk", "mode", "multinomial", "_unique2", "unique_dim", "unique_consecutive", "nonzero"}
)
_INDEX_BYTES: Final = 8  # int64
_OF_SINGLES: Final = frozenset({"linalg_matrix_exp", "matrix_exp"})
_SINGLE_BYTES: Final = 4  # float32, in which these compute half precision too
# Kernels whose scratch has an axis of as many as an argument says: its place, the factors being of the tensor with that axis.
_AXES_OF: Final = {"mvlgamma": 1}
# Of any other factorisation (21 of 700 x 700 matrices in float64, results included: 2 to 5 forward, 7 to 23 backward).
_FACTORISATION: Final = (5.0, 24.0)
# What the formula of a derivative makes on its way, of any other step: in reverse mode `atan2`, `sinh`, `expm1` take 2, and more what has
# a row above; in forward mode, where PyTorch takes many formulas apart, `cdist`, `mish`, `logaddexp` and their like take 3 to 6.
_FORMULA: Final = (0.0, 2.0)
_FORMULA_IN_FORWARD_MODE: Final = 6.0
# Of what adds, picks or copies: its derivative spreads or gathers, in place of a formula (the sweep: at most one tensor more).
_SPREADING: Final = (0.0, 1.0)
_SPREADS: Final = frozenset({
    "sum", "mean", "nansum", "max", "min", "amax", "amin", "mode", "topk", "gather", "index_select", "take", "index", "cat",
    "stack", "clone", "_to_copy", "add", "sub", "dot", "vdot", "mv", "bmm", "trace", "nll_loss_forward", "scatter_add",
    "adaptive_max_pool2d", "adaptive_max_pool3d", "_adaptive_avg_pool2d", "avg_pool2d", "avg_pool3d", "embedding", "repeat",
    "max_pool2d_with_indices", "max_pool3d_with_indices", "fractional_max_pool2d", "fractional_max_pool3d",
})  # fmt: skip

_aten: Final = torch.ops.aten


def _flops_with_sum(product: Any) -> Callable[..., Any]:
    """PyTorch's rule for a product and what is added to it is that of the product: called as it stands, for its own takes 0.1 ms to unpack shapes."""
    rule = flop_registry[product].__wrapped__
    return lambda _, left, right, out_shape: rule(left, right)


_FLOPS_OF_SUMS: Final = {_aten.addmm: _flops_with_sum(_aten.mm), _aten.baddbmm: _flops_with_sum(_aten.bmm)}


class CallFacts(NamedTuple):
    """What the cost of an operator's calls is reckoned from: looked up once, for a plan of small tensors costs by the calls alone.

    Attributes:
        flops: PyTorch's rule, and the same of shapes where it is known.
        scratch: factors of the largest tensor (`scratch_factors`).
        lays_out: it is a convolution, which lays its tensors out anew.
        least_bytes: of an element of its scratch.
        axis_of: place of the argument that says how many tensors of its input's size its scratch is made of.
        check: of its arguments' sizes, before it runs.
    """

    is_view: bool
    flops: Callable[..., Any] | None
    flops_of_shapes: Callable[..., Any] | None
    is_cubic: bool
    scratch: tuple[float, float, float]
    lays_out: bool
    least_bytes: int
    axis_of: int | None
    check: Callable[[tuple[Any, ...], Mapping[str, Any]], None] | None


@cache
def call_facts(func: Any) -> CallFacts:
    """Of the operator `func`."""
    name = func.overloadpacket.__name__
    is_cubic = _CUBIC.search(name) is not None
    rule = flop_registry.get(func.overloadpacket)
    of_shapes = _FLOPS_OF_SUMS.get(func.overloadpacket, getattr(rule, "__wrapped__", None))
    return CallFacts(
        func.is_view,
        rule,
        of_shapes,
        is_cubic,
        scratch_factors(name),
        name == "convolution",
        _INDEX_BYTES if name in _OF_INDICES else _SINGLE_BYTES if name in _OF_SINGLES else 0,
        _AXES_OF.get(name),
        size_check(func),
    )


def scratch_factors(name: str) -> tuple[float, float, float]:
    """What a call of the operator `name` takes for itself, in multiples of the largest tensor that it reads or makes: while it runs, in
    reverse mode, in forward mode."""
    forward, backward, *again = _SCRATCH.get(name) or (
        _FACTORISATION if _CUBIC.search(name) else _SPREADING if name in _SPREADS else _FORMULA
    )
    return forward, backward, again[0] if again else backward if name in _SPREADS else max(backward, _FORMULA_IN_FORWARD_MODE)


# oneDNN lays the axis of channels out in blocks of so many, filled up with zeros: a lone channel takes 16 times its bytes, as measured on
# processors with AVX-512; those without have blocks of 8.
_CHANNELS: Final = 16


# Where runs follow each other, as those of `check`, malloc leaves freed windows behind that are smaller than what it gives back at once
# (app/pool/linux.py), as what is kept stands above them: measured, 4 to 13 times the windows of a `conv3d` that has 19 MB of them.
_LEFT_BEHIND: Final = 10
_FREED_AT_ONCE_BYTES: Final = 32 << 20


def _layout_bytes(args: Any, outputs: list[Tensor]) -> tuple[int, int, int]:
    """What a convolution lays out anew for its kernel: while it runs, for its derivatives, and for these in float64, again and again."""
    data, weight, transposed = args[0], args[1], args[6]
    if not outputs:
        return 0, 0, 0
    windows = _columns_bytes(data, weight, outputs[0], args[8], transposed=transposed)
    wide = windows * WIDENING.get(data.dtype, 1)
    wide += _LEFT_BEHIND * min(wide, _FREED_AT_ONCE_BYTES)
    columns = 0 if data.dtype == torch.float32 else windows
    if data.is_cuda or not _is_blocked(data.dtype):
        return columns, columns, wide
    read, blocks = _blocked_bytes(data), _blocked_bytes(outputs[0])
    if transposed:
        return max(columns, read + blocks), max(columns, read), wide
    # What has fewer channels than a block is read as it stands.
    return max(columns, blocks + (read if data.shape[1] >= _CHANNELS else 0)), max(columns, read + blocks), wide


def _columns_bytes(data: Tensor, weight: Tensor, output: Tensor, groups: int, *, transposed: bool) -> int:
    """The windows of a convolution, laid out as a matrix: what oneDNN does without."""
    positions = math.prod((data if transposed else output).shape[2:])
    channels = weight.shape[1] * (1 if transposed else groups)
    return int(data.shape[0] * channels * math.prod(weight.shape[2:]) * positions * data.element_size())


def _blocked_bytes(tensor: Tensor) -> int:
    channels = tensor.shape[1]
    return tensor.numel() // max(1, channels) * -(-channels // _CHANNELS) * _CHANNELS * tensor.element_size()


@cache
def _is_blocked(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes convolutions of `dtype` on this processor."""
    if dtype in (torch.bfloat16, torch.float16):
        asks = torch.ops.mkldnn
        return bool(asks._is_mkldnn_bf16_supported() if dtype == torch.bfloat16 else asks._is_mkldnn_fp16_supported())
    return dtype == torch.float32


class Counter(OperatorMode):
    """Counts what the steps make while they run.

    Attributes:
        flops, bytes: of all steps so far; largest: bytes of the largest tensor that they made.
        scratch: the most that one of them takes for itself (`scratch_bytes`).
        run: runs a call of an operator and returns its result, where somebody follows what the steps compute.
    """

    def __init__(self) -> None:
        super().__init__()
        self.only_counts = True
        self.run: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any] | None = None
        self.flops = 0.0
        self.bytes = 0
        self.largest = 0
        self.scratch: Scratch = (0, 0, 0, 0)

    def dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        facts = call_facts(func)
        if facts.check is not None:
            facts.check(args, kwargs)
        out = func(*args, **kwargs) if self.run is None else self.run(func, args, kwargs)
        if not facts.is_view and not is_aside():
            self._count(facts, args, kwargs, out)
        return out

    def count(self, facts: CallFacts, args: tuple[Any, ...], out: Any) -> None:
        """Counts a call of the operator of these facts, by outlines: `out` of one result, a tuple of several."""
        if facts.is_view:
            return
        if type(out) is tuple or facts.lays_out or facts.least_bytes or facts.axis_of is not None or self.times != 1:
            self._count(facts, args, {}, out)
            return
        most, largest = out.elements, out.bytes
        self.bytes += largest
        if largest > self.largest:
            self.largest = largest
        for value in args:
            if isinstance(value, Outline):
                if value.elements > most:
                    most = value.elements
                if value.bytes > largest:
                    largest = value.bytes
        is_plain = facts.flops is None and not facts.is_cubic
        self.flops += most if is_plain else _flops(facts, args, {}, out, float(most))
        first, reverse, forward = facts.scratch
        formula = int(reverse * largest)
        self._widen(int(first * largest), formula, int(forward * largest), formula * WIDENING.get(out.dtype, 1))

    def _count(self, facts: CallFacts, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        members = out if isinstance(out, tuple | list) else ()
        results: list[Any] = [out] if isinstance(out, _SIZED) else [t for t in members if isinstance(t, _SIZED)]
        if not results:  # it asks for a fake's device or the like
            return
        most, largest = 0, 0
        for tensor in results:
            elements = tensor.numel()
            size = elements * tensor.element_size()
            self.bytes += int(size * self.times)
            most = elements if elements > most else most
            largest = size if size > largest else largest
        self.largest = largest if largest > self.largest else self.largest
        for value in args:
            if isinstance(value, _SIZED):
                elements = value.numel()
                size = elements * value.element_size()
                most = elements if elements > most else most
                largest = size if size > largest else largest
        is_plain = facts.flops is None and not facts.is_cubic
        self.flops += self.times * (most if is_plain else _flops(facts, args, kwargs, out, float(most)))
        largest = max(largest, facts.least_bytes * most)
        if facts.axis_of is not None:
            largest *= max(int(args[facts.axis_of]), 1)
        running, deriving, wide = _layout_bytes(args, results) if facts.lays_out else (0, 0, 0)
        first, reverse, forward = facts.scratch
        formula = int(reverse * largest)
        wide += formula * WIDENING.get(results[0].dtype, 1)
        self._widen(running + int(first * largest), deriving + formula, deriving + int(forward * largest), wide)

    def add(self, steps: Sequence[StepCounts]) -> None:
        """Counts what another counter has counted of steps, in their order."""
        if not steps:
            return
        for step in steps:
            self.flops += step.flops
            self.bytes += step.bytes
            if step.largest > self.largest:
                self.largest = step.largest
        self._widen(*map(max, zip(*[step.scratch for step in steps], strict=True)))

    def _widen(self, first: int, reverse: int, forward: int, wide: int) -> None:
        """Scratch memory that one more step takes."""
        a, b, c, d = self.scratch
        if first > a or reverse > b or forward > c or wide > d:
            self.scratch = (
                first if first > a else a, reverse if reverse > b else b, forward if forward > c else c, wide if wide > d else d,
            )  # fmt: skip

    def cost(self, live: int, largest: int) -> Cost:
        """What the steps of a graph cost, which ran under this counter; `live` bytes of values are held at a time, `largest` of one step."""
        # As much again for what a step needs for itself, and what a step makes within that is none of the graph's (attention's scores).
        live = min(self.bytes, live + max(live, _WITHIN * self.largest))
        return Cost(self.flops, self.bytes, live, self.largest, *self.scratch, largest)


def _flops(facts: CallFacts, args: Any, kwargs: Any, out: Any, most: float) -> float:
    """`most`: elements of the largest tensor, where no rule tells."""
    if facts.flops is not None:
        try:
            are_known = isinstance(out, Outline) or all(isinstance(value, _SIZED) for value in (*args, out))
            if facts.flops_of_shapes is not None and not kwargs and are_known:
                shapes = [value.shape if isinstance(value, _SIZED) else value for value in args]
                return float(facts.flops_of_shapes(*shapes, out_shape=out.shape))
            return float(facts.flops(*args, **kwargs, out_val=out))
        except (TypeError, ValueError, AssertionError, IndexError):
            pass  # a rule that does not know this overload: fall to the sizes
    if facts.is_cubic:
        first = next((t for t in args if isinstance(t, Tensor) and t.dim() >= 2), None)
        if first is not None:
            rows, columns = int(first.shape[-2]), int(first.shape[-1])
            batch = math.prod(first.shape[:-2])
            return _CUBIC_FACTOR * batch * rows * columns * min(rows, columns)
    return most


def measured(build: Callable[[], Function], counter: Counter | None = None) -> tuple[Function, Cost]:
    """The Function that `build()` makes by running its steps, and what that cost; nothing is allocated where it runs on fakes."""
    with counter or Counter() as counter, torch.no_grad():
        function = build()
    steps = {node: value_bytes(node, node.meta["val"]) for node in function.graph.nodes if node.op == "call_function"}
    live = Lifetimes(function.graph, {node: node for node in steps}).live_bytes(steps)
    return function, counter.cost(live, max(steps.values(), default=0))


def value_bytes(node: fx.Node, value: Any) -> int:
    """Of the value of a step; what a member of another value shows is that one's."""
    if node.target is operator.getitem:
        return 0
    if isinstance(value, _SIZED):
        return value.numel() * value.element_size()
    members = value if isinstance(value, tuple | list) else (value,)
    return sum(member.numel() * member.element_size() for member in members if isinstance(member, _SIZED))
