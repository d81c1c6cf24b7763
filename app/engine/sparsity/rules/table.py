"""Which rule says what the results of an operator depend on: one table; what is in none of its lines is dense, which is sound."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import torch

from app.engine.sparsity.operator_call import Call
from app.engine.sparsity.pattern import Pattern
from app.engine.sparsity.rules import movements, slices, windows

Rule = Callable[[Call], list[Pattern | None]]

# Operators whose result is a plain number or truth value: a branch or an index of the program.
READS_VALUES: Final = frozenset({"_local_scalar_dense", "item", "is_nonzero", "equal", "allclose"})
# Results that take only shape and dtype from their arguments.
SHAPE_ALONE: Final = frozenset({
    "zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty",
    "new_empty_strided",
})  # fmt: skip


def zero(call: Call) -> list[Pattern | None]:
    """The derivative is zero wherever there is one."""
    return [None] * len(call.outputs)


def dense(call: Call, rows: int) -> Pattern:
    """Every result depends on all that the arguments depend on."""
    space = call.space
    row = space.all_of([pattern for _, pattern in call.tracked()])
    return space.repeated(row, rows)


def _lines(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


_RULES: Final[dict[str, Rule]] = {
    **_lines(
        zero,
        "zeros_like ones_like full_like empty_like rand_like randn_like randint_like new_zeros new_ones new_full new_empty "
        "new_empty_strided bernoulli zero floor ceil round trunc sign fix histc normal uniform exponential geometric "
        "log_normal cauchy random count_nonzero argmax argmin",
    ),
    **_lines(movements.same, "clone _to_copy contiguous conj_physical resolve_conj resolve_neg lift lift_fresh alias detach"),
    **_lines(movements.copied, "copy"),
    # Pointwise without PyTorch's tag.
    **_lines(
        slices.pointwise,
        "complex polar log_sigmoid log_sigmoid_forward outer native_dropout _prelu_kernel lerp rsub addcmul addcdiv "
        "isclose float_power ldexp xlogy copysign",
    ),
    **_lines(slices.switch, "where masked_fill"),
    **_lines(
        movements.move,
        "cat stack index _unsafe_index index_select gather take roll flip constant_pad_nd reflection_pad1d reflection_pad2d "
        "reflection_pad3d replication_pad1d replication_pad2d replication_pad3d tril triu repeat masked_scatter "
        "select_scatter slice_scatter diagonal_scatter as_strided_scatter diag_embed im2col channel_shuffle diag "
        "native_channel_shuffle pixel_shuffle pixel_unshuffle rot90 embedding masked_select upsample_nearest1d upsample_nearest2d "
        "upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d index_fill "
        "diagonal_backward block_diag repeat_interleave unfold_copy expand_copy view_copy "
        "permute_copy transpose_copy t_copy select_copy slice_copy split_copy split_with_sizes_copy unbind_copy diagonal_copy "
        "squeeze_copy unsqueeze_copy as_strided_copy _reshape_copy _reshape_alias_copy alias_copy unfold  "
        "_unsafe_view fill",
    ),
    "slice_backward": movements.slice_backward,
    "select_backward": movements.select_backward,
    **_lines(movements.scatter_add, "scatter_add scatter_reduce"),
    **_lines(movements.index_add, "index_add index_reduce"),
    "put": movements.put,
    "scatter": movements.scatter,
    "index_copy": movements.index_copy,
    **_lines(movements.max_unpool, "max_unpool2d max_unpool3d"),
    **_lines(movements.index_put, "index_put _index_put_impl _unsafe_index_put"),
    "embedding_dense_backward": movements.embedding_backward,
    "unfold_backward": movements.unfold_backward,
    "col2im": movements.fold,
    **_lines(
        slices.along("dim"),
        "sum mean prod logsumexp _softmax _log_softmax cumsum cumprod logcumsumexp nansum norm linalg_vector_norm var std "
        "var_mean std_mean _fft_c2c _fft_r2c _softmax_backward_data _log_softmax_backward_data _safe_softmax",
    ),
    **_lines(slices.chosen_along, "sort topk kthvalue mode cummax cummin"),
    **_lines(slices.equal_along, "amax amin aminmax"),
    **_lines(slices.pooled_maximum, "max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d adaptive_max_pool3d"),
    "mm": slices.product("self", "mat2"),
    "bmm": slices.product("self", "mat2"),
    "mv": slices.product("self", "vec"),
    "dot": slices.product("self", "tensor"),
    "vdot": slices.product("self", "other"),
    "addmm": slices.product("mat1", "mat2", "self"),
    "addmv": slices.product("mat", "vec", "self"),
    "baddbmm": slices.product("batch1", "batch2", "self"),
    "_cdist_forward": slices.distances,
    "_euclidean_dist": slices.distances,
    "linalg_cross": slices.crossed,
    **_lines(
        slices.by_batch,
        "linalg_inv_ex _linalg_det linalg_cholesky_ex _linalg_solve_ex linalg_qr _linalg_eigh _linalg_svd linalg_matrix_exp "
        "triangular_solve linalg_lu_factor_ex linalg_lu linalg_lu_solve cholesky_solve cholesky cholesky_inverse linalg_eig "
        "linalg_eigvals _linalg_slogdet linalg_householder_product ormqr linalg_solve_triangular linalg_pinv geqrf "
        "linalg_ldl_factor_ex",
    ),
    "convolution": windows.convolution,
    "convolution_backward": windows.convolution_backward,
    "avg_pool2d": windows.pool(2),
    "avg_pool3d": windows.pool(3),
    "_adaptive_avg_pool2d": windows.adaptive_pool(2),
    "_adaptive_avg_pool3d": windows.adaptive_pool(3),
}
# Where the overload decides: these have a dimension, their namesakes reduce everything.
_BY_OVERLOAD: Final[dict[tuple[str, str], Rule]] = {
    (name, overload): rule
    for rule, lines in (
        (slices.chosen_along, (("max", "dim"), ("min", "dim"), ("median", "dim"), ("nanmedian", "dim"))),
        (slices.equal_along, (("max", "default"), ("min", "default"), ("median", "default"), ("nanmedian", "default"))),
        (slices.along(None), tuple((name, "default") for name in ("sum", "mean", "prod", "var", "std"))),
        (slices.along(None), (("norm", "Scalar"),)),
    )
    for name, overload in lines
}


@cache
def base_name(func: Any) -> str:
    """`add` for `aten::add_.Tensor`."""
    name: str = func._schema.name.rpartition("::")[2]
    return name if name.startswith("__") else name.rstrip("_")


def rule_of(func: Any) -> Rule | None:
    """The rule; None where the operator is to be decomposed, or else is dense."""
    name = base_name(func)
    by_overload = _BY_OVERLOAD.get((name, func._overloadname))
    if by_overload is not None:
        return by_overload
    rule = _RULES.get(name)
    if rule is not None:
        return rule
    return slices.pointwise if torch.Tag.pointwise in func.tags else None
