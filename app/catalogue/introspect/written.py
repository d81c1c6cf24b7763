"""Signatures of public Python functions that neither the dispatcher nor their annotations tell, in the dispatcher's own notation.

`[2]` after a list's type says that one number stands for all of them, as PyTorch's own schemas do.
"""

from __future__ import annotations

from typing import Final

_POOL = (
    "Tensor input, int[{n}] kernel_size, int[{n}]? stride=None, int[{n}] padding=0, int[{n}] dilation=1, bool ceil_mode=False"
)
_ADAPTIVE = "Tensor input, int[{n}] output_size"
_FRACTIONAL = "Tensor input, int[{n}] kernel_size, int[{n}]? output_size=None, float[{n}]? output_ratio=None"
_UNPOOL = "(Tensor input, Tensor indices, int[{n}] kernel_size, int[{n}]? stride=None, int[{n}] padding=0, int[]? output_size=None) -> Tensor"
_LP = "(Tensor input, float norm_type, int[{n}] kernel_size, int[{n}]? stride=None, bool ceil_mode=False) -> Tensor"
_PATCH = "int[2] kernel_size, int[2] dilation=1, int[2] padding=0, int[2] stride=1) -> Tensor"
_RESIZE = (
    "(Tensor input, int[1]? size=None, float[1]? scale_factor=None, str mode='nearest', bool? align_corners=None, "
    "bool? recompute_scale_factor=None, bool antialias=False) -> Tensor"
)


def _with_indices(arguments: str, tail: str = "") -> tuple[str, ...]:
    return (
        f"({arguments}, bool return_indices=False{tail}) -> Tensor",
        f"({arguments}, *, bool return_indices{tail}) -> (Tensor output, Tensor indices)",
    )


def _tensor_list(arguments: str) -> str:
    return f"({arguments}) -> Tensor[]"


def _unique(arguments: str) -> tuple[str, ...]:
    """By keyword alone: the Python function picks its variant by keywords, and by position it picks wrongly."""
    return (
        f"(Tensor input, {arguments}, bool return_inverse=False, bool return_counts=False, int? dim=None) -> Tensor",
        f"(Tensor input, {arguments}, bool return_inverse, bool return_counts=False, int? dim=None) -> "
        "(Tensor output, Tensor inverse_indices)",
        f"(Tensor input, {arguments}, bool return_counts, bool return_inverse=False, int? dim=None) -> (Tensor output, Tensor counts)",
        f"(Tensor input, {arguments}, bool return_inverse, bool return_counts, int? dim=None) -> "
        "(Tensor output, Tensor inverse_indices, Tensor counts)",
    )


