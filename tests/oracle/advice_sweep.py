"""`python -m tests.oracle.advice_sweep`: every piece of code that explain advises, run at the point that it is advised for.

A second run takes up what the first has left, and prints all that both have seen.
"""

from __future__ import annotations

import ast
import itertools
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch

from app.engine.tensors import to_torch
from app.errors import PullbackError
from app.query import Query, TensorData
from tests.engine.asking import ENGINE
from tests.oracle.explain_points import AskedPoint, asked, every
from tests.oracle.explain_sweep import run, wide
from tests.oracle.test_why_none import WHY, W, X

# What an advice leaves to its reader to choose.
CHOSEN: Final[Mapping[str, str]] = {
    "eps": "eps = 1e-3", "t": "t = 0.5", "temperature": "temperature = 0.5", "threshold": "threshold = 0.25", "period": "period = 3.0",
    "pi": "pi = 3.141592653589793", "p": "p = 0.5", "condition": "condition = ({leaf} > 0)", "a": "a = 2 * {leaf}", "b": "b = 3 * {leaf}",
    "values": "values = torch.ones_like({leaf})", "choice": "choice = 0", "reward": "reward = {leaf}.detach()",
    "mean": "mean = 2 * {leaf}", "std": "std = 3 * {leaf}", "n": "n = {leaf}.shape[-1]",
}  # fmt: skip
_CUT: Final = ("disconnected", "piecewise_constant", "not_differentiable")
_CODE: Final = re.compile(r"\w.*[(\[*/+=]|[(\[*/+=].*\w")
_MENTIONS: Final = ("the value of ", "the gradient of ", "Keep ", "of its own, ", "in the place of ")


def pieces(sentence: str) -> Iterator[tuple[str, ...]]:
    """Each piece of code in the sentence, after the assignments that stand before it."""
    before: tuple[str, ...] = ()
    for lead, code in re.findall(r"([^`]*)`([^`]*)`", sentence):
        if code.startswith("GET ") or not _CODE.search(code) or re.fullmatch(r"\w+=\w+", code) or lead.endswith(_MENTIONS):
            continue  # an address, a name alone, an argument, or what the sentence only speaks of
        if re.match(r"\w+(, \w+)* = ", code):
            before = (*before, code)
        else:
            yield (*before, code)


def program(point: AskedPoint, line: int, code: tuple[str, ...], leaf: str) -> str:
    """The lines of the program before the step that the advice is for, and the advice, of which the sum is taken."""
    whole_text = [] if point.query.program is None else point.query.program.splitlines()
    lines = whole_text[: line - 1]
    if whole_text and whole_text[line - 1].startswith(" "):  # within a function, which gives what is advised
        indent = " " * (len(whole_text[line - 1]) - len(whole_text[line - 1].lstrip()))
        return "\n".join(
            [*lines, *(indent + part for part in code[:-1]), f"{indent}return {code[-1]}", *whole_text[line + 1 :]]
        )
    body = [
        *code[:-1],
        f"advised = {code[-1]}",
        "advised = advised[0] if isinstance(advised, tuple) else advised",
        "advised.sum()",
    ]
    whole = "\n".join([*lines, *code])
    used = {node.id for node in ast.walk(ast.parse(whole)) if isinstance(node, ast.Name)}
    stored = {node.id for node in ast.walk(ast.parse(whole)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    free = used - stored - set(point.query.inputs)
    chosen = dict(CHOSEN)
    if safe := re.match(r"safe = where\(condition, (.*), 1.0\)$", code[0]):
        lines, chosen["condition"] = [*lines, f"condition = ({safe[1]} > 0)"], ""
    return "\n".join([*(chosen[name].replace("{leaf}", leaf) for name in chosen if name in free), *lines, *body])


def complaints(point: AskedPoint) -> list[str]:
    """Which advice does not run, or does not give what it promises. Raises PullbackError where the query is refused."""
    query = wide(point.query)
    report = ENGINE.answer(query).results["explain"]
    reasons = []
    for name, entry in report["inputs"].items():
        if name not in query.inputs:
            continue  # a member of a list
        for finding in entry["findings"]:
            because = finding["because"] or {}
            if not finding["instead"] or (point.query.program is not None and "line" not in because):
                continue
            for code in pieces(finding["instead"]):
                text = ""
                try:
                    text = program(point, because.get("line", 1), code, name)
                    wrong = _broken_promise(text, query, name, finding)
                except (PullbackError, SyntaxError) as error:
                    wrong = str(error)
                if wrong:
                    reasons.append(f"{name} {finding['verdict']} {code}: {wrong}\n    {text!r}")
    return reasons


def _broken_promise(text: str, query: Query, name: str, finding: Mapping[str, Any]) -> str:
    """What the advised program does not give: a derivative by the input, finite numbers, no bend where there was one."""
    inputs = {k: v for k, v in query.inputs.items() if isinstance(v, TensorData)}
    if not re.search(rf"\b{name}\b", text.rpartition("advised.sum")[0]):
        return ""
    answer = ENGINE.answer(Query(program=text, inputs=inputs, want=("explain", "vjp"), wrt=(name,), seed=0))
    after = answer.results["explain"]["inputs"][name]
    gradient = to_torch(answer.results["vjp"][name], "cpu")
    if not gradient.numel():
        return ""
    value = to_torch(inputs[name], "cpu")
    if finding["verdict"] in _CUT and after["verdict"] in _CUT:
        return f"still {after['verdict']}: {after['because']}"
    if bool((~torch.isfinite(gradient) & torch.isfinite(value)).any()):
        return f"the gradient is {gradient.flatten()[:3].tolist()} at {value.flatten()[:3].tolist()}"
    if finding["verdict"] == "kink" and after["verdict"] in ("kink", "singular"):
        elements = [e for e in finding["elements"] if e in after["elements"]]
        if elements:
            return f"still {after['verdict']} at {elements[:2]}: {after['because']}"
    return ""


def pastes() -> Iterator[AskedPoint]:
    """Programs as people paste them, whose gradient is None or zero."""
    for title, (text, *_) in WHY.items():
        inputs = {"x": torch.tensor(X, dtype=torch.float64), "w": torch.tensor(W, dtype=torch.float64)}
        yield asked(f"paste {title}", inputs, program=text)


if __name__ == "__main__":
    run(itertools.chain(pastes(), every()), complaints, "advice", __doc__, sys.argv[1:])
