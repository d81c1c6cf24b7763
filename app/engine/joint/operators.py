"""Which of PyTorch's operators a joint graph may hold, and a stack of queries.

A recorded list of calls is right for other numbers where nothing between the operators looks at numbers. Some of PyTorch does, in C++
where no recording sees it: `prod` counts zeros before it chooses its derivative, `linalg` checks for singular matrices. So the operators are
listed: they are those at which neither their composition nor their derivative branches on values (PyTorch's FunctionsManual.cpp).
"""

from __future__ import annotations

from typing import Any, Final

import torch


def _names(*lines: str) -> frozenset[str]:
    return frozenset(name for line in lines for name in line.split())


# Results of these depend on shapes alone: computed once.
FACTORIES: Final = _names(
    "zeros ones full zeros_like ones_like full_like new_zeros new_ones new_full scalar_tensor arange eye lift_fresh lift_fresh_copy",
)
_VIEWS: Final = _names(
    "view _unsafe_view _reshape_alias t transpose permute expand unsqueeze squeeze select slice alias detach unbind split ",
    "split_with_sizes diagonal",
)
_COPIES: Final = _names(
    "clone _to_copy cat stack flip roll repeat constant_pad_nd tril triu select_backward slice_backward diagonal_backward index_select ",
    "gather scatter",
)
_SUMS: Final = _names(
    "sum mean amax amin cumsum",
)
_SOFTMAX: Final = _names(
    "_softmax _softmax_backward_data _log_softmax _log_softmax_backward_data",
)
_OTHERS: Final = _names(
    "scatter_add mm bmm addmm mv addmv dot baddbmm convolution convolution_backward var var_mean std logsumexp linalg_vector_norm max min argmax ",
    "argmin any all mse_loss mse_loss_backward nll_loss_forward nll_loss_backward embedding embedding_dense_backward native_layer_norm ",
    "native_layer_norm_backward native_group_norm native_group_norm_backward avg_pool2d avg_pool2d_backward max_pool2d_with_indices ",
    "max_pool2d_with_indices_backward",
)
_LISTED: Final = FACTORIES | _VIEWS | _COPIES | _SUMS | _SOFTMAX | _OTHERS

# Of the pointwise ones those whose last bits do not hang on where in memory a number stands. Others compute most numbers eight at a time
# and the rest one by one, in formulas of their own: `sigmoid` then differs in the last bit of one number in 250, `pow` in 1 of 120,
# `sinh`, `atanh`, `softplus` in 1 of 7 to 20 (measured, 12,000 numbers each, rows of 1 to 33 alone and in stacks, AVX-512; a test measures it).
_SAME_ANYWHERE: Final = _names(
    "add sub rsub mul div neg abs sqrt rsqrt reciprocal square exp expm1 log log2 log10 log1p sin cos tan asin acos atan tanh asinh acosh ",
    "erf erfc lgamma digamma relu hardtanh sign sgn floor ceil round trunc maximum minimum clamp clamp_min clamp_max where eq ne lt le gt ge ",
    "logical_and logical_or logical_not isnan tanh_backward threshold_backward hardtanh_backward masked_fill fmod bitwise_and bitwise_or ",
    "bitwise_not",
)
_SAME_IN_STACKS: Final = FACTORIES | _VIEWS | _COPIES | _SUMS | _SOFTMAX | _SAME_ANYWHERE
_POWERS: Final = frozenset({1, 2, 3})  # by multiplication; other exponents as `pow` above


def name_of(operator: Any) -> str:
    """`aten.sum.dim_IntList` → `sum`."""
    name: str = operator._schema.name
    return name.rpartition("::")[2]


def is_recordable(operator: Any) -> bool:
    """A joint graph may hold it."""
    if operator._schema.is_mutable or not operator._schema.name.startswith("aten::"):
        return False
    is_drawn = torch.Tag.nondeterministic_seeded in operator.tags
    return (name_of(operator) in _LISTED or torch.Tag.pointwise in operator.tags) and not is_drawn


def is_same_in_stacks(operator: Any, arguments: tuple[Any, ...]) -> bool:
    """Each row of a stack has the bits that it has alone, where the shapes do not decide otherwise: that is tried out."""
    name = name_of(operator)
    # The place of a tensor is an integer too, of a type of its own.
    is_power = name == "pow" and type(arguments[-1]) in (int, float) and arguments[-1] in _POWERS
    return name in _SAME_IN_STACKS or is_power