# Public name → signatures: schema text without the name. Order decides where names and kinds leave a choice.
WRITTEN: Final[dict[str, tuple[str, ...]]] = {
    "atleast_1d": ("(Tensor input) -> Tensor", _tensor_list("Tensor[] tensors")),
    "atleast_2d": ("(Tensor input) -> Tensor", _tensor_list("Tensor[] tensors")),
    "atleast_3d": ("(Tensor input) -> Tensor", _tensor_list("Tensor[] tensors")),
    "block_diag": ("(Tensor[] tensors) -> Tensor",),
    "broadcast_tensors": (_tensor_list("Tensor[] tensors"),),
    "cartesian_prod": ("(Tensor[] tensors) -> Tensor",),
    "cdist": ("(Tensor x1, Tensor x2, float p=2.0, str compute_mode='use_mm_for_euclid_dist_if_necessary') -> Tensor",),
    "chain_matmul": ("(Tensor[] matrices) -> Tensor",),
    "einsum": ("(str equation, Tensor[] tensors) -> Tensor",),
    "meshgrid": (_tensor_list("Tensor[] tensors, *, str indexing='ij'"),),
    "nonzero": ("(Tensor input) -> Tensor", _tensor_list("Tensor input, *, bool as_tuple")),
    "norm": (
        "(Tensor input, str? p='fro', int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
        "(Tensor input, Scalar p, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
    ),
    "split": ("(Tensor tensor, int[1] split_size_or_sections, int dim=0) -> Tensor[]",),
    "tensordot": ("(Tensor a, Tensor b, int[1] dims=2) -> Tensor",),
    "unique": _unique("*, bool sorted=True"),
    "unique_consecutive": _unique("*"),
    "unravel_index": (_tensor_list("Tensor indices, int[1] shape"),),
    "lu": (
        "(Tensor A, bool pivot=True, bool get_infos=False) -> (Tensor LU, Tensor pivots)",
        "(Tensor A, bool pivot=True, *, bool get_infos) -> (Tensor LU, Tensor pivots, Tensor infos)",
    ),
    "pca_lowrank": ("(Tensor A, int? q=None, bool center=True, int niter=2) -> (Tensor U, Tensor S, Tensor V)",),
    "svd_lowrank": ("(Tensor A, int? q=6, int? niter=2, Tensor? M=None) -> (Tensor U, Tensor S, Tensor V)",),
    **{f"Tensor.{name}": ("(Tensor input) -> Tensor",) for name in (
        "bfloat16", "half", "float", "double", "cfloat", "cdouble", "bool", "byte", "char", "short", "int", "long",
    )},
    "Tensor.to": (
        "(Tensor input, ScalarType dtype, bool non_blocking=False, bool copy=False) -> Tensor",
        "(Tensor input, Tensor other, bool non_blocking=False, bool copy=False) -> Tensor",
    ),
    "nn.functional.adaptive_avg_pool2d": (f"({_ADAPTIVE.format(n=2)}) -> Tensor",),
    "nn.functional.adaptive_avg_pool3d": (f"({_ADAPTIVE.format(n=3)}) -> Tensor",),
    **{f"nn.functional.adaptive_max_pool{n}d": _with_indices(_ADAPTIVE.format(n=n)) for n in (1, 2, 3)},
    **{f"nn.functional.fractional_max_pool{n}d": _with_indices(_FRACTIONAL.format(n=n), ", Tensor? _random_samples=None") for n in (2, 3)},
    **{f"nn.functional.max_pool{n}d": _with_indices(_POOL.format(n=n)) for n in (1, 2, 3)},
    **{f"nn.functional.max_unpool{n}d": (_UNPOOL.format(n=n),) for n in (1, 2, 3)},
    **{f"nn.functional.lp_pool{n}d": (_LP.format(n=n),) for n in (1, 2, 3)},
    "nn.functional.fold": (f"(Tensor input, int[2] output_size, {_PATCH}",),
    "nn.functional.unfold": (f"(Tensor input, {_PATCH}",),
    "nn.functional.interpolate": (_RESIZE,),
    "nn.functional.upsample_bilinear": ("(Tensor input, int[1]? size=None, float[1]? scale_factor=None) -> Tensor",),
    "nn.functional.upsample_nearest": ("(Tensor input, int[1]? size=None, float[1]? scale_factor=None) -> Tensor",),
    "nn.functional.gaussian_nll_loss": (
        "(Tensor input, Tensor target, Tensor var, bool full=False, float eps=1e-06, str reduction='mean') -> Tensor",
        "(Tensor input, Tensor target, float var, bool full=False, float eps=1e-06, str reduction='mean') -> Tensor",
    ),
    "nn.functional.linear_cross_entropy": (
        "(Tensor input, Tensor linear_weight, Tensor target, *, Tensor? linear_bias=None, Tensor? weight=None, str reduction='mean', "
        "int? ignore_index=None, float label_smoothing=0.0) -> Tensor",
    ),
    "nn.functional.softmin": ("(Tensor input, int? dim=None, *, ScalarType? dtype=None) -> Tensor",),
    "nn.utils.rnn.pad_sequence": (
        "(Tensor[] sequences, bool batch_first=False, float padding_value=0.0, str padding_side='right') -> Tensor",
    ),
    "nn.functional.ctc_loss": (
        "(Tensor log_probs, Tensor targets, Tensor input_lengths, Tensor target_lengths, int blank=0, str reduction='mean', "
        "bool zero_infinity=False) -> Tensor",
        "(Tensor log_probs, Tensor targets, int[] input_lengths, int[] target_lengths, int blank=0, str reduction='mean', "
        "bool zero_infinity=False) -> Tensor",
    ),
    "nn.functional.softsign": ("(Tensor input) -> Tensor",),
    "nn.functional.tanhshrink": ("(Tensor input) -> Tensor",),
    "nn.functional.affine_grid": ("(Tensor theta, int[] size, bool? align_corners=None) -> Tensor",),
    "nn.functional.multi_head_attention_forward": (
        "(Tensor query, Tensor key, Tensor value, int embed_dim_to_check, int num_heads, Tensor? in_proj_weight, Tensor? in_proj_bias, "
        "Tensor? bias_k, Tensor? bias_v, bool add_zero_attn, float dropout_p, Tensor out_proj_weight, Tensor? out_proj_bias, "
        "bool training=True, Tensor? key_padding_mask=None, bool need_weights=True, Tensor? attn_mask=None, "
        "bool use_separate_proj_weight=False, Tensor? q_proj_weight=None, Tensor? k_proj_weight=None, Tensor? v_proj_weight=None, "
        "Tensor? static_k=None, Tensor? static_v=None, bool average_attn_weights=True, bool is_causal=False) -> "
        "(Tensor output, Tensor attention_weights)",
    ),
    **{f"masked.{name}": (
        "(Tensor input, int[1]? dim=None, *, bool keepdim=False, ScalarType? dtype=None, Tensor? mask=None) -> Tensor",
    ) for name in ("sum", "prod", "mean", "amax", "amin", "logsumexp")},
    **{f"masked.{name}": (
        "(Tensor input, int[1]? dim=None, bool? unbiased=None, *, Scalar? correction=None, bool keepdim=False, ScalarType? dtype=None, "
        "Tensor? mask=None) -> Tensor",
    ) for name in ("var", "std")},
    "masked.norm": (
        "(Tensor input, float ord=2.0, int[1]? dim=None, *, bool keepdim=False, ScalarType? dtype=None, Tensor? mask=None) -> Tensor",
    ),
}  # fmt: skip
