"""`explain` and `check` as a person reads them: aligned plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

WIDTH: Final = 100  # characters of a line that prose is wrapped to: PEP 8's longest
_INDENT: Final = "    "
_ELEMENTS: Final = 12  # elements that a finding lists, about a line of them: those of 111 pasted programs have ten at most
_VERDICTS: Final[Mapping[str, str]] = {
    "differentiable": "differentiable",
    "piecewise_constant": "piecewise constant",
    "not_differentiable": "not differentiable",
    "disconnected": "disconnected",
    "kink": "kink",
    "singular": "singular",
}
_MISTAKES: Final[Mapping[str, str]] = {
    "constant_factor": "a constant factor",
    "sign": "the sign",
    "transpose": "a transpose",
    "shape": "the shape",
    "missing_batch_sum": "a sum is missing",
    "extra_batch_sum": "a sum too many",
    "extra_sum": "a sum too many",
    "conjugate": "the conjugate",
    "not_moved_back": "elements not moved back",
    "copies_counted_once": "of several copies one alone",
    "copies_averaged": "copies averaged instead of summed",
    "softmax_diagonal": "only the diagonal of softmax's Jacobian",
    "missing_activation_derivative": "the derivative of an activation is missing",
    "missing_term": "a term is missing",
    "wrong_rule": "a wrong rule",
    "other_operation": "another operation",
    "sign_of_term": "the sign of one term",
    "factor_of_term": "a factor in one term",
    "statistics_constant": "statistics treated as constants",
    "probability_alone": "the target is missing",
    "dropout_mask": "the mask of a dropout",
    "unflipped_kernel": "a kernel the wrong way round",
    "transposed_product": "a product without its transpose",
    "quotient_rule": "the quotient rule",
    "missing_eps": "an eps is forgotten",
    "log_base": "the base of a logarithm",
    "wrong_reduction": "sum and mean",
    "variance_correction": "n and n - 1",
    "swapped": "arguments swapped",
    "off_by_one": "off by one",
    "wrong_variable": "another input",
    "inverse": "the inverse",
    "gauss_newton": "the Gauss-Newton matrix",
    "left_out": "something is left out",
    "default_argument": "an argument is forgotten",
    "symmetric_assumed": "two terms taken as equal",
    "not_symmetric": "a Hessian that is not symmetric",
    "elementwise_factor": "a value of the program as a factor",
    "differs_by_term": "a multiple of a value as a term",
    "ignored_detach": "a derivative through what is detached",
    "cut_path": "a path that PyTorch does not follow",
    "piecewise_constant": "a function of jumps",
}


def explain_text(explain: Mapping[str, Any]) -> str:
    """The differentiability report: what holds for each input and output, why, and what to write instead."""
    parts = [_verdicts("Inputs", explain.get("inputs", {})), _verdicts("Outputs", explain.get("outputs", {}))]
    if explain.get("steps"):
        parts.append(_steps(explain["steps"]))
    if explain.get("probed") is False:
        parts.append("The point was not probed (too large, or not to be had in float64): kinks and jumps are not reported.")
    return "\n\n".join(part for part in parts if part)


def _verdicts(title: str, table: Mapping[str, Mapping[str, Any]]) -> str:
    if not table:
        return ""
    width = max(len(name) for name in table)
    lines = [title]
    explained: dict[tuple[Any, ...], str] = {}
    for name, entry in table.items():
        lines.append(f"  {name:<{width}}  {_VERDICTS.get(entry['verdict'], entry['verdict'])}")
        findings = entry.get("findings") or ([entry] if entry.get("because") else [])
        for number, finding in enumerate(findings):
            because = finding.get("because") or {}
            key = (because.get("line"), because.get("text"), because.get("reason"))
            first = explained.setdefault(key, name)
            lines += _finding(finding, with_verdict=number > 0, same_as=None if first == name else first)
    return "\n".join(lines)


def _finding(finding: Mapping[str, Any], *, with_verdict: bool, same_as: str | None) -> list[str]:
    """`same_as`: the input for which the same reason was given above."""
    because = finding.get("because") or {}
    rows = [("also", _VERDICTS.get(finding["verdict"], finding["verdict"]))] if with_verdict else []
    if "line" in because:
        rows.append(("where", f"line {because['line']}: {because['text']}"))
    if because.get("reason"):
        rows.append(("why", because["reason"] if same_as is None else f"as for {same_as}"))
    if finding.get("elements"):
        rows.append(("elements", _elements(finding)))
    if finding.get("instead") and same_as is None:
        rows.append(("instead", finding["instead"]))
    return _rows(rows)


def _elements(finding: Mapping[str, Any]) -> str:
    elements = [_index(index) for index in finding["elements"]]
    taken, right = finding.get("subgradient"), finding.get("derivative")
    if taken and right:
        both = zip(elements, taken, right, strict=False)
        elements = [f"{element} (PyTorch: {_number(value)}, right: {_number(own)})" for element, value, own in both]
    elif taken and len({str(value) for value in taken}) > 1:
        elements = [f"{element} (taken: {_number(value)})" for element, value in zip(elements, taken, strict=False)]
    more = finding.get("elements_total", len(elements)) - min(len(elements), _ELEMENTS)
    return ", ".join(elements[:_ELEMENTS]) + (f" and {more} more" if more > 0 else "")


def _rows(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Labelled paragraphs, wrapped under their first word."""
    lines: list[str] = []
    for label, text in rows:
        head = f"{_INDENT}{label:<8}  "
        lines += textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False) or [
            head.rstrip()
        ]
    return lines


