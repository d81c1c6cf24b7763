"""check on random programs: right derivations in several precisions are never called wrong, planted mistakes never right, nor by a wrong name."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from app.engine.check.report import check
from app.engine.stepwise.point import Points
from app.program.compiler import build_program
from tests.engine.building import program as build
from tests.oracle.programs import SIZE, program

# A hundred of each, ten in a test: about 50 ms each, more where a mistake is looked for.
GROUPS, TOGETHER = 10, 10
KINDS = (
    "float64", "float32", "float32 as plain numbers", "six digits", "four digits", "four digits in float32",
    "central differences", "eight digits", "seventeen digits", "six decimals", "eight digits of float32",
)  # fmt: skip
MISTAKES = ("sign", "scale", "zero", "add", "all signs", "factor", "noise")
# A factor and a sign have names, which are among those that fit; a single element that is off has none.
NAMES: dict[str, str] = {"all signs": "sign", "factor": "constant_factor"}
OF_LARGEST = 1e-6  # an element below this share of the largest is rounding, and no mistake is planted there
FACTORS = (2.0, 0.5, 1.01, 3.7)


def point(seed: int) -> dict[str, Tensor]:
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"v": (SIZE,), "w": (SIZE,), "m": (SIZE, SIZE)}
    return {name: torch.from_numpy(rng.normal(size=shape)) for name, shape in shapes.items()}


def text_of(seed: int) -> str:
    """A program of one real number."""
    text = program(seed).text
    if program(seed).scalar:
        return text
    *lines, last = text.split("\n")
    return "\n".join((*lines, f"return ({last.removeprefix('return ')}).sum()"))


def derivative(text: str, leaves: dict[str, Tensor], name: str, dtype: torch.dtype = torch.float64) -> Tensor:
    moved = {other: leaf.to(dtype).requires_grad_() for other, leaf in leaves.items()}
    (value,) = build_program(text, moved, {}, dtype).call(*moved.values())
    (gradient,) = torch.autograd.grad(value, [moved[name]], allow_unused=True)
    return torch.zeros_like(leaves[name]) if gradient is None else gradient


def rounded(numbers: Tensor, digits: int) -> Tensor:
    printed = [float(f"{v:.{digits}g}") for v in numbers.reshape(-1).tolist()]
    return torch.tensor(printed, dtype=torch.float64).reshape(numbers.shape)


def differences(text: str, leaves: dict[str, Tensor], name: str) -> Tensor:
    """As a person makes them: central, with a step of 1e-6."""
    function, out = build(text, leaves), torch.zeros(leaves[name].numel(), dtype=torch.float64)
    for index in range(len(out)):
        sides = []
        for step in (1e-6, -1e-6):
            leaf = leaves[name].clone()
            leaf.reshape(-1)[index] += step
            sides.append(float(function.call(*{**leaves, name: leaf}.values())[0]))
        out[index] = (sides[0] - sides[1]) / 2e-6
    return out.reshape(leaves[name].shape)


def derivation(kind: str, text: str, leaves: dict[str, Tensor], name: str) -> Tensor:
    if kind == "central differences":
        return differences(text, leaves, name)
    if "float32" in kind and "four" not in kind:
        narrow = derivative(text, leaves, name, torch.float32)
        return {"float32": narrow, "float32 as plain numbers": narrow.double()}.get(kind, rounded(narrow.double(), 8))
    right = derivative(text, leaves, name)
    if kind == "float64":
        return right
    if kind == "six decimals":
        return torch.tensor([round(v, 6) for v in right.reshape(-1).tolist()], dtype=torch.float64).reshape(right.shape)
    digits = {"six digits": 6, "eight digits": 8, "seventeen digits": 17}.get(kind, 4)
    return rounded(right, 4).float() if kind == "four digits in float32" else rounded(right, digits)


def verdict(text: str, leaves: dict[str, Tensor], name: str, expected: Tensor) -> dict[str, Any]:
    report: dict[str, Any] = check(Points(build(text, leaves), leaves), (name,), None, {name: expected}, None, "gradient")[name]
    return report


def cases(group: int) -> list[tuple[int, str, dict[str, Tensor], str, random.Random]]:
    drawn = []
    for seed in range(3000 + group * TOGETHER, 3000 + (group + 1) * TOGETHER):
        rng = random.Random(seed)
        drawn.append((seed, text_of(seed), point(seed), rng.choice("vwm"), rng))
    return drawn


@pytest.mark.parametrize("group", range(GROUPS))
@pytest.mark.share(4)
def test_a_right_derivation_is_never_called_wrong(group: int) -> None:
    confirmed = 0
    for seed, text, leaves, name, rng in cases(group):
        kind = rng.choice(KINDS)
        report = verdict(text, leaves, name, derivation(kind, text, leaves, name))
        assert report["agrees"] is not False, (seed, kind, name, text, report)
        confirmed += report["agrees"] is True
    assert confirmed >= TOGETHER - 2


def planted(mistake: str, right: Tensor, rng: random.Random) -> Tensor | None:
    """`right` with a mistake in it; None where there is nothing to be mistaken in."""
    wrong = right.clone().reshape(-1)
    largest = float(wrong.abs().max())
    places = [k for k, value in enumerate(wrong.tolist()) if abs(value) > OF_LARGEST * largest]
    if len(places) < 2 or largest < OF_LARGEST:
        return None
    at = rng.choice(places)
    if mistake in ("all signs", "factor"):
        wrong *= -1 if mistake == "all signs" else rng.choice(FACTORS)
    elif mistake == "noise":
        wrong *= 1 + 0.05 * torch.tensor([rng.gauss(0, 1) for _ in wrong], dtype=torch.float64)
    else:
        own = float(wrong[at])
        wrong[at] = {"sign": -own, "scale": own * rng.choice((1.001, 1.1, 2.3)), "zero": 0.0, "add": own + 0.01 * largest}[
            mistake
        ]
    return wrong.reshape(right.shape)


@pytest.mark.parametrize("group", range(GROUPS))
@pytest.mark.share(4)
def test_a_mistake_is_never_called_right_nor_by_a_wrong_name(group: int) -> None:
    seen = 0
    for seed, text, leaves, name, rng in cases(group):
        mistake = rng.choice(MISTAKES)
        wrong = planted(mistake, derivative(text, leaves, name), rng)
        if wrong is None:
            continue
        report = verdict(text, leaves, name, wrong)
        assert report["agrees"] is False, (seed, mistake, name, text, report)
        names = {claim["code"] for claim in (report.get("likely"), *report["also_possible"]) if claim is not None}
        assert NAMES[mistake] in names if mistake in NAMES else not names, (seed, mistake, name, text, report)
        seen += 1
    assert seen >= TOGETHER // 4  # the others have nothing to be mistaken in
