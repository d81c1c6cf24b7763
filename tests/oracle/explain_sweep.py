"""`python -m tests.oracle.explain_sweep`: thousands of reports of explain beside one-sided differences that share no code with it.

A second run takes up what the first has left, and prints all that both have seen.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from app.catalogue.facts import short, values
from app.engine.planning.build import leaves_of
from app.engine.tensors import from_torch, to_torch
from app.errors import PullbackError
from app.program.function import Function
from app.query import Answer, Query, TensorData
from tests.engine.asking import ENGINE
from tests.oracle import sweeping
from tests.oracle.explain_points import AskedPoint, every

_ELEMENTS: Final = 6  # of each input, the first, the last and some between; chosen
_STEPS: Final = tuple(2.0 ** -(5 + 3 * k) for k in range(13))  # of the element's size, to 2^-41
_SAME: Final = 1e-3
_NEGLIGIBLE: Final = 1e-9  # of a derivative of about 1: digits that a formula has lost
_CANNOT_TELL: Final = ("cannot tell", "in the order", "not what differences")
_BENT: Final = ("kink", "singular")


@dataclass(frozen=True)
class Slope:
    """A one-sided derivative, and by how much it may be off; infinite where the quotients do not settle."""

    value: float
    doubt: float

    def is_(self, other: float, size: float) -> bool:
        return self.doubt < 0.01 * size and abs(self.value - other) <= _SAME * size + 5 * self.doubt

    def is_not(self, other: float, size: float) -> bool:
        apart = abs(self.value - other)
        return self.doubt < 0.01 * size and apart > 10 * _SAME * size + 20 * self.doubt + _NEGLIGIBLE


def slope(rises: Sequence[tuple[float, float]], noise: float) -> Slope:
    """Of rises `(step, f(step) - f(0))` over shrinking steps: Richardson's rule on neighbours, where these agree best."""
    quotients = [(h, rise / h) for h, rise in rises]
    improved = [(h, (k * b - a) / (k - 1)) for (H, a), (h, b) in itertools.pairwise(quotients) for k in (H / h,)]
    best = Slope(math.nan, math.inf)
    for (_, a), (h, b) in itertools.pairwise(improved):
        doubt = abs(b - a) + 4 * noise / abs(h)
        finer = [q for step, q in improved if abs(step) < abs(h)]
        rough = [4 * noise / abs(step) for step, _ in improved if abs(step) < abs(h)]
        if doubt < best.doubt and all(abs(q - b) <= 20 * (doubt + r) for q, r in zip(finer, rough, strict=True)):
            best = Slope(b, doubt)
    return best


def wide(query: Query) -> Query:
    """The query in float64 or complex128."""

    def in_float64(value: Any) -> Any:
        if isinstance(value, TensorData):
            tensor = to_torch(value, "cpu")
            kind = torch.complex128 if tensor.is_complex() else torch.float64 if tensor.is_floating_point() else tensor.dtype
            return from_torch(tensor.to(kind))
        return tuple(in_float64(member) for member in value)

    return replace(query, inputs={name: in_float64(value) for name, value in query.inputs.items()})


