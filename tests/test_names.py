"""Names tell a stranger what is inside: words that say nothing are no names of variables, arguments or files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.test_floors import APP, ROOT, modules

# What was found, given, told or made has a name of its own: gradients, rows, verdict, tensors.
SAYS_NOTHING: Final = frozenset({"found", "given", "told", "made", "stuff", "thing", "things"})
# Words that the field has others for: backward, expected, kink, differentiable, stored function, worker slot, endpoint, supervisor, recording.
RETIRED: Final = frozenset(
    {
        "pull",
        "pulled",
        "pulls",
        "belief",
        "beliefs",
        "theirs",
        "bend",
        "bends",
        "smooth",
        "widened",
        "kept",
        "door",
        "crew",
        "nursery",
    }
    | {"sweep", "survey", "tape"}
)
# As a whole name: num_vectors, rows, members. `is_one_of_several` says something.
RETIRED_WHOLE: Final = frozenset({"several", "Several", "tmp"})
# Names that others have chosen: asyncio's callback, the status 404, pytest's folder; and a public field of the catalogue's pages.
OF_OTHERS: Final = frozenset({"connection_made", "not_found", "several"})
# `given` is a field of every refusal (docs/contract.md, section 6): what makes one has an argument of that name.
FIELD_OF_A_REFUSAL: Final = frozenset({"given"})
# Words that would have two meanings: a kernel is PyTorch's, never Linux's (`linux`); the road is that of a query (app/road.py), and what
# is computed another way is a reference; a place is where something stands in what the client sent, a text or a query's tree (of a tensor
# it is an element or an index, of a slab a span); a slot is a worker's (of a graph's values it is a register). Word → where in `app` it
# names something.
ONE_MEANING: Final = {
    "kernel": ("catalogue/", "engine/"),
    "road": ("road.py", "pool/"),
    "place": (
        "program/",
        "protocols/",
        "catalogue/kernels/unsafe_values.py",
        "engine/check/mistakes/",
        "engine/errors.py",
        "engine/explain/branches.py",
    ),
    "slot": ("pool/", "front/endpoints/limits_page.py"),
}
# Python's and PyTorch's own words.
ANOTHER_WORD: Final = re.compile(r"__slots__|_?in_?place", re.IGNORECASE)
NO_FILES: Final = frozenset(
    {"utils", "util", "common", "helpers", "misc", "core", "survey", "local", "widened", "places", "nursery", "gate", "tape"}
)
WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


@cache  # both tests ask
def _named(tree: ast.AST) -> list[tuple[str, int]]:
    return list(_each_named(list(ast.walk(tree))))


def _each_named(nodes: Sequence[ast.AST]) -> Iterator[tuple[str, int]]:
    """Names that are assigned to, defined or bound, and arguments but for those that a refusal has; a test's name is a sentence."""
    fields = {
        id(field.target)
        for kind in nodes
        if isinstance(kind, ast.ClassDef)
        for field in kind.body
        if isinstance(field, ast.AnnAssign)
    }
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            if not (id(node) in fields and node.id in OF_OTHERS):
                yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if node.attr not in FIELD_OF_A_REFUSAL:
                yield node.attr, node.lineno
        elif isinstance(node, ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.alias | ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
            name = node.asname if isinstance(node, ast.alias) else node.name
            if name is not None:
                yield name, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            if not isinstance(node, ast.Lambda) and not node.name.startswith("test_") and node.name not in OF_OTHERS:
                yield node.name, node.lineno
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            refuses = any(a.arg in ("detail", "expected", "fix") for a in arguments)
            yield from ((a.arg, a.lineno) for a in arguments if not (refuses and a.arg in FIELD_OF_A_REFUSAL))


@cache
def _is_bad(name: str) -> bool:
    return name in RETIRED_WHOLE or not {word.lower() for word in WORD.findall(name)}.isdisjoint(SAYS_NOTHING | RETIRED)


def offenders(tree: ast.AST) -> list[tuple[int, str]]:
    """Line and name of each identifier that is, or has in it, a word that says nothing or that the field has another for."""
    return [(line, name) for name, line in _named(tree) if _is_bad(name)]


def test_names_say_something() -> None:
    trees = {module.path: module.tree for module in modules().values()}
    others = [path for folder in ("tests", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
    trees |= {path: ast.parse(path.read_text()) for path in others}
    bad = [f"{path.relative_to(ROOT)}:{line}: `{name}`" for path, tree in trees.items() for line, name in offenders(tree)]
    assert not bad, "\n".join(bad)


def strangers(tree: ast.AST, path: str) -> list[str]:
    """Names in a file of `app` with a word that means something else where the word is at home; one that is imported as another too."""
    return [
        f"{path}:{line}: `{name}`"
        for name, line in _named(tree)
        for word, homes in ONE_MEANING.items()
        if {word, f"{word}s"} & {each.lower() for each in WORD.findall(ANOTHER_WORD.sub("", name))}
        and not path.startswith(homes)
    ]


def test_a_word_has_one_meaning() -> None:
    bad = [each for module in modules().values() for each in strangers(module.tree, str(module.path.relative_to(APP)))]
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("from app.pool import linux as kernel", "main.py"),
        ("class _Road: ...", "engine/confirmation.py"),
        ("road = 1", "front/wire.py"),
        ("places = 1", "engine/check/agreement.py"),
        ("class _Slot: ...", "engine/joint/recording.py"),
    ],
)
def test_a_planted_second_meaning_is_seen(text: str, path: str) -> None:
    assert strangers(ast.parse(text), path)


@pytest.mark.parametrize(
    "planted",
    [
        "told = 1",
        "def f(found): ...",
        "class Kept: ...",
        "for row_bends in (): ...",
        "x.theirs = 1",
        "lambda given: 1",
        "several = 2",
    ],
)
def test_a_planted_name_is_seen(planted: str) -> None:
    assert offenders(ast.parse(planted))


def test_words_of_others_are_let_through() -> None:
    text = "class Output:\n    several: bool = False\ndef not_found(): ...\ndef refused(detail, given): ...\ndef test_it_is_told(): ..."
    assert not offenders(ast.parse(text))


def test_no_file_is_called_after_nothing() -> None:
    files: list[Path] = sorted(APP.rglob("*.py"))
    assert not [str(path) for path in files if path.stem in NO_FILES]
