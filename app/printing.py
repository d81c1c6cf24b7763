"""An answer as text that a person reads: tensors as NumPy shows them, notes, the differentiability report, the check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.printing_reports import check_text, explain_text, precision_text
from app.query import REPORTS

_WHOLE: Final = 100  # elements that are all shown: some ten lines of a terminal
_DIGITS: Final = 6  # significant ones, as C's %g
_ENTRIES: Final = 20  # of a sparse result that are all shown, a line each
_NO_TENSORS: Final = REPORTS | {"notes", "plan", "complex"}


def answer_text(answer: Mapping[str, Any]) -> str:
    """The whole answer: values and derivatives first, then notes, then how it was computed."""
    sections = [*_results(answer), *_reports(answer), *_notes(answer.get("notes", ())), *_plan(answer.get("plan") or {})]
    return "\n\n".join(sections)


def _reports(answer: Mapping[str, Any]) -> Iterator[str]:
    if answer.get("explain"):
        yield explain_text(answer["explain"])
    if answer.get("check"):
        yield check_text(answer["check"])
    if answer.get("precision"):
        yield precision_text(answer["precision"])


def problem_text(problem: Mapping[str, Any]) -> str:
    """A refusal: where, what was expected, what was given, how to fix it."""
    where = f"At {problem['at']}: " if problem.get("at") else ""
    lines = [f"{problem.get('status', '')} {problem.get('code', '')} — {where}{problem.get('detail', '')}".strip()]
    lines += [f"  {name}: {problem[name]}" for name in ("expected", "given", "fix") if problem.get(name)]
    return "\n".join(lines)


def _results(answer: Mapping[str, Any]) -> Iterator[str]:
    for kind, tree in answer.items():
        if kind not in _NO_TENSORS:
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
    """A tensor under its name: its shape and dtype, then its elements."""
    shape = list(tensor["shape"])
    head = f"{name}  {tensor['dtype']}{shape if shape else ''}"
    if tensor.get("layout") == "coo":
        return "\n".join([f"{head}, sparse: {_sparse_text(tensor)}", *(f"  {line}" for line in _entries(tensor))])
    data = tensor.get("data")
    if isinstance(data, str) and (shape or data not in ("NaN", "Infinity", "-Infinity")):
        return f"{head}\n  (base64, {len(data)} characters)"
    text = _array_text(_array(data, shape, tensor["dtype"]))
    return f"{head} = {text}" if not shape else "\n".join([head, *(f"  {line}" for line in text.splitlines())])


def _sparse_text(tensor: Mapping[str, Any]) -> str:
    count = tensor["values"]["shape"][0]
    where = {"everywhere": "the pattern holds for any values", "here": "the pattern holds at this point"}[tensor["holds"]]
    return f"{count} {'entry' if count == 1 else 'entries'}; {where}"


def _entries(tensor: Mapping[str, Any]) -> Iterator[str]:
    """`[0, 1]  2.5`, an entry a line; of many the first and the last."""
    values, indices = tensor["values"], tensor["indices"]
    if isinstance(values["data"], str) or isinstance(indices["data"], str):
        yield f"(base64, {len(values['data'])} characters)"
        return
    indices_of_entries = np.array(indices["data"], dtype=np.int64).reshape(indices["shape"])
    numbers = _array(values["data"], values["shape"], values["dtype"])
    count = len(numbers)
    shown = range(count) if count <= _ENTRIES else [*range(_ENTRIES // 2), -1, *range(count - _ENTRIES // 2, count)]
    for entry in shown:
        yield "…" if entry < 0 else f"[{', '.join(map(str, indices_of_entries[:, entry]))}]  {_array_text(numbers[entry])}"


def _array(data: Any, shape: list[int], dtype: str) -> NDArray[Any]:
    """The elements as NumPy holds them; JSON's `NaN` and `Infinity` as numbers, pairs as complex ones."""
    if dtype == "bool" or "int" in dtype:
        return np.array(data, dtype=dtype).reshape(shape)
    parts = np.array(data, dtype=object).astype(np.float64)
    if dtype.startswith("complex"):
        pairs = parts.reshape((*shape, 2))
        return np.asarray(pairs[..., 0] + 1j * pairs[..., 1])
    return parts.reshape(shape)


def _array_text(array: NDArray[Any]) -> str:
    # Larger tensors are shown by their corners.
    with np.printoptions(precision=_DIGITS, threshold=_WHOLE, edgeitems=3, linewidth=100, nanstr="NaN", infstr="Infinity"):
        return np.array2string(array).strip()


def _notes(notes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for note in notes:
        where = f" ({note['at']})" if note.get("at") else ""
        yield f"Note{where}: {note['message']}"


def _plan(plan: Mapping[str, Any]) -> Iterator[str]:
    if plan:
        yield "Plan: " + ", ".join(f"{name} {value}" for name, value in plan.items() if not isinstance(value, Mapping | list))
