"""PyTorch's public callables that stay, grouped into operations: one canonical name each, all other names are aliases."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import torch
import torch.fft
import torch.linalg
import torch.masked
import torch.nn.functional
import torch.nn.utils.rnn
import torch.special

from app.catalogue.introspect.exclusions import Exclusion, exclusion_of, schema_exclusion
from app.catalogue.introspect.opinfos import opinfos
from app.catalogue.introspect.written import WRITTEN

# Prefix of public names → the namespace, and the prefix of its names in the dispatcher.
NAMESPACES: Final[tuple[tuple[str, Any, str], ...]] = (
    ("", torch, ""),
    ("nn.functional.", torch.nn.functional, ""),
    ("linalg.", torch.linalg, "linalg_"),
    ("fft.", torch.fft, "fft_"),
    ("special.", torch.special, "special_"),
    ("masked.", torch.masked, "masked_"),
    ("Tensor.", torch.Tensor, ""),
)

# Attributes of tensors that are operations although one writes no parentheses.
_ATTRIBUTES: Final = {"Tensor.T": "numpy_T", "Tensor.H": "matrix_H", "Tensor.mT": "mT", "Tensor.mH": "mH"}
# Public names whose dispatcher name is another.
_DISPATCHED: Final = {
    "nn.functional.logsigmoid": "log_sigmoid",
    "nn.functional.unfold": "im2col",
    "nn.functional.fold": "col2im",
}
# Names that mean the same operation beyond what the dispatcher and OpInfo's aliases say; the first is the canonical one.
_EQUAL: Final = (
    ("div", "true_divide"),
    ("linalg.slogdet", "slogdet"),
    ("linalg.pinv", "pinverse"),
    ("linalg.multi_dot", "chain_matmul"),
    ("trapezoid", "trapz"),
    ("polygamma", "special.polygamma"),
    ("detach", "stop_gradient"),
    ("segment_reduce", "_segment_reduce"),
    ("mH", "adjoint", "Tensor.mH"),
    ("mT", "Tensor.mT"),
    ("T", "Tensor.T"),
    ("H", "Tensor.H"),
    ("chunk", "unsafe_chunk"),
    ("split", "unsafe_split", "Tensor.split"),
    ("split_with_sizes", "unsafe_split_with_sizes"),
    ("nn.functional.interpolate", "nn.functional.upsample"),
    ("unique", "Tensor.unique"),
    ("lu", "Tensor.lu"),
)
# Functions outside of the namespaces that people take for part of them.
_ELSEWHERE: Final = ("nn.utils.rnn.pad_sequence",)


@dataclass(frozen=True, slots=True)
class Group:
    """One operation: its canonical name, where the public function is, its other names, and its overloads in the dispatcher."""

    name: str
    path: str
    aliases: tuple[str, ...]
    overloads: tuple[Any, ...]

    @property
    def function(self) -> Callable[..., Any]:
        return resolve(self.path)


def resolve(path: str) -> Callable[..., Any]:
    """The public function at `path` from torch; for an attribute of tensors, its getter."""
    value: Any = torch
    for part in path.split("."):
        value = getattr(value, part)
    return value if callable(value) else value.__get__  # type: ignore[no-any-return]


def public_callables() -> Iterator[tuple[str, str]]:
    """Every public callable of the namespaces, with its dispatcher name (which need not exist)."""
    for prefix, namespace, dispatched in NAMESPACES:
        for short in sorted(dir(namespace)):
            value = getattr(namespace, short)
            if short.startswith("_") or not callable(value) or inspect.isclass(value) or inspect.ismodule(value):
                continue
            if type(value).__module__.startswith("torch._ops"):
                continue
            name = prefix + short
            yield name, _DISPATCHED.get(name, dispatched + short)
    yield from _ATTRIBUTES.items()
    yield from ((name, name) for name in _ELSEWHERE)


@cache
def _dispatcher() -> dict[str, list[Any]]:
    overloads: dict[str, list[Any]] = defaultdict(list)
    for whole in torch._C._dispatch_get_all_op_names():
        namespace, _, rest = whole.partition("::")
        base, _, overload = rest.partition(".")
        if namespace == "aten":
            overloads[base].append(getattr(getattr(torch.ops.aten, base), overload or "default"))
    # The order of registration, which is that of native_functions.yaml, differs between builds.
    return {base: sorted(members, key=_plainness) for base, members in overloads.items()}


def _plainness(overload: Any) -> tuple[int, str]:
    return (0 if overload._overloadname == "default" else 1, overload._overloadname)


@cache
def included_and_excluded() -> tuple[dict[str, tuple[Any, ...]], dict[str, str]]:
    """Public name → overloads that stay; and public name → the class of exclusion of those that do not."""
    included: dict[str, tuple[Any, ...]] = {}
    out: dict[str, str] = {}
    for name, base in public_callables():
        exclusion = exclusion_of(name)
        if exclusion is not None:
            out[name] = exclusion.name
            continue
        reasons: list[Exclusion] = []
        overloads = []
        for overload in _dispatcher().get(base, []):
            reason = schema_exclusion(overload._schema)
            if reason is None:
                overloads.append(overload)
            else:
                reasons.append(reason)
        if overloads or _is_described(name):
            included[name] = tuple(overloads)
        else:
            out[name] = reasons[0].name if reasons else "unknown"
    return included, out


def _is_described(name: str) -> bool:
    """Whether its arguments are known without the dispatcher."""
    if name in WRITTEN or name in ("Tensor.lu", "Tensor.unique"):
        return True
    return name.startswith(("nn.functional.", "masked.")) and inspect.isfunction(resolve(name))


@cache
def _sample_names() -> dict[str, tuple[str, ...]]:
    """OpInfo name → the names that PyTorch's own tests hold to be the same operation."""
    own = {info.name for info in opinfos()}
    names: dict[str, tuple[str, ...]] = {}
    for info in opinfos():
        aliases = tuple(alias.name.removeprefix("torch.") for alias in info.aliases)
        names.setdefault(info.name, tuple(a for a in aliases if a not in own))
    return names


