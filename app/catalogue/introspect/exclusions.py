"""What of PyTorch's public callables is not in the catalogue: classes, each with its reason, in the order in which they are tried."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

# Types that a query cannot carry, and that no default makes superfluous.
_FOREIGN_TYPES: Final = re.compile(r"Dimname|Storage|Stream|__torch__")
_TENSOR: Final = re.compile(r"\bTensor\b")


@dataclass(frozen=True, slots=True)
class Exclusion:
    """One class of callables that are left out.

    Attributes:
        names: matches the short name (`resize_`, `cudnn_convolution`), or None where the schema decides.
        schema: tells it from one overload's schema, or None where the name decides.
    """

    name: str
    reason: str
    names: re.Pattern[str] | None = None
    schema: Callable[[Any], bool] | None = None


def _named(name: str, reason: str, pattern: str) -> Exclusion:
    return Exclusion(name, reason, names=re.compile(rf"^(?:{pattern})$"))


def _writes(schema: Any) -> bool:
    return bool(schema.is_mutable)


def _is_out(schema: Any) -> bool:
    return any(argument.is_out for argument in schema.arguments)


def _foreign(schema: Any) -> bool:
    types = [str(a.real_type) for a in schema.arguments]
    return any(_FOREIGN_TYPES.search(t) for t in types) or "Generator" in types


def _takes_none(schema: Any) -> bool:
    return not any(_TENSOR.search(str(a.real_type)) for a in schema.arguments)


def _gives_none(schema: Any) -> bool:
    return not all(_TENSOR.search(str(r.real_type)) for r in schema.returns) or not schema.returns


EXCLUSIONS: Final[tuple[Exclusion, ...]] = (
    _named(
        "in_place", "It writes to its argument; values here never change. The same name without `_` gives a new tensor.", r".*_"
    ),
    _named(
        "process_state",
        "It reads or changes the state of the whole process (random state, threads, defaults, autocast, printing), which others share.",
        r"(?:get|set)_.*|(?:is|are)_(?!neg$).*_enabled|is_(?:anomaly|autocast|deterministic|grad|inference|warn)\w*|use_deterministic_algorithms|"
        r"manual_seed|initial_seed|seed|thread_safe_generator|autocast_\w+|clear_autocast_cache|init_num_threads|"
        r"prepare_multiprocessing_environment|profiler_\w+|compiled_with_cxx11_abi",
    ),
    _named(
        "input_output",
        "It reads or writes files, foreign memory or Python objects; tensors come and go in the query alone.",
        r"save|load|from_file|from_dlpack|to_dlpack|from_numpy|frombuffer|as_tensor|asarray|tensor|numpy|tolist|module_load|as_masked_tensor|"
        r"masked_tensor",
    ),
    _named(
        "autograd_machinery",
        "It steers autograd by side effects; the query's `want` asks for derivatives.",
        r"backward|register_hook|register_post_accumulate_grad_hook|reinforce|retain_grad",
    ),
    _named("higher_order", "It takes a function; a program composes operations.", r"vmap|cond|while_loop|compile|fork|wait"),
    _named(
        "compiler",
        "It belongs to PyTorch's compilers or to the plumbing of its Python code and computes nothing.",
        r"sym_.*|import_ir_module\w*|parse_\w+|unify_type_list|merge_type_from_type_comment|classproperty|typename|handle_torch_function|"
        r"has_torch_function\w*|assert_int_or_pair|boolean_dispatch|Optional|as_subclass|dim_order|broadcast_shapes",
    ),
    _named(
        "storage",
        "It shows or rearranges raw memory, where the same bytes can be read twice or beyond the end (`as_strided` has wrong derivatives "
        "under vmap and forward mode); `select`, `unfold`, `expand` and indexing do it safely.",
        r"as_strided\w*|resize|resize_as|set|storage\w*|untyped_storage|data_ptr|const_data_ptr|element_size|is_shared|slice_inverse|"
        r"pin_memory|new",
    ),
    _named("device", "The worker decides the device.", r"cpu|cuda|ipu|xpu|mtia|type|to_mkldnn"),
    _named(
        "sparse",
        "It makes or needs sparse or nested tensors, which a query cannot carry.",
        r"to_sparse\w*|sparse_\w+|to_dense|to_padded_tensor|coalesce|indices|values|\w*(?:crow|ccol|row|col)_indices|hspmm|hsmm|dsmm|smm|"
        r"spmm|saddmm|sspaddmm|sampled_addmm",
    ),
    _named(
        "quantized",
        "It makes or needs quantised tensors, whose dtypes a query cannot carry.",
        r"quantize\w*|dequantize|q_\w+|int_repr|choose_qparams_optimized|fbgemm_\w+|empty_quantized|fused_moving_avg_obs_fake_quant",
    ),
    _named(
        "dtype",
        "It works on a dtype that the contract lacks (complex32, uint64, float8 with scales).",
        r"chalf|hash_tensor|scaled_mm|scaled_grouped_mm",
    ),
    _named(
        "kernel",
        "It is a backend's kernel behind a public operation, without that operation's checks.",
        r"cudnn_\w+|miopen_\w+|mkldnn_\w+|native_\w+|batch_norm_(?:backward_\w+|elemt|gather_stats\w*|stats|update_stats)|grid_sampler\w*|"
        r"affine_grid_generator|convolution|frobenius_norm|nuclear_norm",
    ),
    _named("derivative", "It is the backward of an operation; want `vjp` of that operation.", r"\w+_backward\w*"),
    _named(
        "copy_twin",
        "It is the twin of an operation that gives a view; here every result is a value.",
        r"(?!index_copy$)\w+_copy",
    ),
    _named(
        "variant_twin",
        "It is an operation of the catalogue with one parameter fixed or one check left out (`return_indices=True`).",
        r"\w+_with_indices|grouped_mm",
    ),
    _named(
        "factory",
        "It makes a tensor that depends on no input; send that tensor as an input, or use it in a program.",
        r"empty\w*|new_\w+|linspace|logspace|range|arange|eye|zeros|ones|full|rand|randn|randint|randperm|scalar_tensor|\w+_window|"
        r"\w*tril_indices|triu_indices|fftfreq|rfftfreq",
    ),
    _named(
        "no_tensor",
        "It gives a number, a truth value or a shape and no tensor.",
        r"is_\w+|item|size|stride|dim|ndimension|nelement|numel|\w+_dim|equal|allclose|result_type|promote_types|can_cast|storage_offset",
    ),
    _named("removed", "PyTorch keeps the name only to say that the function is gone.", r"eig|lstsq|matrix_rank|solve|symeig"),
    _named(
        "named_dimensions",
        "It works on named dimensions, which a query cannot carry, or its arguments are objects of functorch.",
        r"align_\w+|refine_names|rename|names|index",
    ),
    _named(
        "stateful_solver", "It takes tables of options and a callback, and its iterations are not differentiable.", r"lobpcg"
    ),
    Exclusion("out", "It writes its result into a tensor of the caller.", schema=_is_out),
    Exclusion("writes", "This overload writes to one of its arguments.", schema=_writes),
    Exclusion("foreign_type", "It needs names, generators, storages or streams, which a query cannot carry.", schema=_foreign),
    Exclusion("no_tensor_in", "This overload takes no tensor.", schema=_takes_none),
    Exclusion("no_tensor_out", "This overload gives no tensor.", schema=_gives_none),
)

# Names that a pattern above would take although they are sound operations. Each is `public name`.
_SOUND: Final = frozenset(
    {"linalg.eig", "linalg.lstsq", "linalg.matrix_rank", "linalg.solve", "linalg.cond", "take_along_dim", "Tensor.take_along_dim"}
)  # fmt: skip


def exclusion_of(name: str) -> Exclusion | None:
    """The class that leaves out the public callable `name` (`linalg.det`, `Tensor.resize_`) by its name alone, or None."""
    if name in _SOUND:
        return None
    short = name.rpartition(".")[2]
    for exclusion in EXCLUSIONS:
        if exclusion.names is not None and exclusion.names.match(short):
            return exclusion
    return None


def schema_exclusion(schema: Any) -> Exclusion | None:
    """The class that leaves out one overload, or None."""
    for exclusion in EXCLUSIONS:
        if exclusion.schema is not None and exclusion.schema(schema):
            return exclusion
    return None
