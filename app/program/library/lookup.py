"""Calls of catalogue operations by the names people write: `softmax`, `F.relu`, `torch.linalg.svd`, `x.sum`."""

from __future__ import annotations

import builtins
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import torch

from app.catalogue.better_rules import BETTER
from app.catalogue.call import target
from app.catalogue.entry import Operation
from app.catalogue.read import find
from app.catalogue.read import nearest as near_operations
from app.errors import PullbackError
from app.program.library.factories import FACTORIES, keywords_of
from app.program.modules.layer_table import CONTAINERS, LAYERS, WHOLE
from app.program.reading.source import Refusal
from app.program.semantics.graph_values import Emit, Value, example, is_tensor
from app.program.semantics.scopes import Scope
from app.program.semantics.static import nearest as static_nearest

# Under these prefixes people also write what stands elsewhere (`F.exp`).
_FUNCTIONAL: Final = ("F", "functional", "nn.functional", "torch.nn.functional")
_FOREIGN: Final = ("np", "numpy", "jnp", "jax", "tf", "tensorflow", "scipy", "keras", "cv2", "random", "os", "sys", "time")
# Other spellings of arguments, where the entry has the second and not the first.
_SPELLINGS: Final = {
    "axis": "dim",
    "keepdims": "keepdim",
    "self": "input",
    "x": "input",
    "axes": "dim",
    "dims": "dim",
    "dim": "dims",
}
# Written with several tensors where the operation takes one list of them.
_VARIADIC: Final = ("chain_matmul",)
# Functions that take a size or a list of axes as one argument, although people write it as several.
_LISTS: Final = ("reshape", "permute", "flip", "tile", "broadcast_to")


@lru_cache(maxsize=4096)
def lookup(name: str) -> Operation | None:
    """The operation that is written as `name`, or None."""
    parts = name.rpartition(".")
    for candidate in (name, parts[2]) if parts[0] in _FUNCTIONAL else (name,):
        try:
            return find(candidate)
        except PullbackError as error:
            if error.code != "unknown_operation":
                raise
    return None


@lru_cache(maxsize=4096)
def lookup_method(name: str) -> tuple[Operation, Callable[..., Any]] | None:
    """The operation that `x.name(...)` means, and what to call: the method itself, whose arguments may differ (`x.reshape(2, 3)`)."""
    operation = lookup(f"Tensor.{name}") or lookup(name)
    if operation is None:
        return None
    method = getattr(torch.Tensor, name, None)
    known = {operation.name, operation.path, *operation.aliases}
    ours = any(other.rpartition(".")[2] == name for other in known)
    return operation, (method if callable(method) and ours and operation.path not in BETTER else target(operation))


def call(
    emit: Emit,
    operation: Operation,
    function: Callable[..., Any],
    written: str,
    args: tuple[Value, ...],
    kwargs: Mapping[str, Value],
) -> Value:
    """The step that calls `function`, the public function or method of `operation`.

    Raises:
        Refusal: keyword arguments that the operation has not, or that a program may not give.
    """
    keywords = _keywords(operation, written, keywords_of(written, kwargs))
    if operation.name in _LISTS and len(args) > 2 and all(isinstance(a, int) for a in args[1:]) and not keywords:
        args = (args[0], tuple(args[1:]))
    if written.rpartition(".")[2] in _VARIADIC and all(is_tensor(a) for a in args):
        args = (list(args),)
    if operation.call == "variadic" and len(args) == 1 and isinstance(args[0], list | tuple):
        args = tuple(args[0])
    _check_integers(operation, (*args, *keywords.values()))
    return emit(operation.name, function, args, keywords, random=operation.may_draw, usage=lambda: usage(operation))


def _keywords(operation: Operation, written: str, keywords: dict[str, Value]) -> dict[str, Value]:
    if not keywords:
        return {}
    known = {argument.name for signature in operation.signatures for argument in signature.arguments}
    taken: dict[str, Value] = {}
    for keyword, value in keywords.items():
        name = keyword if keyword in known else _SPELLINGS.get(keyword, keyword)
        name = name if name in known else _SPELLINGS.get(name, name)
        if name not in known:
            raise Refusal(
                f"`{written}` has no argument `{keyword}`.",
                f"Its arguments are {', '.join(sorted(known))}.",
                expected=usage(operation),
                given=keyword,
            )
        if name in taken:
            raise Refusal(f"`{written}` is given `{name}` twice.")
        taken[name] = value
    return taken


