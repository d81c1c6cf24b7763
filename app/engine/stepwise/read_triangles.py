"""Matrices of which a step reads one triangle alone: what it takes them for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, fx

from app.catalogue.facts import values
from app.engine.stepwise.point import name_of

Read = Callable[[Tensor, fx.Node], Tensor]


class _Option(NamedTuple):
    """An argument of a step that says how its matrix is read; `position`: where PyTorch's signature has it, None: by name alone."""

    name: str
    position: int | None
    default: Any

    def of(self, node: fx.Node) -> Any:
        """Its value in a call; its default where it is no plain one."""
        stands = self.position is not None and self.position < len(node.args)
        value = node.args[self.position] if stands and self.position is not None else node.kwargs.get(self.name, self.default)
        return self.default if isinstance(value, fx.Node) else value


def hermitian(matrix: Tensor, *, upper: bool) -> Tensor:
    """The matrix whose other triangle is this one's, mirrored; a diagonal is taken for real."""
    triangle = matrix.triu(1) if upper else matrix.tril(-1)
    diagonal = torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1).real.to(matrix.dtype))
    return triangle + triangle.mH + diagonal


def _by_option(upper: _Option) -> Read:
    return lambda matrix, node: hermitian(matrix, upper=bool(upper.of(node)))


def _of_eigh(matrix: Tensor, node: fx.Node) -> Tensor:
    return hermitian(matrix, upper=str(_UPLO.of(node)).upper() == "U")


def _of_pinv(matrix: Tensor, node: fx.Node) -> Tensor:
    return hermitian(matrix, upper=False) if _HERMITIAN.of(node) else matrix


def _triangular(upper: _Option, unit: _Option) -> Read:
    def read(matrix: Tensor, node: fx.Node) -> Tensor:
        is_upper = bool(upper.of(node))
        if not unit.of(node):
            return matrix.triu() if is_upper else matrix.tril()
        identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        return (matrix.triu(1) if is_upper else matrix.tril(-1)) + identity

    return read


def _factor(upper: _Option) -> Read:
    """Of a Cholesky factor that is given: the lower one."""
    return lambda matrix, node: (matrix.mH if upper.of(node) else matrix).tril()


_UPLO: Final = _Option("UPLO", 1, "L")
_HERMITIAN: Final = _Option("hermitian", 2, False)
_READS: Final[Mapping[str, Read]] = {
    "cholesky": _by_option(_Option("upper", 1, False)),
    "cholesky_ex": _by_option(_Option("upper", None, False)),
    "eigh": _of_eigh,
    "eigvalsh": _of_eigh,
    "pinv": _of_pinv,
    "solve_triangular": _triangular(_Option("upper", None, False), _Option("unitriangular", None, False)),
    "triangular_solve": _triangular(_Option("upper", 2, True), _Option("unitriangular", 4, False)),
    "cholesky_inverse": _factor(_Option("upper", 1, False)),
    "cholesky_solve": _factor(_Option("upper", 2, False)),
}

# Distributions that factorise a matrix → the index of their covariance among their arguments; its inverse stands after it.
FACTORISING: Final[Mapping[str, int]] = {"MultivariateNormal": 1, "Wishart": 1}


def as_read(node: fx.Node, matrix: Tensor) -> Tensor:
    """The matrix that a step computes with, of its matrix as it was sent; shapes [..., n, n] alone are read by a triangle."""
    read = _READS.get(name_of(node))
    is_square = matrix.ndim >= 2 and matrix.shape[-1] == matrix.shape[-2]
    return matrix if read is None or not is_square else read(matrix, node)


def distributions(value: Any) -> Iterator[tuple[int, Any, Any]]:
    """Those that factorise a matrix, in the arguments of a step that asks them (app/program/library/distributions.py).

    Each as the index of its matrix, its arguments and its options.
    """
    if not isinstance(value, tuple | list):
        return
    if len(value) == 4 and value[0] == "distribution" and value[1] in FACTORISING:
        yield FACTORISING[value[1]], value[2], value[3]
    for member in value:
        yield from distributions(member)


def taken_for_symmetric(name: str, arguments: tuple[Any, Any]) -> list[Any]:
    """Of the arguments of a step, as it is called, those that may be matrices of which it reads one triangle.

    A distribution takes the Cholesky factor of its covariance, or of the inverse that it is given, whatever it is asked then; a factor
    that is given (`scale_tril`) is no symmetric matrix.
    """
    args, kwargs = arguments
    if name in values("reads_triangle"):
        return [*args, *kwargs.values()]
    matrices: list[Any] = []
    for index, positional, options in distributions(args):
        matrices += [*positional[index : index + 2], *(matrix for option, matrix in options if option.endswith("_matrix"))]
    return [matrix for matrix in matrices if matrix is not None]
