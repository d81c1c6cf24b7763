"""PyTorch's, NumPy's and Python's names that a pasted program uses besides operations: tables of what each means here."""

from __future__ import annotations

import ast
import builtins
import re
import string
from typing import Any, Final

from app.program.classes import type_dispatch
from app.program.classes.standard_library import CLOCK, TICKS
from app.program.library import factories
from app.program.modules import packed
from app.program.modules.layer_table import CONTAINERS, LAYERS, OTHERS, WHOLE
from app.program.packages import files, imports, python_containers
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.values import Inert, Named

# First names that stand for modules without an import.
ROOTS: Final = (
    "torch", "math", "F", "nn", "np", "numpy", "linalg", "fft", "special", "functional", "distributions", "optim", "autograd", "func",
    "init", "random", "functools", "itertools", "D", "dist", "copy", "einops", "tqdm", "time", "collections",
)  # fmt: skip
_TYPING: Final = ("typing", "__future__", "dataclasses")
# How the beginning of a name is written, and what it is short for.
_SPELLINGS: Final = (
    ("torch.spmm", "mm"), ("torch.sparse.mm", "mm"),
    ("torch.nn.modules.", "nn."), ("torch.nn.functional.", "nn.functional."), ("torch.nn.init.", "nn.init."), ("torch.nn.", "nn."),
    ("numpy.", "np."), ("torch.autograd.functional.", "autograd.functional."), ("torch.", ""), ("functorch.", "func."), ("D.", "distributions."),
    ("dist.", "distributions."), ("init.", "nn.init."), ("F.", "nn.functional."), ("jax.numpy.", "np."), ("jax.", "func."),
)  # fmt: skip

_OF_MODULES: Final = ("torch.nn.modules.", "nn.modules.")

