"""Matrices at which a step of linear algebra has no derivative, though PyTorch gives finite numbers, all of them rounding."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.engine.stepwise.point import REFUSALS, Point, name_of, names_called
from app.engine.stepwise.read_triangles import as_read
from app.engine.tensors import is_differentiable
from app.program.function import Function

# How PyTorch names the matrix where arguments are written by name (torch.linalg: `A`; elsewhere `input`; a method's `self`).
_FIRST: Final = ("A", "input", "self")
# (the step's node, its matrix, its result, the calls that derivatives pass) → for each matrix whether it is one of those, or a number that
# says how near it is to one; no value is looked at, so that it holds under vmap.
MatrixTest = Callable[[fx.Node, Tensor, Any, Collection[fx.Node]], Tensor]


def degenerate_steps(
    function: Function,
    leaves: Mapping[str, Tensor],
    seed: int | None,
    batched: Collection[str] = (),
    wrt: Collection[str] | None = None,
    outputs: Collection[str] | None = None,
) -> list[fx.Node]:
    """The steps of a Function that stand at such a matrix; the arguments are those of `measured_steps`."""
    return [node for node, flag in measured_steps(TESTS, function, leaves, seed, batched, wrt, outputs) if flag]


def twice_degenerate_steps(function: Function, *there: Any) -> list[fx.Node]:
    """The steps whose second derivatives PyTorch makes by dividing by what is zero here, but for rounding; arguments as above."""
    return [node for node, flag in measured_steps(SECOND_TESTS, function, *there) if flag]


def first_argument(node: fx.Node) -> Any:
    """What PyTorch's signature names first, in whatever order the arguments are written: `solve(B=b, A=a)` is of `a`."""
    if node.args:
        return node.args[0]
    return next((node.kwargs[name] for name in _FIRST if name in node.kwargs), next(iter(node.kwargs.values()), None))


def measured_steps(
    tests: Mapping[str, MatrixTest],
    function: Function,
    leaves: Mapping[str, Tensor],
    seed: int | None,
    batched: Collection[str] = (),
    wrt: Collection[str] | None = None,
    outputs: Collection[str] | None = None,
    matrix_of: Callable[[fx.Node], Any] | None = None,
) -> list[tuple[fx.Node, float]]:
    """The steps that have a test, and the largest of what it gives for their matrices.

    Arguments:
        matrix_of: where a step's matrix comes from; `first_argument`, unless it is said otherwise.
        batched: leaves with a leading axis of samples; of a step the sample counts that gives the most.
        wrt, outputs: only steps that a derivative of these outputs by these leaves passes; None: of all of them.
    """
    nodes, passed = steps_with_test(tests, function, wrt, outputs)
    if not nodes:
        return []

    def measures(at: Mapping[str, Tensor]) -> list[Tensor]:
        point = Point(function, at, seed, wide=False)
        point.run({})
        results = point.results()
        return [_measure(tests[name_of(node)], node, (matrix_of or first_argument)(node), results, passed) for node in nodes]

    try:
        with torch.no_grad():
            dims = ({name: 0 if name in batched else None for name in leaves},)
            sizes = (
                measures(leaves) if not batched else torch.func.vmap(measures, in_dims=dims, randomness="same")(dict(leaves))
            )
            return [(node, float(size.max())) for node, size in zip(nodes, sizes, strict=True)]
    except REFUSALS:  # without a batching rule, or a factorisation that fails: then nothing is said
        return []


def steps_with_test(
    tests: Collection[str],
    function: Function,
    wrt: Collection[str] | None = None,
    outputs: Collection[str] | None = None,
    graph: fx.Graph | None = None,
) -> tuple[list[fx.Node], Collection[fx.Node]]:
    """The steps that call one of `tests`, and all that a derivative of these outputs by these leaves passes (None: of all of them).

    `graph`: of the same steps, where it is not the Function's own.
    """
    if names_called(function.pattern).isdisjoint(tests):
        return [], ()
    graph = graph or function.graph
    passed = _passed(graph, _chosen(function.leaves, wrt), _chosen(function.outputs, outputs))
    return [node for node in graph.nodes if node in passed and name_of(node) in tests], passed


