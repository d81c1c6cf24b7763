"""What output a kind of result may be of: one real scalar, or one real log-likelihood for each sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from app.catalogue.dtypes import dtype_name
from app.engine.planning.demand import Needs, Result
from app.errors import PullbackError


def _check_scalar(kind: str, output: Result) -> None:
    if output.elements != 1:
        raise PullbackError(
            "not_scalar",
            f"`{kind}` is of one real scalar, and `{output.name}` has shape {list(output.shape)}. Take its sum() or mean() in a "
            "program, or want `vjp` with a cotangent, or `jacobian`.",
            at=f"outputs.{output.name}",
            expected="a single real number",
            given=f"shape {list(output.shape)}",
            fix="Reduce it with sum() or mean(), or want `vjp` with a cotangent, or `jacobian`.",
        )
    if output.dtype.is_complex:
        raise PullbackError(
            "not_scalar",
            f"`{kind}` is of one real scalar, and `{output.name}` is complex.",
            at=f"outputs.{output.name}",
            expected="a real number",
            given=dtype_name(output.dtype),
            fix="Take abs(), real or imag of it in a program, or want `vjp` with a complex cotangent, or `jacobian`.",
        )


def _check_likelihoods(kind: str, output: Result) -> None:
    if len(output.shape) != 1 or output.dtype.is_complex or output.elements == 0:
        raise PullbackError(
            "not_scalar",
            f"`{kind}` is of one real log-likelihood for each sample, shape [n]; `{output.name}` has shape {list(output.shape)}.",
            at=f"outputs.{output.name}",
            expected="shape [n], real, n ≥ 1",
            given=f"shape {list(output.shape)}, {str(output.dtype).removeprefix('torch.')}",
            fix="Return the log-likelihood of each sample, not their sum.",
        )


# By what a kind needs: (the kind, the output) → nothing. They raise `not_scalar`.
CHECKS: Final[Mapping[Needs, Callable[[str, Result], None]]] = {
    "scalar": _check_scalar,
    "likelihoods": _check_likelihoods,
}