# Calls that mean nothing here, and what stands in their place.
_IGNORED: Final[dict[str, Any]] = {
    "print": None, "manual_seed": Inert("a generator"), "cuda.manual_seed": None, "cuda.manual_seed_all": None, "random.manual_seed": None,
    "seed_everything": None, "cuda.empty_cache": None, "cuda.synchronize": None,
    "set_printoptions": None, "np.set_printoptions": None, "autograd.set_detect_anomaly": None, "set_num_threads": None,
    "use_deterministic_algorithms": None, "set_default_dtype": None, "set_float32_matmul_precision": None, "set_default_device": None,
    "set_default_tensor_type": None, "warnings.filterwarnings": None, "display": None, "cuda.is_available": False,
    "backends.mps.is_available": False, "cuda.device_count": 0, "device": factories.DEVICE, "Generator": Inert("a generator"),
    "set_grad_enabled": None, "save": None, "time.sleep": None, "time.time": CLOCK, "time.perf_counter": CLOCK, "time.process_time": CLOCK,
    "time.monotonic": CLOCK, "time.time_ns": TICKS, "perf_counter": CLOCK, "time.perf_counter_ns": TICKS,
    "load": files.FILE, "warnings.simplefilter": None, "warnings.warn": None, "cuda.max_memory_allocated": 0, "cuda.set_device": None,
    "cuda.reset_peak_memory_stats": None, "_dynamo.reset": None, "cuda.current_device": 0, "backends.cuda.enable_flash_sdp": None,
    "autograd.set_grad_enabled": None, "manual_seed_all": None, "utils.tensorboard.SummaryWriter": Inert("a log"),
    "accelerator.is_available": False, "accelerator.current_accelerator": Inert("a device"), "backends.mps.is_built": False,
    "xpu.is_available": False, "cuda.is_bf16_supported": False, "cuda.get_device_name": "cpu", "autograd.set_multithreading_enabled": None,
    "set_warn_always": None, "set_num_interop_threads": None, "get_num_threads": 1, "cuda.memory_allocated": 0, "cuda.memory_reserved": 0,
    "testing.assert_close": None, "testing.assert_allclose": None,
    **dict.fromkeys(f"np.testing.{name}" for name in ("assert_allclose", "assert_almost_equal", "assert_array_equal", "assert_array_almost_equal")),
    "backends.cuda.enable_math_sdp": None, "backends.cuda.enable_mem_efficient_sdp": None,
}  # fmt: skip
# Of these the call itself says whether derivatives pass from there on.
GRAD_MODE: Final = ("set_grad_enabled", "autograd.set_grad_enabled")
_INERT_DECORATORS: Final = (
    "jit.script", "jit.ignore", "jit.export", "jit.unused", "compile", "staticmethod", "jit.script_method", "dataclass",
    "jit.script_if_tracing", "typing.no_type_check", "property", "classmethod", "cached_property", "functools.cached_property",
    "functools.lru_cache", "functools.cache", "lru_cache", "functools.wraps", "wraps", "abc.abstractmethod", "abstractmethod", "overload",
    "typing.overload", "override", "dataclasses.dataclass", "torch.jit.script", "final", "jit.interface", "autocast", "amp.autocast",
    "cuda.amp.autocast", "cuda.amp.custom_fwd", "amp.custom_fwd", "cuda.amp.custom_bwd", "amp.custom_bwd",
    "autograd.function.once_differentiable", "once_differentiable", "contextlib.contextmanager", "contextmanager", "enum.unique", "unique",
    "total_ordering", "functools.total_ordering", "runtime_checkable", "typing.runtime_checkable", "torch.compiler.disable", "compiler.disable",
)  # fmt: skip
_INERT_CONTEXTS: Final = (
    "autograd.set_detect_anomaly", "autograd.detect_anomaly", "autograd.forward_ad.dual_level", "random.fork_rng", "autograd.profiler.profile",
    "autograd.profiler.record_function", "profiler.profile", "profiler.record_function", "device", "cuda.device", "autograd.graph.save_on_cpu",
    "autocast", "cuda.amp.autocast", "amp.autocast", "cpu.amp.autocast", "autocast_mode.autocast", "amp.autocast_mode.autocast",
    "warnings.catch_warnings", "nn.attention.sdpa_kernel", "backends.cuda.sdp_kernel",
)  # fmt: skip
# Those that have one.
_CONTEXTS: Final = (
    "no_grad", "enable_grad", "inference_mode", "set_grad_enabled", "autograd.no_grad", "autograd.enable_grad", "autograd.inference_mode",
    "autograd.set_grad_enabled", "contextlib.nullcontext", "contextlib.suppress", "nullcontext", "suppress", "autograd.grad_mode.no_grad",
    "autograd.grad_mode.inference_mode", "contextlib.ExitStack", "ExitStack", "contextlib.closing", "closing",
)  # fmt: skip
_EXCEPTIONS: Final = ("linalg.LinAlgError", "OutOfMemoryError", "cuda.OutOfMemoryError")
_DTYPES: Final = {f"np.{name}": dtype for name, dtype in factories.DTYPES.items()}
_PYTHON: Final = (
    "isinstance", "getattr", "setattr", "hasattr", "dict", "map", "filter", "divmod", "slice", "str", "type", "object",
    "super", "callable", "next", "iter", "set", "frozenset", "NoneType", "id", "repr", "issubclass", "ord", "chr", "bin", "hex", "oct",
)  # fmt: skip
# Calls that give what they are given: they change how a program runs, not what it computes.
SAME: Final = (
    "jit.script", "jit.trace", "compile", "nn.DataParallel", "nn.parallel.DistributedDataParallel", "jit.freeze",
    "jit.optimize_for_inference", "func.jit", "typing.cast", "nn.SyncBatchNorm.convert_sync_batchnorm",
)  # fmt: skip
_FUNCTIONS: Final = (
    "functools.partial", "functools.reduce", "collections.OrderedDict", "collections.defaultdict", "collections.namedtuple", "namedtuple",
    "itertools.product",
    "itertools.combinations",
    "itertools.permutations", "itertools.combinations_with_replacement", "OrderedDict", "partial", "reduce",
)  # fmt: skip
_GRADIENTS: Final = re.compile(
    r"(func\.(grad|grad_and_value|value_and_grad|vjp|jvp|jacrev|jacfwd|hessian|vmap|functional_call|stack_module_state|linearize)|vmap|autograd\.grad"
    r"|autograd\.backward|autograd\.functional\.(jacobian|hessian|vjp|jvp|hvp|vhp)|autograd\.Variable|autograd\.forward_ad\.\w+)"
)
_CALLED: Final = re.compile(
    r"nn\.init\.\w+_|nn\.utils\.clip_grad_(norm|value)_|optim\.\w+(\.\w+)*|nn\.Parameter|nn\.parameter\.Parameter|nn\.Module"
)


