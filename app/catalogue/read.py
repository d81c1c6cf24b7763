"""The frozen catalogue: operations by name, by alias, and by what they mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson

from app.catalogue.entry import Argument, Operation, Output, Signature
from app.errors import PullbackError

FILE: Final = Path(__file__).with_name("operations.json")
# What people write before a name, and what the catalogue has in its place.
_PREFIXES: Final = (
    ("torch.nn.functional.", "nn.functional."),
    ("torch.functional.", ""),
    ("torch.", ""),
    ("F.", "nn.functional."),
    ("functional.", "nn.functional."),
    ("aten.", ""),
)
# Names that a refusal offers: nine in ten have 27 characters at most, so that they fit on a line and a half.
_NEAREST: Final = 4
SEARCH_LIMIT: Final = 128  # of a search, in characters: more than twice the longest name of an operation


class _Operations(Mapping[str, Operation]):
    """Canonical name → operation; an entry is built when it is first read."""

    def __init__(self, raw: list[dict[str, Any]]) -> None:
        self._raw = {entry["name"]: entry for entry in raw}
        self._built: dict[str, Operation] = {}

    def __getitem__(self, name: str) -> Operation:
        operation = self._built.get(name)
        if operation is None:
            operation = self._built[name] = _operation(self._raw[name])
        return operation

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def raw(self) -> Mapping[str, Mapping[str, Any]]:
        """The entries as they stand in the file."""
        return self._raw


@cache
def _catalogue() -> _Operations:
    return _Operations(orjson.loads(FILE.read_bytes())["operations"])


def operations() -> Mapping[str, Operation]:
    """Every operation by its canonical name, in the file's order (by name)."""
    return _catalogue()


def find(name: str) -> Operation:
    """The operation that `name` means: canonical, an alias, with a written prefix (`torch.`, `F.`, `Tensor.`), or short where unambiguous.

    Raises:
        PullbackError: `unknown_operation`, with the nearest names.
    """
    canonical = _resolved(name)
    if canonical is None:
        raise _unknown(name)
    return _catalogue()[canonical]


def _resolved(name: str) -> str | None:
    names = _names()
    if name in names:
        return names[name]
    for written, ours in _PREFIXES:
        if name.startswith(written):
            name = ours + name.removeprefix(written)
            break
    return names.get(name) or names.get(name.removeprefix("Tensor.")) if name.startswith("Tensor.") else names.get(name)


@cache
def _names() -> dict[str, str]:
    """Every accepted name → canonical name: canonical names first, then aliases, then short names that mean one operation only."""
    names: dict[str, str] = {}
    raw = _catalogue().raw()
    names.update((name, name) for name in raw)
    for name, entry in raw.items():
        for alias in entry["aliases"]:
            names.setdefault(alias, name)
    short: dict[str, set[str]] = {}
    for name, canonical in names.items():
        short.setdefault(name.rpartition(".")[2], set()).add(canonical)
    for name, meant in short.items():
        if len(meant) == 1:
            names.setdefault(name, next(iter(meant)))
    return names


def _unknown(name: str) -> PullbackError:
    near = nearest(name)
    return PullbackError(
        "unknown_operation",
        f"There is no operation `{name[:80]}`." + (f" The nearest names are {', '.join(near)}." if near else ""),
        at="operation",
        expected="a name of the catalogue",
        given=name,
        fix=f'Send "operation": "{near[0]}", or look it up: GET /v1/operations?search=….'
        if near
        else "Look it up: GET /v1/operations?search=….",
    )


def nearest(name: str) -> list[str]:
    """Canonical names that are spelt like `name`, the nearest first; at most four."""
    wanted = name.removeprefix("torch.")[:100].lower()
    names = _names()
    matches = difflib.get_close_matches(wanted, names, n=2 * _NEAREST, cutoff=0.6)
    short = {known.rpartition(".")[2]: canonical for known, canonical in names.items()}
    matches += difflib.get_close_matches(wanted.rpartition(".")[2], short, n=2 * _NEAREST, cutoff=0.7)
    return list(dict.fromkeys(names.get(f, short.get(f, f)) for f in matches))[:_NEAREST]


def search(text: str = "", differentiable: bool | None = None) -> list[Operation]:
    """Operations by name and meaning, the best first; all of them for an empty text.

    Arguments:
        text: words that must all occur in name, aliases, summary or keywords.
        differentiable: only those that have (or have not) a derivative.
    """
    words = text.lower().replace("torch.", "").split()
    ranked = []
    for name, (title, aliases, meaning) in _texts().items():
        rank = _rank(words, title, aliases, meaning)
        if rank is None or (differentiable is not None and (_catalogue().raw()[name]["order"] > 0) is not differentiable):
            continue
        ranked.append((rank, len(name) if words else 0, name))
    return [_catalogue()[name] for _, _, name in sorted(ranked, key=lambda entry: entry[:2])]


@cache
def without_derivative() -> frozenset[str]:
    """The operations that PyTorch has no derivative of, nor a formula that refuses."""
    return frozenset(name for name, entry in _catalogue().raw().items() if not entry["order"] and not entry["formula"])


@cache
def _texts() -> dict[str, tuple[str, tuple[str, ...], str]]:
    return {
        name: (
            name.lower(),
            tuple(alias.lower() for alias in entry["aliases"]),
            f"{name} {' '.join(entry['aliases'])} {entry['keywords']} {entry['summary']} {' '.join(entry['tags'])}".lower().replace(
                "-", " "
            ),
        )
        for name, entry in _catalogue().raw().items()
    }


def _rank(words: list[str], title: str, aliases: tuple[str, ...], meaning: str) -> int | None:
    """Smaller is better; None where a word is missing."""
    text = meaning + " " + title.replace("_", " ")
    if not all(word in text or word.replace("-", " ") in text for word in words):
        return None
    whole, joined = " ".join(words), "_".join(words)
    short = title.rpartition(".")[2]
    if joined in (title, short):
        return 0
    if any(joined in (alias, alias.rpartition(".")[2]) for alias in aliases):
        return 1
    if joined in title:
        return 2 if short.startswith(joined) else 3
    return 4 if whole in text else 5


def _operation(raw: Mapping[str, Any]) -> Operation:
    return Operation(
        name=raw["name"],
        path=raw["path"],
        call=raw["call"],
        summary=raw["summary"],
        documentation=raw["documentation"],
        tags=tuple(raw["tags"]),
        aliases=tuple(raw["aliases"]),
        order=raw["order"],
        signatures=tuple(
            Signature(
                tuple(
                    Argument(**{**argument, "default": _frozen(argument.get("default"))}) for argument in signature["arguments"]
                ),
                tuple(Output(**output) for output in signature["outputs"]),
            )
            for signature in raw["signatures"]
        ),
        formula=raw["formula"],
        example=raw["example"],
        keywords=raw["keywords"],
    )


def _frozen(value: Any) -> Any:
    return tuple(_frozen(member) for member in value) if isinstance(value, list) else value