def _check_integers(operation: Operation, values: tuple[Value, ...]) -> None:
    """Sizes and counts beyond 2³¹ make some of PyTorch's loops run for hours, under fakes too."""
    for value in values:
        for member in value if isinstance(value, list | tuple) else (value,):
            if (
                isinstance(member, int)
                and not isinstance(member, bool)
                and abs(member) > 1 << 31
                and "pointwise" not in operation.tags
            ):
                raise Refusal(
                    f"{member} is too large as an argument of `{operation.name}`; the limit is 2147483648.", code="too_costly"
                )


def usage(operation: Operation) -> str:
    """The signatures of `operation`, as they are written in a program."""
    texts = []
    for signature in operation.signatures[:6]:
        parts = [a.name if a.required else f"{a.name}={a.default}" for a in signature.arguments]
        texts.append(f"{operation.name}({', '.join(parts)})")
    return " or ".join(texts)


def softmax_axis(name: str, tensor: Any) -> int:
    """The axis that `F.softmax(x)` takes where none is named (PyTorch's `_get_softmax_dim`); `torch.softmax` has none."""
    if not name.startswith(("F.", "functional.", "nn.functional.", "torch.nn.functional.")):
        raise Refusal(f"`{name}` needs to know along which axis.", f"Write `{name}(x, dim=-1)`.")
    return 0 if example(tensor).ndim in (0, 1, 3) else 1


def unknown(name: str, others: tuple[str, ...] = ()) -> Refusal:
    """The refusal of a call whose name means nothing, with the nearest names that do."""
    root, _, rest = name.partition(".")
    if root in _FOREIGN:
        short = rest.rpartition(".")[2]
        instead = f"Write `{short}(…)`: it is an operation here." if lookup(short) else "Use the operations of the catalogue."
        return Refusal(f"`{root}` is not in the language.", instead)
    if name.startswith(("nn.", "torch.nn.")) and name.rpartition(".")[2][:1].isupper():
        return _module(name)
    near = nearest(name, others)
    return Refusal(
        f"There is no operation `{name}`.", f"Nearest names: {', '.join(near)}." if near else "GET /v1/operations lists them."
    )


def _module(name: str) -> Refusal:
    """The refusal of `nn.Linear`, with the function that does the same."""
    class_name = name.rpartition(".")[2]
    near = static_nearest(class_name, (*LAYERS, *WHOLE, *CONTAINERS))
    if near is not None:
        return Refusal(f"There is no module `{name}` here.", f"Nearest: `nn.{near}`.")
    words = re.sub(
        r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", class_name.replace("BCE", "BinaryCrossEntropy")
    ).lower()
    tried = (words, words.removesuffix("_loss"), class_name.lower(), re.sub(r"_?\dd$", "", words))
    function = next((short for short in tried if lookup(f"nn.functional.{short}")), None)
    instead = f"`{function}(x, …)`" if function else "`linear(x, weight, bias)`, `relu(x)`, `cross_entropy(x, target)`"
    return Refusal(
        f"`{name}` is a module, and only functions are in the language.",
        f"Use the function, and send its weights as inputs: {instead}.",
    )


def nearest(name: str, others: tuple[str, ...] = ()) -> list[str]:
    """Names like `name`, among `others`, the makers of tensors and the operations."""
    short = name.rpartition(".")[2]
    close = difflib.get_close_matches(short, (*others, *FACTORIES), n=2, cutoff=0.6)
    return list(dict.fromkeys([*close, *near_operations(name)]))[:4]


def undefined(name: str, scope: Scope, inputs: Iterable[str], *, taken: bool) -> Refusal:
    """The refusal of a name that means nothing where it is read; `taken`: an `except` of the program may take Python's error."""
    if scope.is_unbound(name):
        return Refusal(
            f"`{name}` is assigned in this function, so it is the function's own, and it has no value yet where it is read.",
            f"Write `global {name}` or `nonlocal {name}` before, or give the function's own another name.",
            raises="UnboundLocalError",
        )
    near = nearest(name, tuple(key for key in scope if key.isidentifier()))
    text = f"The name `{name}` is not defined; the inputs and parameters are: {', '.join(sorted(inputs)) or 'none'}."
    fix = f"Nearest names: {', '.join(near)}." if near else "Send it as an input or a parameter, or assign it before."
    return Refusal(text, fix, raises="NameError" if taken and not hasattr(builtins, name) else None)