# Python's texts of the module `string`; its methods of texts, as functions (`sorted(names, key=str.lower)`).
_STRINGS: Final = (
    "ascii_letters", "ascii_lowercase", "ascii_uppercase", "digits", "hexdigits", "octdigits", "punctuation", "printable", "whitespace",
)  # fmt: skip
TEXT_METHODS: Final = (
    "str.lower",
    "str.upper",
    "str.strip",
    "str.title",
    "str.casefold",
    "str.split",
    "str.isdigit",
    "str.isalpha",
)
NUMPY_NAMES: Final = ("array", "asarray", "zeros", "ones", "full", "eye", "arange", "linspace", "float32", "float64", "int64")


def spelled(path: str) -> str:
    """The one spelling of a name: `nn.Linear`, `np.pi`, `func.grad`, `autograd.grad`."""
    if path.startswith(_OF_MODULES) and path.rpartition(".")[2][:1].isupper():  # `torch.nn.modules.module.Module`
        return f"nn.{path.rpartition('.')[2]}"
    for long, short in _SPELLINGS:
        if path.startswith(long):
            path = short + path.removeprefix(long)
    return path


def constant(path: str) -> Any:
    """The plain value that a dotted name is, or None."""
    root, _, rest = path.partition(".")
    if root in ("torch", "math", "np", "numpy") and rest in static.CONSTANTS:
        return static.CONSTANTS[rest]
    short = spelled(path)
    if root == "jax" and short.removeprefix("np.") in static.CONSTANTS:
        return static.CONSTANTS[short.removeprefix("np.")]
    if short in _DTYPES:
        return _DTYPES[short]
    if root == "torch" and rest in factories.TORCH_DTYPES:
        return factories.TORCH_DTYPES[rest]
    if root == "torch" and rest in factories.TENSOR_TYPES:
        return factories.TORCH_DTYPES[factories.TENSOR_TYPES[rest]]
    if root == "string" and rest in _STRINGS:
        return getattr(string, rest)
    if short == "np.euler_gamma":
        return 0.5772156649015329
    if short in ("backends.cudnn.deterministic", "backends.cudnn.benchmark", "typing.TYPE_CHECKING"):
        return False
    return None


def layer_name(path: str) -> str | None:
    """`Linear`, where `path` is PyTorch's module of that name."""
    short = spelled(path)
    name = short.rpartition(".")[2]
    return name if short.startswith("nn.") and (name in LAYERS or name in WHOLE or name in OTHERS) else None


def container_name(path: str) -> str | None:
    short = spelled(path)
    return short.removeprefix("nn.") if short.startswith("nn.") and short.removeprefix("nn.") in CONTAINERS else None


def is_known(path: str) -> bool:
    """Whether a name that is no operation means something here when it is called or passed on."""
    short = spelled(path)
    return (
        layer_name(path) is not None
        or container_name(path) is not None
        or bool(_GRADIENTS.fullmatch(short) or _CALLED.fullmatch(short))
        or short in ("backends", "backends.cudnn", "backends.cuda", "backends.cuda.matmul", "backends.mps")
        or short.startswith(("distributions.", "optim.", "einops.", "copy."))
        or short in SAME
        or is_context(path)
        or is_exception(path)
        or python_containers.is_container(short)
        or short in packed.NAMES
        or short
        in (
            "allclose",
            "equal",
            "autograd.gradcheck",
            "autograd.gradgradcheck",
            "nn.utils.parameters_to_vector",
            "is_grad_enabled",
            "finfo",
            "iinfo",
            "is_tensor",
            "get_default_dtype",
            "utils.checkpoint.checkpoint",
            "utils.checkpoint.checkpoint_sequential",
            "cuda.amp.GradScaler",
            "amp.GradScaler",
        )
        or (short.startswith("np.") and short.removeprefix("np.") in NUMPY_NAMES)
        or short in _PYTHON
        or short in TEXT_METHODS
        or short in _FUNCTIONS
        or short in ("Tensor", "nn.Module", "Size", "numel", "device", "np.ndarray")
        or (short.startswith(("np.", "math.")) and short.partition(".")[2] in static.MATH)
        or path in ("nn", "torch", "np", "math", "F", "torch.nn", "torch.nn.functional")
    )


