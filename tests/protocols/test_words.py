"""The words of a foreign protocol stand in its room alone: elsewhere one concept has one name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
ROOMS: Final = frozenset({"oip", "umbridge", "tesseract"})
# `apply` is a word of PyTorch's too, of modules and of `autograd.Function`: nothing of ours is called so; as an address it is Tesseract's.
WORDS: Final = (
    "infer", "datatype", "binary_data", "binary_data_size", "tritonclient", "Evaluate", "ModelInfo", "InputSizes",
    "OutputSizes", "ApplyJacobian", "ApplyHessian", "outWrt", "inWrt", "sens", "/apply", "abstract_eval", "jac_inputs",
    "jacobian_vector_product", "vector_jacobian_product", "cotangent_vector", "tangent_vector", "differentiable_arrays",
)  # fmt: skip


def _sources() -> Iterator[Path]:
    """Ours, without the rooms, the carried pages' scripts and the programs in the query language."""
    for path in sorted((ROOT / "app").rglob("*.py")):
        if not ROOMS & set(path.relative_to(ROOT).parts) and "functions" not in path.relative_to(ROOT).parts[:-1]:
            yield path


@cache
def _nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def _said(path: Path) -> Iterator[tuple[int, str]]:
    """Names and strings of a module, with their lines; names that PyTorch uses as well, as words of its own, stay out."""
    yield from _named(path)
    for node in _nodes(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def _named(path: Path) -> Iterator[tuple[int, str]]:
    """What a module calls its variables, arguments, functions and classes."""
    for node in _nodes(path):
        if isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name


def test_foreign_words_stand_in_their_rooms() -> None:
    word = re.compile(rf"(?<![\w-])(?:{'|'.join(WORDS)})(?![\w-])")
    offenders = [
        f"{path.relative_to(ROOT)}:{line}: {match[0]}"
        for path in _sources()
        for line, text in _said(path)
        if (match := word.search(text))
    ]
    assert not offenders, "\n".join(offenders)


def test_nothing_of_ours_is_called_apply() -> None:
    offenders = [
        f"{path.relative_to(ROOT)}:{line}" for path in _sources() for line, name in _named(path) if name.strip("_") == "apply"
    ]
    assert not offenders, "\n".join(offenders)


def test_the_rooms_know_nothing_of_each_other() -> None:
    offenders = [
        f"{path.relative_to(ROOT)} imports {node.module}"
        for room in ROOMS
        for path in sorted((ROOT / "app" / "protocols" / room).glob("*.py"))
        for node in _nodes(path)
        if isinstance(node, ast.ImportFrom)
        and any((node.module or "").startswith(f"app.protocols.{other}") for other in (*ROOMS - {room}, "native"))
    ]
    assert not offenders, "\n".join(offenders)
