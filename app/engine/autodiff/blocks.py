"""One derivative matrix after the other: its layout, kept where it may be used again, and its values from the passes of that layout."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from app.engine.autodiff.evaluation import Evaluation
from app.engine.autodiff.freivalds import UncertifiedError, certify, weights
from app.engine.autodiff.layout_cache import LayoutCache
from app.engine.autodiff.passes import Pair, Passes, at_once, entries, full, full_diagonal, held_bytes
from app.engine.autodiff.tripwire import agrees
from app.engine.errors import Attempt
from app.engine.planning.plan import Plan, check_passes, check_result_size
from app.engine.sparsity.compression import ClashError
from app.engine.sparsity.dependence import Dependence
from app.engine.sparsity.followed_outputs import OutputPatterns
from app.engine.sparsity.layout import Layout, Matrix, choose, indices_of_full
from app.engine.sparsity.pattern import Pattern, PatternSpace
from app.engine.sparsity.storage import Values
from app.engine.tensors import SparseTensor
from app.errors import PullbackError
from app.limits import Limits

_LOG = logging.getLogger("pullback.sparsity")
# A tensor in the form of its layout: `diagonal` has the input's shape, `block` `[n, output[1:]…, input[1:]…]`, `dense` `[output…,
# input…]`; where the function is not holomorphic the pair of them, by `z` and `conj_z`.
Single = Tensor | SparseTensor
Result = Single | dict[str, Single]


@dataclass
class Report:
    """What is said of the layouts: path of a result → its form, the passes that it took, its layout, and (output, input).

    Attributes:
        bytes: of the results of one sample; entries: of their patterns; held: of all patterns at once, while the steps were followed.
        together: passes that ran together.
    """

    forms: dict[str, str] = field(default_factory=dict)
    passes: dict[str, int] = field(default_factory=dict)
    layouts: dict[str, Layout] = field(default_factory=dict)
    shapes: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    bytes: int = 0
    entries: int = 0
    held: int = 0
    together: int = 1

    def indices(self, path: str) -> Tensor:
        """`[rank, entries]` of a sparse result."""
        output, leaf = self.shapes[path]
        known = self.layouts[path].indices
        return indices_of_full(tuple(output.shape), tuple(leaf.shape)) if known is None else known


@dataclass(frozen=True)
class Request:
    """What both kinds of matrices are asked with.

    Attributes:
        samples: of a batched query, else 1.
        wanted: the query's `format`; `fixed`: path → form that was chosen for another sample of the same query.
        patterns: of the outputs, where they are known already.
    """

    wanted: str
    fixed: Mapping[str, str]
    plan: Plan
    limits: Limits
    cache: LayoutCache
    report: Report
    samples: int = 1
    patterns: OutputPatterns | None = None


@dataclass(frozen=True)
class Block:
    """The derivative of `output`, called `row`, with respect to `leaf`, called `column`.

    Attributes:
        forward: columns can be differentiated too, as far as is known beforehand.
        passes: makes its passes, with forward mode or without; None where the derivative is zero.
        symmetric: the matrix is symmetric.
    """

    row: str
    column: str
    output: Tensor
    leaf: Tensor
    forward: bool
    passes: Callable[[bool], Passes] | None
    symmetric: bool = False

    @property
    def dtype(self) -> torch.dtype:
        return torch.promote_types(self.output.dtype, self.leaf.dtype)


class Matrices:
    """The blocks of one Jacobian or Hessian.

    Arguments:
        of: the output that a Hessian is of, which the paths of its blocks do not name; None of a Jacobian.
        patterns: run when a layout is not known yet, once.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        request: Request,
        kind: str,
        of: str | None,
        patterns: Callable[[], dict[tuple[str, str], Dependence]],
    ) -> None:
        self._evaluation = evaluation
        self._request = request
        self._kind = kind
        self._of = of
        self._make_patterns = patterns
        self._patterns: dict[tuple[str, str], Dependence] | None = None

    def result(self, block: Block) -> Result:
        """The block in its layout, which is written to the report under `KIND.ROW.COLUMN`.

        Raises:
            PullbackError: `shape_mismatch` where a diagonal is wanted and there is none; `result_too_large`, `too_costly`.
        """
        path = f"{self._kind}.{block.row}.{block.column}"
        wanted = self._request.fixed.get(path, self._request.wanted)
        if wanted == "diagonal" and block.output.shape != block.leaf.shape:
            raise _not_square(path, block)
        layout = self._layout(block, path, wanted)
        if self._uses_forward_mode(block, layout):
            with Attempt() as attempt:
                return self._computed(block, path, wanted, layout, block.forward)
            _LOG.info("no forward mode: %s", attempt.error)
            layout = self._layout(replace(block, forward=False), path, wanted, again=True)
            return self._computed(block, path, wanted, layout, forward=False)
        return self._computed(block, path, wanted, layout, block.forward)

    @staticmethod
    def _uses_forward_mode(block: Block, layout: Layout) -> bool:
        if layout.compression is None:
            return block.forward and layout.form != "diagonal" and block.leaf.numel() < block.output.numel()
        return layout.compression.column_passes > 0

    # --- layouts -----------------------------------------------------------------------------------------------------

    def _layout(self, block: Block, path: str, wanted: str, again: bool = False) -> Layout:
        function, cache = self._evaluation.function, self._request.cache
        key = self._key(path, wanted)
        layout = None if again else cache.find(function, key)
        if layout is None:
            try:
                layout = self._chosen(block, wanted, self._dependence(block, wanted))
            except ClashError:
                _LOG.exception("%s of %s is computed densely", path, function.title)
                layout = self._chosen(block, wanted, _nothing_left_out(block))
            cache.add(function, key, layout)
        return layout

    def _key(self, path: str, wanted: str) -> Hashable:
        """What a layout of one Function hangs on: it serves inputs of all extents that its text holds for, and each of its outputs."""
        shapes = tuple([leaf.shape for leaf in self._evaluation.leaves.values()])
        return path, self._of, wanted, self._evaluation.wrt, self._evaluation.seed, shapes

    def _dependence(self, block: Block, wanted: str) -> Dependence:
        if wanted == "dense":
            return _nothing_left_out(block)
        if block.passes is None:  # along the branches that were followed there is no derivative; along others there may be
            values = Values(chosen=not self._evaluation.function.static)
            return Dependence(PatternSpace(block.leaf.numel(), 0).none(block.output.numel()), values)
        if self._patterns is None:
            self._patterns = self._make_patterns()
        return self._patterns[block.row, block.column]

    def _chosen(self, block: Block, wanted: str, known: Dependence) -> Layout:
        leaf = block.leaf
        matrix = Matrix(
            tuple(block.output.shape), tuple(leaf.shape), known.pattern, known.values, block.dtype.itemsize, block.symmetric
        )
        layout = choose(matrix, wanted, lambda size: self._check_size(block, size), forward=block.forward)
        return replace(layout, held=known.held) if known.held else layout

    def _check_size(self, block: Block, size: int) -> None:
        """Refuses a result that is too large with those before it, of all samples."""
        copies = 2 if block.leaf.dtype.is_complex else 1  # a pair, where it is not holomorphic
        total = self._request.samples * (self._request.report.bytes + copies * size)
        check_result_size(self._kind, total, self._request.limits)

    # --- values ------------------------------------------------------------------------------------------------------

    def _computed(self, block: Block, path: str, wanted: str, layout: Layout, forward: bool) -> Result:
        self._check_size(block, layout.bytes)
        if block.passes is None:
            return self._sent(block, path, layout, _zeros(block, layout), 0)
        passes = block.passes(forward)
        times = 2 if passes.paired and passes.output.dtype.is_complex else 1
        m, n = block.output.numel(), block.leaf.numel()
        compression, chunk, report = layout.compression, self._request.plan.rows, self._request.report
        report.together = max(report.together, at_once(compression, m, n, chunk))
        if compression is None:
            by_columns = passes.column is not None and layout.form != "diagonal" and n < m
            count = n if by_columns else m
            check_passes(self._request.plan, times * count, layout.bytes, self._request.limits)
            pair = full_diagonal(passes, chunk) if layout.form == "diagonal" else full(passes, chunk)
            if by_columns:
                _confirm(passes, pair[0])
            return self._sent(block, path, layout, pair, times * count)
        size = held_bytes(compression, m, n, block.dtype.itemsize) + layout.bytes
        check_passes(self._request.plan, times * compression.passes, times * size, self._request.limits)
        pair = entries(passes, compression, chunk)
        is_forward = self._of is None and compression.column_passes > 0
        if not agrees(layout, passes, pair, forward=is_forward):
            if is_forward:
                raise UncertifiedError
            _LOG.error(
                "%s of %s: a product with the whole disagrees, so it is computed densely", path, self._evaluation.function.title
            )
            # A form that was asked for stays; one that the pattern chose falls with it.
            dense = self._chosen(block, "dense" if wanted == "block" else wanted, _nothing_left_out(block))
            self._request.cache.drop(self._evaluation.function, self._key(path, wanted))
            return self._computed(block, path, wanted, dense, forward)
        return self._sent(block, path, layout, pair, times * compression.passes)

    def _sent(self, block: Block, path: str, layout: Layout, pair: Pair, passes: int) -> Result:
        report = self._request.report
        if self._request.wanted != "dense":
            report.forms[path], report.passes[path] = layout.form, passes
            report.layouts[path], report.shapes[path] = layout, (block.output, block.leaf)
            report.entries += 0 if layout.rows is None else len(layout.rows)
            report.held = max(report.held, layout.held)
        report.bytes += layout.bytes * (1 if pair[1] is None else 2)
        if layout.partial:
            self._evaluation.notes.say(
                "not_diagonal",
                "This is the true diagonal; the entries beside it are left out, for they are not proved to be zero.",
                path,
            )
        elif layout.form == "diagonal" and not layout.reusable:
            self._evaluation.notes.say(
                "here",
                "Nothing is beside this diagonal at this point; values decide where entries are, so at others there may be.",
                path,
            )
        first, second = pair
        if second is None:
            return _shaped(block, layout, first)
        return {"z": _shaped(block, layout, first), "conj_z": _shaped(block, layout, second)}