class Differences:
    """One-sided derivatives of Re Σ c·f at a point, c positive and random, beside PyTorch's own."""

    def __init__(self, function: Function, leaves: Mapping[str, Tensor], wrt: Collection[str]) -> None:
        self.function, self.leaves = function, dict(leaves)
        moved = {n: t.detach().clone().requires_grad_(n in wrt) for n, t in leaves.items()}
        outputs = self._outputs(moved)
        generator = torch.Generator().manual_seed(7)
        self.weights = [torch.rand(o.shape, generator=generator, dtype=torch.float64) + 0.5 for o in outputs]
        self.base = [o.detach() for o in outputs]
        roots = [(o, w.to(o.dtype)) for o, w in zip(outputs, self.weights, strict=True) if o.requires_grad]
        by = [t for t in moved.values() if t.requires_grad]
        gradients: Sequence[Tensor | None] = [None] * len(by)
        if roots and by:
            tensors, vectors = zip(*roots, strict=True)
            gradients = torch.autograd.grad(tensors, by, vectors, allow_unused=True)
        self.gradients = dict(zip((n for n, t in moved.items() if t.requires_grad), gradients, strict=True))
        self.is_finite = all(bool(torch.isfinite(o).all()) for o in self.base)

    def _outputs(self, leaves: Mapping[str, Tensor]) -> list[Tensor]:
        with torch.random.fork_rng(devices=[]):  # an attention draws its dropout: the same numbers each time
            torch.manual_seed(0)
            outputs = self.function.call(*(leaves[name] for name in self.function.leaves))
        return [o for o in outputs if o.is_floating_point() or o.is_complex()]

    def sides(self, name: str, index: int, turn: complex) -> tuple[Slope, Slope, float]:
        """From the left and from the right, and PyTorch's, along element `index` (`turn`: 1, or 1j for its imaginary part)."""
        leaf = self.leaves[name]
        size = float(leaf.reshape(-1)[index].abs())
        unit = 2.0 ** math.floor(math.log2(size)) if 0 < size < math.inf else 1.0
        rises: dict[int, list[tuple[float, float]]] = {1: [], -1: []}
        for step in _STEPS:
            for sign in (1, -1):
                moved = leaf.clone()
                moved.view(-1)[index] += torch.tensor(sign * step * unit * turn, dtype=leaf.dtype)
                rises[sign].append((sign * step * unit, self._rise(name, moved)))
        noise = (
            2e-16 * sum(float((w * o.abs())[torch.isfinite(o)].sum()) for w, o in zip(self.weights, self.base, strict=True)) * 4
        )
        gradient = self.gradients.get(name)
        ours = 0.0 if gradient is None else (gradient.reshape(-1)[index].conj() * turn).real
        return slope(rises[-1], noise), slope(rises[1], noise), float(ours)

    def _rise(self, name: str, moved: Tensor) -> float:
        with torch.no_grad():
            try:
                outputs = self._outputs({**self.leaves, name: moved})
            except (RuntimeError, ValueError):
                return math.nan
        if [o.shape for o in outputs] != [b.shape for b in self.base]:
            return math.nan
        return float(sum((w * (o - b).real).sum() for w, o, b in zip(self.weights, outputs, self.base, strict=True)))


def complaints(point: AskedPoint) -> list[str]:
    """What one reply says that differences, or the reply itself, contradict. Raises PullbackError where the query is refused."""
    answer = ENGINE.answer(point.query)
    report = answer.results["explain"]
    reasons = list(_contradictions(report, answer, point.query))
    own = values("convention").keys() | values("reads_triangle").keys() | {"float", "half", "bfloat16", "cfloat", "chalf"}
    if short(point.query.operation or "") in own:  # what differences of the value do not show, or lose in a narrow dtype
        return reasons
    query = replace(wide(point.query), want=("vjp",))
    prepared = ENGINE.prepared(query)
    leaves = {name: to_torch(data, "cpu").to(prepared.dtypes[name]) for name, data in leaves_of(query.inputs)}
    differences = Differences(prepared.function, leaves, answer.results["vjp"].keys())
    for name, entry in report["inputs"].items():
        leaf = leaves[name]
        if leaf.numel() and (leaf.is_floating_point() or leaf.is_complex()):
            reasons += _of_input(name, entry, differences)
    return reasons


def _elements(leaf: Tensor) -> list[int]:
    count = leaf.numel()
    return sorted({round(k * (count - 1) / max(1, _ELEMENTS - 1)) for k in range(_ELEMENTS)})


def _of_input(name: str, entry: Mapping[str, Any], differences: Differences) -> Iterator[str]:
    leaf, text = differences.leaves[name], json.dumps(entry)
    if "no derivative" in text:  # the value moves with it, and PyTorch has no formula
        return
    listed = {
        verdict: {tuple(e) for f in entry["findings"] if f["verdict"] == verdict for e in f["elements"]} for verdict in _BENT
    }
    whole = any(f["verdict"] in _BENT and not f["elements"] for f in entry["findings"])
    for index in _elements(leaf):
        place = tuple(int(i) for i in torch.unravel_index(torch.tensor(index), leaf.shape))
        if not bool(torch.isfinite(leaf.reshape(-1)[index])):
            continue
        for turn in (1.0, 1j) if leaf.is_complex() else (1.0,):
            left, right, ours = differences.sides(name, index, turn)
            size = max([abs(v) for v in (left.value, right.value, ours) if math.isfinite(v)] or [0.0])
            off = math.isfinite(ours) and (left.is_not(ours, size) or right.is_not(ours, size))
            is_right = left.is_(ours, size) and right.is_(ours, size)
            where = f"{name}{list(place)}: {left.value:.6g} and {right.value:.6g}, PyTorch {ours:.6g}"
            if entry["verdict"] == "differentiable" and off and not any(words in text for words in _CANNOT_TELL):
                yield f"false differentiable {where}"
            if entry["verdict"] == "differentiable" and differences.is_finite and not math.isfinite(ours):
                yield f"differentiable where PyTorch gives {ours} {where}"
            if place in listed["kink"] | listed["singular"] and is_right:
                yield f"false alarm {where}"
            is_listed = whole or entry.get("elements_total") or any(words in text for words in _CANNOT_TELL)
            if entry["verdict"] in _BENT and off and not is_listed and place not in listed["kink"] | listed["singular"]:
                yield f"element not listed {where}"
            if entry["verdict"] in ("disconnected", "piecewise_constant") and (left.is_not(0, size) or right.is_not(0, size)):
                yield f"moves though {entry['verdict']} {where}"


