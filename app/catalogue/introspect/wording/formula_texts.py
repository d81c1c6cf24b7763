"""Derivative formulas as text, from PyTorch's own derivatives.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import torchgen  # type: ignore[import-untyped]

_STEPS: Final = 4  # a composite of more steps than this has no formula worth reading


def derivatives() -> Iterable[Mapping[str, Any]]:
    """The entries of the derivatives.yaml that PyTorch's wheel carries: dispatch key → torchgen's DifferentiabilityInfo."""
    from torchgen.packaged.autograd.load_derivatives import load_derivatives  # type: ignore[import-untyped]

    packaged = Path(torchgen.__file__).parent / "packaged"
    native = packaged / "ATen" / "native"
    infos, _ = load_derivatives(
        str(packaged / "autograd" / "derivatives.yaml"), str(native / "native_functions.yaml"), str(native / "tags.yaml")
    )
    entries: Iterable[Mapping[str, Any]] = infos.values()
    return entries


@cache
def _table() -> dict[str, tuple[str, str]]:
    """grad_fn name → (backward, forward) text."""
    table: dict[str, tuple[str, str]] = {}
    for by_dispatch in derivatives():
        info = by_dispatch.get("Default")
        if info is not None and info.op is not None:
            table[info.op] = (_backward(info), _forward(info))
    return table


def _backward(info: Any) -> str:
    texts = [f"{_named(', '.join(d.var_names))}: {_clean(d.original_formula)}" for d in info.derivatives]
    return texts[0].partition(": ")[2] if len(texts) == 1 else "; ".join(texts)


def _forward(info: Any) -> str:
    texts = [f"{', '.join(d.var_names)}: {_clean(d.formula)}" for d in info.forward_derivatives]
    return texts[0].partition(": ")[2] if len(texts) == 1 else "; ".join(texts)


def _clean(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip().replace("_symint", "")
    guarded = re.fullmatch(r"grad\.defined\(\) \? (.*) : (?:std::tuple<.*>|Tensor)\(\)", text)
    return _named(guarded[1] if guarded else text)


def _named(text: str) -> str:
    return re.sub(r"\bself(_[tp])?\b", lambda match: "input" + (match[1] or ""), text)


def formula(nodes: Iterable[str]) -> dict[str, str] | None:
    """The formula behind these grad_fns: bare for one, each with its step's name for a few, None for none or many."""
    table = _table()
    known = {name: table[name] for name in nodes if name in table}
    if not known or len(known) > _STEPS:
        return None
    if len(set(known.values())) == 1:
        backward, forward = next(iter(known.values()))
    else:
        backward = "; ".join(dict.fromkeys(f"{_step(name)} → {texts[0]}" for name, texts in known.items()))
        forward = "; ".join(dict.fromkeys(f"{_step(name)} → {texts[1]}" for name, texts in known.items() if texts[1]))
    return {"backward": backward, **({"forward": forward} if forward else {})}


def _step(node: str) -> str:
    return re.sub(r"Backward\d*$", "", node)
