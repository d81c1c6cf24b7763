"""An answer as text that a person reads: tensors as small matrices, notes, the differentiability report, the check.

Knows the JSON of the contract (sections 3 to 6). Refuses to know where an answer comes from, and PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from app.printing_reports import check_text, explain_text

# Larger tensors are shown by their corners, as NumPy does.
_EDGE: Final = 3
_WIDE: Final = 2 * _EDGE
_DIGITS: Final = 6
_PLAIN: Final = frozenset({"notes", "plan", "explain", "check", "complex"})


def answer_text(answer: Mapping[str, Any]) -> str:
    """The whole answer: values and derivatives first, then notes, then how it was computed."""
    sections = [*_results(answer), *_reports(answer), *_notes(answer.get("notes", ())), *_plan(answer.get("plan") or {})]
    return "\n\n".join(sections)


def _reports(answer: Mapping[str, Any]) -> Iterator[str]:
    if answer.get("explain"):
        yield explain_text(answer["explain"])
    if answer.get("check"):
        yield check_text(answer["check"])


def problem_text(problem: Mapping[str, Any]) -> str:
    """A refusal: where, what was expected, what was given, how to fix it."""
    where = f"At {problem['at']}: " if problem.get("at") else ""
    lines = [f"{problem.get('status', '')} {problem.get('code', '')} — {where}{problem.get('detail', '')}".strip()]
    lines += [f"  {name}: {problem[name]}" for name in ("expected", "given", "fix") if problem.get(name)]
    return "\n".join(lines)


def _results(answer: Mapping[str, Any]) -> Iterator[str]:
    for kind, tree in answer.items():
        if kind not in _PLAIN:
            for path, tensor in _leaves(tree, (kind,)):
                yield tensor_text(".".join(path), tensor)


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    if "dtype" in tree and "shape" in tree:
        yield path, tree
        return
    for name, branch in tree.items():
        if isinstance(branch, Mapping):
            yield from _leaves(branch, (*path, name))


def tensor_text(name: str, tensor: Mapping[str, Any]) -> str:
    """A tensor under its name: its shape and dtype, then its elements, the last two axes as a matrix."""
    shape = list(tensor["shape"])
    head = f"{name}  {tensor['dtype']}{shape if shape else ''}"
    data = tensor.get("data")
    if isinstance(data, str):
        return f"{head}\n  (base64, {len(data)} characters)"
    pair = tensor["dtype"].startswith("complex")
    if not shape:
        return f"{head} = {_element(data, pair)}"
    return "\n".join([head, *(f"  {line}" for line in _block(data or [], len(shape), pair, ""))])


def _block(data: Sequence[Any], rank: int, pair: bool, index: str) -> Iterator[str]:
    if rank > 2:
        for number, part in _edges(data):
            if number is None:
                yield "…"
                continue
            here = f"{index}{number}, "
            yield f"[{here}:, :]" if rank == 3 else f"[{here}…]"
            yield from _block(part, rank - 1, pair, here)
        return
    rows = data if rank == 2 else [data]
    table = [["…"] if number is None else _row(row, pair) for number, row in _edges(rows)]
    width = max((len(cell) for row in table for cell in row), default=0)
    for row in table:
        yield "  ".join(f"{cell:>{width}}" for cell in row) if row != ["…"] else f"{'…':>{width}}"
    if not table or not any(table):
        yield "(empty)"


def _row(row: Sequence[Any], pair: bool) -> list[str]:
    return ["…" if number is None else _element(value, pair) for number, value in _edges(row)]


def _edges(values: Sequence[Any]) -> Iterator[tuple[int | None, Any]]:
    """Values with their numbers; of many only the first and the last, and (None, None) for those between."""
    if len(values) <= _WIDE + 1:
        yield from enumerate(values)
        return
    yield from enumerate(values[:_EDGE])
    yield None, None
    yield from enumerate(values[-_EDGE:], len(values) - _EDGE)


def _element(value: Any, pair: bool) -> str:
    if pair and isinstance(value, Sequence) and not isinstance(value, str):
        real, imaginary = (_element(part, pair=False) for part in value)
        return f"{real}{'' if imaginary.startswith('-') else '+'}{imaginary}i"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else str(value)


def _notes(notes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for note in notes:
        where = f" ({note['at']})" if note.get("at") else ""
        yield f"Note{where}: {note['message']}"


def _plan(plan: Mapping[str, Any]) -> Iterator[str]:
    if plan:
        yield "Plan: " + ", ".join(f"{name} {value}" for name, value in plan.items() if not isinstance(value, Mapping | list))