def _steps(steps: Sequence[Mapping[str, Any]]) -> str:
    lines = ["Steps"]
    before: tuple[int, str] | None = None
    width = max(len(str(step["operation"])) for step in steps)
    for step in steps:
        here = (step["line"], step["text"])
        if here != before:
            lines.append(f"  {here[0]:>3}  {here[1]}")
            before = here
        head = f"       {step['operation']:<{width}}  "
        lines += textwrap.wrap(
            step.get("formula") or "no derivative",
            WIDTH,
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def check_text(check: Mapping[str, Any]) -> str:
    """The comparison of derivatives: for each input whether they agree, the worst elements, and the probable mistake."""
    return "\n\n".join(_checked(name, verdict) for name, verdict in check.items())


def _checked(name: str, verdict: Mapping[str, Any]) -> str:
    word = {True: "agrees", False: "DISAGREES", None: "cannot tell"}[verdict["agrees"]]
    lines = [f"{name}  {word}   {_size(verdict)}"]
    if verdict.get("checked") == "directions":
        lines.append(f"{_INDENT}Too large for every element: a sample of them, and random directions, were compared.")
    if verdict.get("shape"):
        shape = verdict["shape"]
        lines.append(f"{_INDENT}The derivative has shape {shape['autodiff']}, yours has {shape['expected']}.")
    lines += _table(verdict.get("worst") or [])
    likely = verdict.get("likely")
    if likely:
        kind = _MISTAKES.get(likely["code"], likely["code"].replace("_", " "))
        lines += _rows([("likely", f"{kind[0].upper()}{kind[1:]}. {likely['message']}")])
    lines += _rows(("or", other["message"]) for other in verdict.get("also_possible") or ())
    if verdict.get("reason"):
        lines += _rows([("why", verdict["reason"])])
    if verdict.get("note"):
        lines += _rows([("note", verdict["note"])])
    return "\n".join(lines)


def precision_text(precision: Mapping[str, Any]) -> str:
    """For each input how many digits of its derivative are right, and where they were lost."""
    return "\n\n".join(_measured(name, report) for name, report in precision.items())


def _measured(name: str, report: Mapping[str, Any]) -> str:
    digits = report["digits"]
    lines = [
        f"{name}  {digits['worst']:g} digits right in the worst element, {digits['median']:g} in the median "
        f"({report['dtype']} against {report['reference']})"
    ]
    lines += _table(report["worst"])
    because = report.get("because") or {}
    rows = [
        (
            "outputs",
            ", ".join(f"{output}: {each['worst']:g} to {each['median']:g}" for output, each in report["outputs"].items()),
        )
    ]
    if "line" in because:
        rows.append(("where", f"line {because['line']}: {because['text']} ({because['operation']})"))
    rows += [
        (label, report_text)
        for label, report_text in (("why", because.get("reason")), ("instead", report["instead"]))
        if report_text
    ]
    if report.get("reason"):
        rows.append(("doubt", report["reason"]))
    return "\n".join(lines + _rows(rows))


def _size(verdict: Mapping[str, Any]) -> str:
    if verdict.get("max_error") is None:
        return f"tolerance {_number(verdict['tolerance'], 2)}"
    return f"largest difference {_number(verdict['max_error'], 2)}, tolerance {_number(verdict['tolerance'], 2)}"


def _table(worst: Sequence[Mapping[str, Any]]) -> list[str]:
    """The worst elements, their numbers flush right."""
    if not worst:
        return []
    columns = [c for c in ("autodiff", "numeric", "expected", "value", "reference") if any(c in entry for entry in worst)]
    rows = [("element", *columns)] + [
        (_index(e["index"]), *(_number(e[c], 8) if c in e else "-" for c in columns)) for e in worst
    ]
    widths = [max(len(row[k]) for row in rows) for k in range(len(columns) + 1)]
    return [
        _INDENT
        + row[0].ljust(widths[0])
        + "".join("  " + cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]


def _index(index: Sequence[int]) -> str:
    return f"[{', '.join(str(i) for i in index)}]" if index else "the number"


def _number(value: Any, digits: int = 6) -> str:
    if isinstance(value, list | tuple):
        real, imaginary = (_number(part, digits) for part in value)
        return f"{real}{'' if imaginary.startswith('-') else '+'}{imaginary}j"
    return f"{value:.{digits}g}" if isinstance(value, float | int) and not isinstance(value, bool) else str(value)