def is_degenerate(node: fx.Node, matrix: Tensor, outputs: Sequence[Tensor]) -> bool:
    """Whether the step `node`, which made `outputs` of `matrix`, stands at such a matrix."""
    test = TESTS.get(name_of(node))
    if test is None or not matrix.numel() or not is_differentiable(matrix.dtype):
        return False
    passed = _passed(node.graph)
    with torch.no_grad():
        result = outputs if len(outputs) > 1 else outputs[0]
        return node in passed and bool(test(node, as_read(node, matrix), result, passed).any())


def _chosen(names: Sequence[str], some: Collection[str] | None) -> list[int] | None:
    return None if some is None else [position for position, name in enumerate(names) if name in some]


def _passed(graph: fx.Graph, leaves: Collection[int] | None = None, outputs: Collection[int] | None = None) -> set[fx.Node]:
    """The calls that a derivative of `outputs` by `leaves` passes (their places; None: all of them): what nobody reads is none of them."""
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    reached = {node for position, node in enumerate(placeholders) if leaves is None or position in leaves}
    calls = [node for node in graph.nodes if node.op == "call_function" and not _cuts(node)]
    for node in calls:
        if not reached.isdisjoint(node.all_input_nodes):
            reached.add(node)
    (ends,) = next(node for node in reversed(graph.nodes) if node.op == "output").args
    leading = {node for position, node in enumerate(ends) if outputs is None or position in outputs}
    for node in reversed(calls):
        if node in leading:
            leading.update(node.all_input_nodes)
    return {node for node in calls if node in reached and node in leading}