def _confirm(passes: Passes, matrix: Tensor) -> None:
    """Raises UncertifiedError where a reverse pass gives other numbers than the columns; only real ones are compared."""
    output, leaf = passes.output, passes.leaf
    if not (output.dtype.is_complex or leaf.dtype.is_complex):
        cotangent = weights(output.numel(), output.dtype, str(output.device)).reshape(output.shape)
        certify((matrix.to(leaf.dtype),), (passes.row(cotangent).reshape(-1),))


def _zeros(block: Block, layout: Layout) -> Pair:
    count = block.output.numel() * block.leaf.numel() if layout.rows is None else len(layout.rows)
    zeros = torch.zeros(count, dtype=block.dtype, device=block.leaf.device)
    return zeros, zeros if block.leaf.dtype.is_complex else None


def _nothing_left_out(block: Block) -> Dependence:
    return Dependence(Pattern(block.output.numel()), Values())


def _shaped(block: Block, layout: Layout, values: Tensor) -> Single:
    output, leaf = tuple(block.output.shape), tuple(block.leaf.shape)
    if layout.form == "dense":
        return values.reshape((*output, *leaf))
    if layout.form == "block":
        return values.reshape((*output, *leaf[1:]))
    if layout.form == "sparse":
        indices = indices_of_full(output, leaf) if layout.indices is None else layout.indices
        return SparseTensor((*output, *leaf), indices, values.reshape(-1), "everywhere" if layout.everywhere else "here")
    if layout.picked is None or layout.rows is None:
        return values.reshape(leaf)
    diagonal = values.new_zeros(block.leaf.numel())
    picked = layout.picked.to(values.device)
    diagonal[layout.rows.to(values.device)[picked].long()] = values[picked]
    return diagonal.reshape(leaf)


def _not_square(path: str, block: Block) -> PullbackError:
    output, leaf = list(block.output.shape), list(block.leaf.shape)
    return PullbackError(
        "shape_mismatch",
        f"Only a square Jacobian has a diagonal: here the output is {output} and the input {leaf}.",
        at=path,
        expected="output and input of one shape",
        given=f"{output} and {leaf}",
        fix='Ask for "format": "auto", "sparse" or "dense", or name in "wrt" only inputs of the output\'s shape.',
    )
