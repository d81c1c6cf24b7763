"""Names tell a stranger what is inside: words that say nothing are no names of variables, arguments or files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.test_floors import APP, ROOT, modules

# What was found, given, told or made has a name of its own: gradients, rows, verdict, tensors.
SAYS_NOTHING: Final = frozenset({"found", "given", "told", "made", "tmp", "stuff", "thing", "things"})
# `given` is a field of every refusal (docs/contract.md, section 6): what makes one has an argument of that name.
FIELD_OF_A_REFUSAL: Final = frozenset({"given"})
# Words that the field has others for: backward, expected, supervisor, worker slot, MultiOutput.
RETIRED: Final = frozenset({"pull", "pulled", "belief", "crew", "nursery", "sweep", "survey", "Several"})
NO_FILES: Final = frozenset(
    {"utils", "util", "common", "helpers", "misc", "core", "survey", "local", "widened", "places", "nursery", "gate"}
)


def _named(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that are assigned to or defined, and arguments but for those that a refusal has."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.ClassDef):
            yield node.name.lstrip("_"), node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            if not isinstance(node, ast.Lambda):
                yield node.name.lstrip("_"), node.lineno
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            refuses = any(a.arg in ("detail", "expected", "fix") for a in arguments)
            yield from ((a.arg, a.lineno) for a in arguments if not (refuses and a.arg in FIELD_OF_A_REFUSAL))


def test_names_say_something() -> None:
    offenders = [
        f"{module.path.relative_to(ROOT)}:{line}: `{name}`"
        for module in modules().values()
        for name, line in _named(module.tree)
        if name in SAYS_NOTHING | RETIRED
    ]
    assert not offenders, "\n".join(offenders)


def test_no_file_is_called_after_nothing() -> None:
    files: list[Path] = sorted(APP.rglob("*.py"))
    assert not [str(path) for path in files if path.stem in NO_FILES]
