"""`precision` against mpmath: how many digits of each derivative are right, which line lost them, and whether the better formula mends it."""

from __future__ import annotations

import ast
import inspect
import math
import random
from collections.abc import Iterator
from typing import Any

import mpmath as mp
import pytest
import torch
from torch import Tensor

from app.engine.precision.digits import full_digits
from app.errors import PullbackError
from app.query import Query, TensorData
from tests.engine.asking import ENGINE, array
from tests.oracle.lost_digits import CASES, Case
from tests.oracle.lost_digits_of_programs import CASES as OF_PROGRAMS

SAMPLE = 90  # of some 390 points; the whole takes 30 s of processor time
POINTS = [(case, index) for case in (*CASES, *OF_PROGRAMS) for index in range(len(case.points))]
CHOSEN = random.Random(8).sample(POINTS, SAMPLE)
# What float64 itself cannot hold, a matter of how far the numbers are stretched.
DIGITS = 200


def _data(tensor: Tensor) -> TensorData:
    plain = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
    name = str(tensor.dtype).removeprefix("torch.")
    return TensorData(name, tuple(tensor.shape), memoryview(bytearray(plain.numpy().tobytes())))


def _inputs(case: Case, index: int) -> dict[str, Tensor]:
    dtype, arguments = case.points[index]
    names = [name.rstrip("_") for name in inspect.signature(case.exact).parameters]
    rounded = [torch.tensor(value, dtype=torch.float64).to(getattr(torch, dtype)) for value in arguments]
    return dict(zip(names, rounded, strict=True))


def _ask(text: str, inputs: dict[str, Tensor], *want: str) -> dict[str, Any]:
    data = {name: _data(tensor) for name, tensor in inputs.items()}
    return dict(ENGINE.answer(Query(program=text, inputs=data, want=want)).results)


def _exact(tensor: Tensor) -> Any:
    return [_exact(row) for row in tensor] if tensor.dim() else mp.mpf(tensor.double().item())


def _moved(value: Any, place: tuple[int, ...], step: Any) -> Any:
    if not place:
        return value + step
    return [_moved(row, place[1:], step) if i == place[0] else row for i, row in enumerate(value)]


def _derivatives(case: Case, inputs: dict[str, Tensor]) -> tuple[Any, dict[str, list[Any]]]:
    """The value and every partial derivative, by central differences in hundreds of digits."""
    widest = max(float(tensor.double().abs().max()) for tensor in inputs.values())
    with mp.workdps(1200 if widest > 200 else DIGITS):
        arguments = [_exact(tensor) for tensor in inputs.values()]
        step = mp.mpf(10) ** (-mp.mp.dps // 4)
        rows = {}
        for position, (name, tensor) in enumerate(inputs.items()):
            row = []
            for place in (
                torch.cartesian_prod(*map(torch.arange, tensor.shape)).reshape(-1, tensor.dim()).tolist()
                if tensor.dim()
                else [()]
            ):
                at = tensor[tuple(place)].double().item()
                h = step * (abs(mp.mpf(at)) if at else 1)
                low, high = (
                    case.exact(*(_moved(a, tuple(place), s) if i == position else a for i, a in enumerate(arguments)))
                    for s in (-h, h)
                )
                row.append((high - low) / (2 * h))
            rows[name] = row
        return case.exact(*arguments), rows


def _right(computed: float, exact: Any, whole: float) -> float:
    if not math.isfinite(computed):
        return 0.0
    error = abs(mp.mpf(computed) - exact)
    return whole if error == 0 else max(0.0, min(whole, float(-mp.log10(error / abs(exact)))))


def _worst(values: TensorData, exact: list[Any], dtype: torch.dtype, smallest: float = 0.0) -> float:
    """Right digits of the worst element that is not zero, nor too small for the dtype."""
    whole = full_digits(dtype)
    pairs = zip(array(values).astype(float).reshape(-1).tolist(), exact, strict=True)
    return min(
        (_right(v, e, whole) for v, e in pairs if abs(e) > max(smallest, 1e-300 if dtype == torch.float64 else 1e-45)),
        default=whole,
    )


def _replacements(text: str, line: int, formula: str) -> Iterator[str]:
    """The program with the formula in the place of each part of a line."""
    lines = text.split("\n")
    old = lines[line - 1]
    start = len("return ") if old.startswith("return ") else 0
    for node in ast.walk(ast.parse(old[start:])):
        if isinstance(node, ast.expr) and not (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)):
            assert node.end_col_offset is not None
            new = f"{old[: node.col_offset + start]}({formula}){old[node.end_col_offset + start :]}"
            yield "\n".join([*lines[: line - 1], new, *lines[line:]])


def _mends(
    case: Case, name: str, report: Any, inputs: dict[str, Tensor], value: Any, exact: list[Any], before: tuple[float, float]
) -> bool:
    """Whether some part of the blamed line can be replaced so that derivative and output are the better for it."""
    dtype = inputs[name].dtype
    for text in _replacements(case.text, report["because"]["line"], report["instead"]):
        try:
            results = _ask(text, inputs, "outputs", "gradient")
        except PullbackError:
            continue
        if name not in results["gradient"]:
            continue
        after = (
            _worst(results["gradient"][name], exact, dtype, torch.finfo(dtype).tiny),
            _worst(next(iter(results["outputs"].values())), [value], dtype),
        )
        if sum(after) > sum(before) + 1 and after[0] > before[0] - 1:
            return True
    return False


@pytest.mark.parametrize(("case", "index"), CHOSEN, ids=[f"{case.name}-{index}" for case, index in CHOSEN])
@pytest.mark.share(2)
def test_digits_step_and_way_out(case: Case, index: int) -> None:
    inputs = _inputs(case, index)
    results = _ask(case.text, inputs, "outputs", "gradient", "precision")
    value, derivatives = _derivatives(case, inputs)
    output = next(iter(results["outputs"].values()))
    for name, exact in derivatives.items():
        report, dtype = results["precision"][name], inputs[name].dtype
        whole = full_digits(dtype)
        of_output = _worst(output, [value], dtype)
        if any(0 < abs(each) < torch.finfo(dtype).tiny for each in exact):
            continue  # what the dtype cannot hold is right as a zero, or lost, by what it is beside
        digits = _worst(results["gradient"][name], exact, dtype)
        assert abs(report["digits"]["worst"] - digits) <= 0.5, (name, digits, report)
        lost = whole - min(digits, of_output) > max(1.0, whole / 4) + 1
        if not lost:
            continue
        assert report["because"] is not None, (name, digits, of_output, report)
        if report["instead"] is None:
            continue
        assert case.line is None or report["because"]["line"] == case.line, (name, report)
        assert _mends(case, name, report, inputs, value, exact, (digits, of_output)), (name, report)
