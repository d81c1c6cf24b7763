"""What an imported package means: PyTorch's names, what only shows or measures, or nothing that is here."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable
from typing import Any, Final

from app.program.reading.source import Refusal
from app.program.semantics.static import joined_path, members_in
from app.program.semantics.values import ClassValue, Foreign, FunctionValue, Inert, Instance, Named

# Their names mean something here, or are refused one by one.
KNOWN: Final = frozenset(
    {"torch", "numpy", "math", "typing", "__future__", "functools", "itertools", "collections", "functorch", "dataclasses", "copy", "einops",
     "time", "tqdm", "random", "operator", "typing_extensions", "abc", "enum", "warnings", "contextlib", "argparse", "bisect", "heapq",
     "statistics", "json", "string", "jax"}
)  # fmt: skip
# They show, log or measure: a call of theirs changes no tensor.
_SILENT: Final = frozenset(
    {"matplotlib", "pylab", "seaborn", "plotly", "logging", "loguru", "wandb", "tensorboard", "tensorboardX", "IPython", "rich", "pprint",
     "mlflow", "torchsummary", "torchinfo", "torchviz", "gc", "pdb", "datetime", "neptune", "comet_ml", "absl", "termcolor", "pytest", "unittest"}
)  # fmt: skip
# Names of such packages that hold what a program computes with.
MEANT: Final = ("types.SimpleNamespace",)
# Names of PyTorch that show or measure, too.
_SILENT_TORCH: Final = ("torch.utils.tensorboard", "torch.profiler", "torch.utils.benchmark")


# Names of `typing` that hints are made of: an alias of one (`Fn = Callable[[Tensor], Tensor]`) means nothing.
HINTS: Final = (
    "Callable", "Optional", "Union", "List", "Dict", "Tuple", "Set", "Type", "Any", "TypeVar", "Literal", "Sequence", "Iterable", "Iterator",
    "Mapping", "Generator", "ClassVar", "Final", "NewType", "Annotated", "TypeAlias", "ParamSpec",
)  # fmt: skip
HINT: Final = Inert("a type hint")
SHOWING: Final = Foreign("print", silent=True)  # as a value: `Stopper(trace_func=print)`


def bound(path: str) -> Any:
    """What a name stands for that was imported as `path`."""
    root = path.partition(".")[0]
    if root in ("typing", "typing_extensions") and path.rpartition(".")[2] in HINTS:
        return HINT
    if path in MEANT:
        return Named(path)
    if root in _SILENT or path.startswith(_SILENT_TORCH):
        return Foreign(path, silent=True)
    return Named(path) if root in KNOWN else Foreign(path)


def called(foreign: Foreign, args: Iterable[Any]) -> Any:
    """What a call of a package's function gives. Raises a refusal where it is given what the program computes with."""
    if foreign.path in _OF_PATHS:
        return _OF_PATHS[foreign.path](*args)
    if foreign.path in _HARMLESS:
        return Foreign(f"{foreign.path}(…)", silent=True)
    if not foreign.silent and (foreign.path.partition(".")[0] in _REACHING or any(map(_is_of_program, args))):
        raise unknown(foreign)
    return Foreign(f"{foreign.path}(…)", foreign.silent)


def _joined(*parts: Any) -> str:
    joined_path(*parts)  # refuses what is no text
    return posixpath.join(*parts) if parts else ""


# Of `os.path` and `pathlib` what makes texts of texts.
_OF_PATHS: Final[dict[str, Callable[..., str]]] = {
    "pathlib.Path": joined_path,
    "pathlib.PurePath": joined_path,
    "os.path.join": _joined,
    "os.path.basename": lambda *path: posixpath.basename(_joined(*path)),
    "os.path.dirname": lambda *path: posixpath.dirname(_joined(*path)),
}
# They reach out of the program: no call of theirs is a harmless line.
_REACHING: Final = frozenset(
    {"os", "sys", "subprocess", "shutil", "socket", "pickle", "ctypes", "importlib", "builtins", "pathlib", "multiprocessing", "threading",
     "signal", "io", "tempfile", "marshal", "code", "codecs", "inspect", "types", "requests", "urllib"}
)  # fmt: skip
# Of these the calls that only prepare what is never reached here.
_HARMLESS: Final = ("os.makedirs", "os.mkdir", "sys.path.append", "sys.path.insert", "sys.stdout.flush")


def unknown(foreign: Foreign) -> Refusal:
    """The refusal of a value that only a package could give."""
    return Refusal(
        f"`{foreign.path}` is not here: of packages, torch, numpy, math and einops mean something in a program.",
        "Paste the lines of that function before, or send what it gives as an input.",
    )


def _is_of_program(value: Any) -> bool:
    members_in(value)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return any(map(_is_of_program, value))
    return hasattr(value, "meta") or hasattr(value, "skeleton") or isinstance(value, Instance | ClassValue | FunctionValue)