def ignored_call(path: str) -> Any:
    """What stands in the place of a call that means nothing here, in a one-tuple; None where it means something."""
    short = spelled(path)
    if short in _IGNORED or path in _IGNORED:
        return Ignored(_IGNORED.get(short, _IGNORED.get(path)))
    return None


class Ignored:
    """What an ignored call gives."""

    def __init__(self, value: Any) -> None:
        self.value = value


def is_inert_decorator(path: str) -> bool:
    return spelled(path) in _INERT_DECORATORS


def is_context(path: str) -> bool:
    """Whether a `with` of this name has a meaning here, or none at all."""
    short = spelled(path)
    return short in _INERT_CONTEXTS or short in _CONTEXTS


def exception(name: str) -> type[BaseException]:
    """Python's exception of a name; PyTorch's own extend RuntimeError."""
    kind = vars(builtins).get(name)
    return kind if isinstance(kind, type) and issubclass(kind, BaseException) else RuntimeError


def is_below(name: str, above: str) -> bool:
    """Whether an exception of a name is of the class `above`, or of one below it."""
    return name == above or (above in vars(builtins) and issubclass(exception(name), exception(above)))


def is_exception(name: str) -> bool:
    """Whether it is the name of one of Python's exceptions, or of PyTorch's."""
    kind = vars(builtins).get(name)
    return (isinstance(kind, type) and issubclass(kind, Exception)) or spelled(name) in _EXCEPTIONS


def is_module_base(path: str) -> bool:
    return spelled(path) in ("nn.Module", "nn.modules.Module", "Module", "jit.ScriptModule")


def is_custom_base(path: str) -> bool:
    return spelled(path) in ("autograd.Function", "autograd.function.Function", "Function")


# Python's classes that a class of the program may extend, and what is read of them (`ClassValue.builtin`).
_EXTENDED: Final[dict[str, str]] = {
    "object": "", "ABC": "", "Protocol": "", "Generic": "", "Dataset": "", "IterableDataset": "", "Sampler": "",
    "Enum": "Enum", "IntEnum": "int or str Enum",
    "StrEnum": "StrEnum", "Optimizer": "Optimizer", "str": "str", "int": "int", **{
        name: name
        for name, kind in vars(builtins).items()
        if isinstance(kind, type) and issubclass(kind, Exception)
    },
}  # fmt: skip


def extended(path: str) -> tuple[str | None, bool]:
    """What a class is by its base `path`: `Enum`, an exception, a module of PyTorch, "" for a plain one; and whether it is a module.

    None where a class may not extend it.
    """
    if is_module_base(path) or is_custom_base(path):
        return "", is_module_base(path)
    part = layer_name(path) or container_name(path)
    if part is not None:
        return part, True
    return _EXTENDED.get(path.rpartition(".")[2]), False


def is_decorator(path: str) -> bool:
    """Whether a name of PyTorch or Python makes a function of a function."""
    short = spelled(path)
    return bool(_GRADIENTS.fullmatch(short)) or short in ("functools.partial", "partial", *type_dispatch.NAMES) or short in SAME


def base_refused(path: str) -> Refusal:
    """The refusal of a class that extends something of PyTorch that is no plain module."""
    return Refusal(f"A class that extends `{path}` is not in the language.", "Extend `nn.Module`, and hold the other in it.")


def imported(statement: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """Name → what it stands for."""
    origins: dict[str, str] = {}
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            origins[alias.asname or alias.name.partition(".")[0]] = alias.name if alias.asname else alias.name.partition(".")[0]
        return origins
    module = statement.module or ""
    if module.partition(".")[0] in _TYPING:
        return {
            alias.asname or alias.name: f"{module}.{alias.name}"
            for alias in statement.names
            if alias.name in ("field", "cast", "NamedTuple", "replace", "asdict", "astuple", "TYPE_CHECKING", *imports.HINTS)
        }
    for alias in statement.names:
        if alias.name != "*":
            origins[alias.asname or alias.name] = f"{module}.{alias.name}"
    return origins


def not_called(name: Named) -> Refusal:
    """The refusal of an operation's name where a value is needed."""
    return Refusal(f"`{name.path}` is an operation, and it is not called here.", f"Call it: `{name.path}(x)`.")