def _contradictions(report: Mapping[str, Any], answer: Answer, query: Query) -> Iterator[str]:
    gradients = {name: to_torch(value, "cpu") for name, value in answer.results["vjp"].items()}
    is_wide = all(t.dtype in (torch.float64, torch.complex128) for t in gradients.values())
    for name, entry in report["inputs"].items():
        gradient, text = gradients.get(name), json.dumps(entry)
        for finding in entry["findings"]:
            because = finding["because"] or {}
            if "line" in because and query.program is not None and because["text"] not in query.program:
                yield f"{name}: the text of the reason is not in the program: {because['text']}"
        if gradient is None or not gradient.numel() or not is_wide or not bool(torch.isfinite(gradient).all()):
            if (
                gradient is not None
                and is_wide
                and re.search("PyTorch gives zero|gives 0 ", text)
                and bool(torch.isnan(gradient).all())
            ):
                yield f"{name}: zero beside NaN"
            continue
        if entry["verdict"] in ("piecewise_constant", "disconnected") and bool((gradient != 0).any()):
            yield f"{name}: {entry['verdict']} beside a gradient that is not zero"
        if entry.get("subgradient") and not gradient.is_complex():
            shown = [gradient[tuple(e)].item() for e in entry["elements"]]
            if not torch.allclose(
                torch.tensor(shown), torch.tensor(entry["subgradient"], dtype=torch.float64).float(), rtol=1e-4, equal_nan=True
            ):
                yield f"{name}: subgradient {entry['subgradient'][:3]} beside a vjp of {shown[:3]}"
    if len(report["outputs"]) == 1:
        (output,) = report["outputs"].values()
        verdicts = {entry["verdict"] for entry in report["inputs"].values()}
        if output["verdict"] in _BENT and verdicts <= {"differentiable", "not_differentiable", "disconnected"}:
            yield f"the output is {output['verdict']}, no input is"


def swept(
    points: Iterator[AskedPoint], judge: Callable[[AskedPoint], list[str]], results: Path, only: str
) -> Iterator[tuple[AskedPoint, list[str] | str]]:
    """Each point and what `judge` says of it, or the code of the refusal; what `results` holds is not judged again."""

    def judged(point: AskedPoint) -> list[str] | str:
        try:
            return judge(point)
        except PullbackError as error:
            return error.code

    return sweeping.swept((point for point in points if only in point.title), lambda point: point.title, judged, results)


def run(
    points: Iterator[AskedPoint], judge: Callable[[AskedPoint], list[str]], name: str, about: str | None, arguments: list[str]
) -> None:
    """Judges what `--results` does not hold yet, and prints every complaint and how many points of each kind there were."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.oracle.{name}_sweep", description=about)
    results = Path(f"build/{name}.jsonl")
    parser.add_argument("--results", type=Path, default=results, help="one JSON line a point; what is there is not asked again")
    parser.add_argument("--only", default="", help="points whose titles hold this")
    parser.add_argument("--every", type=int, default=1, help="each so many points one")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    for point, said in swept(itertools.islice(points, 0, None, chosen.every), judge, chosen.results, chosen.only):
        counts["refused" if isinstance(said, str) else "contradicted" if said else "right, or cannot be told"] += 1
        if not isinstance(said, str):
            sys.stdout.write("".join(f"{point.title}: {words}\n" for words in said))
    sys.stdout.write("".join(f"{count} {what}\n" for what, count in counts.most_common()))


if __name__ == "__main__":
    run(every(), complaints, "explain", __doc__, sys.argv[1:])