def _cuts(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return node.target is Tensor.detach or (isinstance(value, Tensor) and not is_differentiable(value.dtype))


def _measure(
    test: MatrixTest, node: fx.Node, source: Any, results: Mapping[fx.Node, Any], passed: Collection[fx.Node]
) -> Tensor:
    matrix = results[source] if isinstance(source, fx.Node) else source
    if not isinstance(matrix, Tensor) or not matrix.numel() or not is_differentiable(matrix.dtype):
        return torch.zeros((), dtype=torch.float64)
    return test(node, as_read(node, matrix), results[node], passed).to(torch.float64).amax()


def _is_less(smallest: Tensor, largest: Tensor, matrix: Tensor) -> Tensor:
    """Whether one number is nothing beside another by the rounding of a factorisation, max(m, n)·eps (as `linalg.matrix_rank` has it)."""
    return smallest <= max(matrix.shape[-2:]) * torch.finfo(matrix.dtype).eps * largest


def _has_dependent_columns(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    pivots = result[1].diagonal(dim1=-2, dim2=-1).abs()
    size = torch.linalg.vector_norm(
        result[1][..., : pivots.shape[-1]], dim=(-2, -1)
    )  # the largest pivot may be far less: [[0.1, 1], …]
    return _is_less(pivots.amin(-1), size, matrix)


def _has_zero_pivot(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    upper = result[2] if name_of(node) == "lu" and len(result) == 3 and is_differentiable(result[2].dtype) else result[0]
    return _has_dependent_columns(node, matrix, (None, upper), passed)


def _is_defective(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    """Whether the eigenvectors are dependent to half of the digits: rounding moves a double eigenvalue by so much."""
    vectors = torch.linalg.eig(matrix)[1] if isinstance(result, Tensor) else result[1]
    sizes = torch.linalg.svdvals(vectors)
    is_defective: Tensor = sizes[..., -1] <= matrix.shape[-1] * torch.finfo(matrix.dtype).eps ** 0.5 * sizes[..., 0]
    return is_defective


def _uses(node: fx.Node, passed: Collection[fx.Node], *members: int) -> bool:
    """Whether a derivative passes one of these members of the step's result."""
    return any(
        len(user.args) == 2 and user.args[0] is node and user.args[1] in members for user in node.users if user in passed
    )


def _repeats(numbers: Tensor, matrix: Tensor) -> Tensor:
    size = numbers.abs().amax(-1)
    if numbers.shape[-1] < 2:
        return torch.zeros_like(size, dtype=torch.bool)
    return _is_less(numbers.diff(dim=-1).abs().amin(-1), size, matrix)


def _has_repeated_eigenvalues(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    return _repeats(result[0], matrix) & _uses(node, passed, 1)


def _has_repeated_singular_values(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    """Or one that vanishes: its left and right vectors are then determined up to a sign each, where they are as many as they have numbers."""
    sizes, (rows, columns) = result[1], matrix.shape[-2:]
    left, right = (_uses(node, passed, member) for member in (0, 2))
    free = (left and right) or (left and rows > columns) or (right and columns > rows)
    return (_repeats(sizes, matrix) & (left or right)) | (_is_less(sizes[..., -1], sizes[..., 0], matrix) & free)


def _has_lower_rank_than_asked(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    return _is_less(result[1][..., -1], result[1][..., 0], matrix)


def _has_deficient_rank(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    sizes = torch.linalg.svdvals(matrix)
    return _is_less(sizes[..., -1], sizes[..., 0], matrix)


# Operation, without namespace → its test; what is said of it is the fact `degenerate` of the same row.
TESTS: Final[Mapping[str, MatrixTest]] = {
    "qr": _has_dependent_columns, "lu": _has_zero_pivot, "lu_factor": _has_zero_pivot, "lu_factor_ex": _has_zero_pivot,
    "eig": _is_defective, "eigvals": _is_defective, "eigh": _has_repeated_eigenvalues, "svd": _has_repeated_singular_values,
    "svd_lowrank": _has_lower_rank_than_asked, "pca_lowrank": _has_lower_rank_than_asked,
    "pinv": _has_deficient_rank, "lstsq": _has_deficient_rank, "cond": _has_deficient_rank,
}  # fmt: skip


def _repeats_of(member: int | None) -> MatrixTest:
    """Whether values of a Hermitian matrix, or singular ones, repeat; `member`: of the result, None: all of it."""
    return lambda node, matrix, result, passed: _repeats(result if member is None else result[member], matrix)


def _repeats_anywhere(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    """Whether eigenvalues, which have no order, repeat."""
    numbers = result if isinstance(result, Tensor) else result[0]
    gaps = (numbers[..., :, None] - numbers[..., None, :]).abs() + torch.diag_embed(torch.full_like(numbers.abs(), torch.inf))
    return _is_less(gaps.amin((-2, -1)), numbers.abs().amax(-1), matrix)


def _repeats_within_norm(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    if not _is_nuclear(node) or matrix.dim() != 2:
        return torch.zeros((), dtype=torch.bool)
    return _repeats(torch.linalg.svdvals(matrix), matrix)


def _is_nuclear(node: fx.Node) -> bool:
    """The nuclear norm is the sum of the singular values."""
    return "nuc" in (*node.args[1:2], node.kwargs.get("ord"), node.kwargs.get("p"))


# The same of second derivatives; what is said of it is the fact `degenerate_twice`.
SECOND_TESTS: Final[Mapping[str, MatrixTest]] = {
    "eigvalsh": _repeats_of(None), "eigh": _repeats_of(0), "svdvals": _repeats_of(None), "svd": _repeats_of(1),
    "eigvals": _repeats_anywhere, "eig": _repeats_anywhere,
    **dict.fromkeys(("norm", "matrix_norm"), _repeats_within_norm),
}  # fmt: skip


def may_be_twice_degenerate(graph: fx.Graph) -> bool:
    """Whether a step has a test of its second derivatives that may fail at some matrix."""
    tests = [(SECOND_TESTS[name_of(node)], node) for node in graph.nodes if name_of(node) in SECOND_TESTS]
    return any(test is not _repeats_within_norm or _is_nuclear(node) for test, node in tests)