def groups() -> list[Group]:
    """The operations, sorted by name."""
    included, _ = included_and_excluded()
    bases = dict(public_callables())
    parent: dict[str, str] = {name: name for name in included}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    def join(*names: str) -> None:
        for other in names[1:]:
            parent[root(other)] = root(names[0])

    by_base: dict[str, str] = {}
    for name in included:
        first = by_base.setdefault(bases[name], name)
        join(first, name)
    for pair in _EQUAL:
        join(*pair)
    for name, aliases in _sample_names().items():
        whole = name if name in included else f"Tensor.{name}"
        if whole in included:
            join(whole, name, *(a for a in aliases if a in included))
    members: dict[str, list[str]] = defaultdict(list)
    for name in parent:
        members[root(name)].append(name)
    merged = [_group(sorted(names), included) for names in members.values() if any(name in included for name in names)]
    return sorted(merged, key=lambda group: group.name)


def _group(names: list[str], included: dict[str, tuple[Any, ...]]) -> Group:
    name = min(names, key=_rank)
    written = {n.removeprefix("Tensor.") for n in names} | set(names)
    canonical = name.removeprefix("Tensor.")
    path = name if name in included else f"Tensor.{name}"
    if path not in included:
        path = min((n for n in names if n in included), key=_rank)
    aliases = sorted(n for n in written if n != canonical and (n not in included or n in names))
    return Group(canonical, path, tuple(aliases), included[path])


def _rank(name: str) -> tuple[int, int, int, str]:
    """Canonical names first: OpInfo's, then `nn.functional`, then the shortest namespace."""
    sampled = name in _sample_names()
    home = 3 if name.startswith("Tensor.") else 0 if name.startswith("nn.functional.") else 1
    first = -1 if any(name == names[0] for names in _EQUAL) else 0 if sampled and not name.startswith("_") else 1
    return (first, home if first == 1 else 0, len(name), name)
