"""The catalogue, made: every operation from its names to its example, and the file's text."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, Final

import orjson
import torch

from app.catalogue.entry import Argument, Call, Operation, Signature
from app.catalogue.introspect.calls.probe import grad_nodes, probe
from app.catalogue.introspect.calls.samples import samples
from app.catalogue.introspect.calls.shown import example
from app.catalogue.introspect.names import Group, groups
from app.catalogue.introspect.signatures import signatures
from app.catalogue.introspect.wording import texts
from app.catalogue.introspect.wording.formula_texts import formula
from app.catalogue.introspect.wording.tags import tags

_VARIADIC: Final = ("block_diag", "broadcast_tensors", "cartesian_prod", "meshgrid")
_PLAIN: Final = Argument("", "tensor", required=True)


def catalogue() -> list[Operation]:
    """Every operation, sorted by name. Takes about half a minute."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [operation(group) for group in groups()]


def operation(group: Group) -> Operation:
    """One operation.

    Raises:
        LookupError: something of it cannot be found out; a reviewed table must tell.
    """
    entry = Operation(
        name=group.name,
        path=group.path,
        call=_call(group),
        summary=texts.summary(group),
        documentation=texts.documentation(group),
        tags=(),
        aliases=group.aliases,
        order=0,
        signatures=tuple(_with_meanings(group, signature) for signature in signatures(group)),
        formula=None,
        example={},
        keywords=texts.keywords(group),
    )
    if not entry.signatures or not entry.summary:
        raise LookupError(f"{group.name}: no signature or no summary")
    known = samples(entry)
    measured, findings = probe(entry, known)
    unseen = [signature for signature, seen in zip(entry.signatures, findings, strict=True) if not seen.ran]
    if unseen:
        raise LookupError(f"{group.name}: no sample of {[a.name for a in unseen[0].arguments]}")
    shown, sample = example(measured, known)
    nodes = dict.fromkeys(grad_nodes(sample))
    nodes.update((seen.nodes[0], None) for seen in findings if len(seen.nodes) == 1)
    return dataclasses.replace(measured, tags=tags(group, sample), formula=formula(nodes), example=shown)


def _call(group: Group) -> Call:
    if group.name in _VARIADIC:
        return "variadic"
    if group.name == "einsum":
        return "equation"
    return "method" if group.path.startswith("Tensor.") else "function"


def _with_meanings(group: Group, signature: Signature) -> Signature:
    arguments = tuple(dataclasses.replace(a, meaning=texts.meaning(group, a)) for a in signature.arguments)
    return dataclasses.replace(signature, arguments=arguments)


def text(operations: list[Operation]) -> bytes:
    """The file: one line for each argument, so that a difference can be reviewed."""
    lines = [f'{{"torch": "{torch.__version__.partition("+")[0]}",', '"operations": [']
    for index, entry in enumerate(operations):
        lines += _entry(entry)
        lines[-1] += "," if index + 1 < len(operations) else ""
    return ("\n".join([*lines, "]}"]) + "\n").encode()


def _entry(operation: Operation) -> list[str]:
    fields = {
        "name": operation.name, "path": operation.path, "call": operation.call, "summary": operation.summary,
        "documentation": operation.documentation,
        "tags": operation.tags, "aliases": operation.aliases, "keywords": operation.keywords, "order": operation.order,
    }  # fmt: skip
    lines = ["{" + _line(fields)[1:-1] + ",", ' "signatures": [']
    for index, signature in enumerate(operation.signatures):
        lines.append('  {"arguments": [')
        lines += [f"    {_line(_argument(a))}," for a in signature.arguments]
        lines[-1] = lines[-1].rstrip(",")
        outputs = [{k: v for k, v in dataclasses.asdict(o).items() if k != "several" or v} for o in signature.outputs]
        lines.append(f'   ], "outputs": {_line(outputs)}}}' + ("," if index + 1 < len(operation.signatures) else ""))
    lines += [" ],", f' "formula": {_line(operation.formula)},', f' "example": {_line(operation.example)}}}']
    return lines


def _argument(argument: Argument) -> dict[str, Any]:
    """The fields that say something: name, kind, required, and those that differ from the plainest argument."""
    fields = dataclasses.asdict(argument)
    plain = dataclasses.asdict(_PLAIN)
    telling = {name: value for name, value in fields.items() if name in ("name", "kind", "required") or value != plain[name]}
    if not argument.required:
        telling["default"] = argument.default
    return {name: telling[name] for name in fields if name in telling}


def _line(value: Any) -> str:
    return orjson.dumps(value).decode()
