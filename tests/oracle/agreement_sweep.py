"""`python -m tests.oracle.agreement_sweep`: explain and check asked of the same points, which must not contradict each other.

A second run takes up what the first has left, and prints all that both have seen.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor

from tests.engine.asking import ENGINE
from tests.oracle.explain_points import AskedPoint, asked, bending_leaves, bending_program
from tests.oracle.explain_sweep import run

BENDING: Final = 120  # random programs beyond the seeds of explain_points
# Programs in x and w, and the numbers of x: corners, ties, huge and tiny arguments, whole powers, branch cuts, one element and none.
_SAME: Final = ("cut_path", "piecewise_constant")
VALUES: Final[Mapping[str, tuple[float, ...]]] = {
    "ordinary": (0.3, -1.2, 2.4), "zeros": (0.0, 0.0, 0.0), "ties": (1.0, 1.0, -1.0), "huge": (1e8, -3e10, 1e15), "tiny": (1e-12, -1e-20, 1e-300),
    "mixed": (0.0, 1e9, -1e-9), "corners": (-1.0, 0.0, 1.0), "one": (0.0,), "one whole": (3.0,), "none": (),
}  # fmt: skip
TEXTS: Final = (
    "relu(x)", "abs(x)", "x ** 2", "x ** 3", "x ** 0", "x ** 1", "x ** -1", "x ** 0.5", "sqrt(x ** 2)", "sqrt(abs(x))", "clamp(x, -1, 1)", "x.max()",
    "x.sort().values * arange(x.numel())", "x * sign(x)", "round(x)", "x - x % 1", "sin(x)", "tanh(x)", "sigmoid(x)", "log1p(exp(x))", "exp(-x * x)",
    "log(x)", "asin(x)", "atan2(x, x)", "atan2(x, w)", "hypot(x, x)", "x / (x + 1)", "sinc(x)", "x.norm()", "x.prod()", "softmax(x, 0)[:1]",
    "logsumexp(x, 0)", "F.gelu(x)", "F.elu(x)", "F.hardswish(x)", "F.smooth_l1_loss(x, w)", "where(x > 0, x, x * 2)", "where(x > 0, sqrt(x), 0.0)",
    "minimum(x, w)", "maximum(x, x * 1)", "x.cummax(0).values", "x.var()", "x.std()", "x.median()", "fmod(x, 1.0)", "xlogy(x, x)", "x.cumprod(0)",
    "copysign(x, w)", "lgamma(x)", "erfinv(x)", "relu(x) - relu(-x)", "nan_to_num(x / x)", "frac(x)", "x.abs().pow(1.5)", "logit(x)",
)  # fmt: skip
COMPLEX: Final = (
    "abs(z)", "angle(z)", "log(z)", "sqrt(z)", "z ** 2", "z ** 0.5", "z * z.conj()", "sgn(z)", "exp(z)", "1 / z", "z.real ** 3", "asin(z)",
    "atanh(z)",
)  # fmt: skip
CUTS: Final = (0j, -1 + 0j, 1 + 0j, 1j, -2 + 1e-12j, 0.3 - 0.4j)
PASTES: Final = (
    "h = x * 2\ny = h.detach() * w\nloss = (y * x).sum()\nloss.backward()\nprint(x.grad)",
    "p = torch.softmax(x, 0)\nloss = -(w * torch.log(p)).sum()\nloss",
    "d = x - w\ndist = torch.sqrt((d ** 2).sum())\nloss = dist * 2\nloss", "d = x - x\ndist = d.norm()\ndist + x.sum()",
    "m = (x > 0).float()\ny = m * x\nz = y + (1 - m) * 0.1 * x\nz.sum()", "i = x.argmax()\ny = x[i]\n(y * w).sum()",
    "y = x.clone()\ny[y < 0] = 0\nloss = (y * w).sum()\nloss", "q = torch.round(x)\ny = x + (q - x).detach()\n(y ** 2).sum()",
    "mu = x.mean()\nvar = ((x - mu) ** 2).mean()\nz = (x - mu) / torch.sqrt(var + 1e-5)\n(z * w).sum()",
    "mu = x.mean()\nvar = ((x - mu) ** 2).mean()\nz = (x - mu) / torch.sqrt(var)\n(z * w).sum()",
    "a = torch.exp(x)\nb = a / a.sum()\nc = torch.where(b > 0.1, b, torch.zeros_like(b))\nc.sum()",
    "s = torch.zeros(1)\nfor i in range(3):\n    s = s + torch.relu(x[i]) * w[i]\ns.sum()",
    "y = torch.where(x == 0, torch.zeros_like(x), torch.sin(x) / x)\n(y * w).sum()",
    "y = torch.clamp(x, min=0, max=0)\n(y + x * w).sum()", "n = x / x.norm()\ncos = (n * w / w.norm()).sum()\n1 - cos",
    "h = torch.tanh(w * x)\nh = h * h.sign()\nh.sum()", "u, s, v = torch.svd(torch.outer(x, w))\ns[0]",
    "A = torch.diag(x) + torch.outer(w, w)\ntorch.linalg.det(A)", "A = torch.outer(x, x)\ntorch.linalg.det(A) + x.sum()",
    "k = x.floor()\nf = x - k\n(f * w + k).sum()",
)  # fmt: skip


def every() -> Iterator[AskedPoint]:
    """All points: each text at some of the values, complex functions on and off their cuts, pastes, and random programs that bend."""
    for number, (text, (kind, values)) in enumerate(itertools.product(TEXTS, VALUES.items())):
        if number % 3 == 0:
            x = torch.tensor(values, dtype=torch.float64)
            inputs = {"x": x, "w": torch.linspace(0.5, 1.5, len(values), dtype=torch.float64)}
            if not re.search(r"\bw\b", text):
                del inputs["w"]
            yield asked(f"{text} {kind}", inputs, program=f"({text}).sum()")
    for text, at in itertools.product(COMPLEX, CUTS):
        yield asked(f"{text} {at}", {"z": torch.tensor([at], dtype=torch.complex128)}, program=f"abs(({text}) - 0.25).sum()")
    for text, kind in itertools.product(PASTES, ("ordinary", "zeros", "ties", "corners")):
        inputs = {
            "x": torch.tensor(VALUES[kind], dtype=torch.float64),
            "w": torch.tensor([0.5, 1.5, -0.7], dtype=torch.float64),
        }
        yield asked(f"{text} {kind}", inputs, program=text)
    for seed in range(1000, 1000 + BENDING):
        leaves: dict[str, Tensor] = bending_leaves(seed)
        yield asked(f"bending program {seed}", leaves, program=bending_program(seed))


def contradictions(point: AskedPoint) -> list[str]:
    """What explain and check say of one point against each other. Raises PullbackError where the query is refused."""
    explained = ENGINE.answer(replace(point.query, want=("explain",))).results["explain"]["inputs"]
    checked = ENGINE.answer(replace(point.query, want=("check",))).results["check"]
    return [
        f"{name}: {words}; explain {json.dumps(explained[name]['because'])}, check {json.dumps(verdict['worst'][:1])} {verdict.get('reason', '')}"
        for name, verdict in checked.items()
        for words in _against(explained[name], verdict)
    ]


def _against(entry: Mapping[str, Any], verdict: Mapping[str, Any]) -> Iterator[str]:
    text = json.dumps(entry)
    is_open = "cannot tell" in text or "digits in common" in text or "branch" in text
    agrees, kinks = verdict["agrees"], verdict.get("kinks", [])
    if verdict.get("likely", {}).get("code") in _SAME and ("ends here" in text or entry["verdict"] == "piecewise_constant"):
        return  # both say what the derivative leaves out
    listed = [tuple(place) for f in entry["findings"] if f["verdict"] in ("kink", "singular") for place in f["elements"]]
    if entry["verdict"] == "differentiable" and agrees is False and not is_open:
        yield "differentiable, and check disagrees"
    if entry["verdict"] == "differentiable" and kinks and not is_open:
        yield f"differentiable, and check has kinks at {kinks[:2]}"
    if "is wrong" in text and agrees is True and not kinks:
        yield "PyTorch is wrong, and check agrees"
    if entry["verdict"] == "kink" and agrees is True and not kinks and verdict["checked"] == "all":
        yield f"a kink at {listed[:2]}, and check agrees without one"
    if entry["verdict"] == "singular" and agrees is True and not kinks and verdict["checked"] == "all" and verdict["worst"]:
        yield f"singular at {listed[:2]}, and check agrees"
    if entry["verdict"] == "piecewise_constant" and agrees is False:
        yield "constant, and check disagrees"  # and does not know why


if __name__ == "__main__":
    run(every(), contradictions, "agreement", __doc__, sys.argv[1:])
