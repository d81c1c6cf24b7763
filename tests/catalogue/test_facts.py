"""Facts of single operations: every name is one of the catalogue or a sign, every value and sentence one of those that are known."""

from __future__ import annotations

import ast
import importlib
import itertools
import operator
import re
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing._internal.opinfo.core import OpInfo

from app.catalogue.facts import instead, kinds_of_fact, operations_with, rows, sentence, short, values
from app.catalogue.introspect.opinfos import opinfos
from app.catalogue.read import find, operations
from app.engine.stepwise.point import OPERATORS
from app.errors import PullbackError
from app.query import DTYPE_BYTES
from tests.op_db import SEED, tensors
from tests.test_floors import Module, modules

KNOWN = {short(name) for operation in operations().values() for name in (operation.name, *operation.aliases)}
SENTENCES = sorted({key for row in rows().values() for key in row.get("instead", {}).values() if key})


def test_every_name_is_in_the_catalogue_or_a_sign() -> None:
    assert not set(rows()) - KNOWN - set(OPERATORS.values())


def _is_known(name: str) -> bool:
    """Whether the catalogue, PyTorch's operators or its primitives have it."""
    spaces = (torch.ops.aten, torch.ops.prims, torch.Tensor, operator)
    return name in KNOWN or any(hasattr(space, name.partition(".")[0]) for space in spaces)


def tables_of_operations(module: Module) -> dict[str, list[str]]:
    """Constant → its strings, of a module's tables by operation: most of them are names of operations."""
    values_of = vars(importlib.import_module(module.name))
    tables = {}
    for node in module.tree.body:
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if isinstance(node, ast.Assign) else None
        value = values_of.get(target.id) if isinstance(target, ast.Name) else None
        names = [name for name in value if isinstance(name, str)] if isinstance(value, frozenset | tuple | dict) else []
        if isinstance(target, ast.Name) and len(names) > 2 and sum(map(_is_known, names)) > 0.6 * len(names):
            tables[target.id] = names
    return tables


def test_tables_of_rules_name_only_what_there_is() -> None:
    """Rules by operation (costs, patterns, exact arithmetic) stand in tables of their rooms; a name that nothing has would never be used."""
    tables = {name: tables_of_operations(module) for name, module in modules().items() if name.startswith("app.engine.")}
    assert sum(map(len, tables.values())) > 30
    bad = [
        f"{name}: {table}: {entry}"
        for name, own in tables.items()
        for table, entries in own.items()
        for entry in entries
        if not _is_known(entry)
    ]
    assert not bad, "\n".join(bad)
    assert not _is_known("sofmax")


def test_every_row_says_something_of_a_known_kind() -> None:
    for name, row in rows().items():
        assert row, name
        assert set(row) <= set(kinds_of_fact()), name


def test_every_kind_of_fact_has_a_meaning_and_a_source() -> None:
    for kind, about in kinds_of_fact().items():
        assert about["meaning"], kind
        assert len(about["source"]) > 10, kind
        assert values(kind), f"nothing has {kind}"


@pytest.mark.parametrize("kind", [k for k, about in kinds_of_fact().items() if isinstance(about["values"], list)])
def test_values_are_those_of_their_kind(kind: str) -> None:
    allowed = kinds_of_fact()[kind]["values"]
    for name, value in values(kind).items():
        assert all(member in allowed for member in (value if isinstance(value, list) else [value])), name
    assert all(operations_with(kind, value) for value in allowed)


def test_casts_and_conventions_lead_somewhere() -> None:
    assert set(values("casts_to").values()) <= set(DTYPE_BYTES)
    assert all(sentence(key) for kind in ("convention", "degenerate") for key in values(kind).values())


def test_an_unknown_fact_is_no_empty_set() -> None:
    with pytest.raises(KeyError):
        values("smoooth")


@pytest.mark.parametrize("key", SENTENCES)
def test_a_sentence_calls_only_what_the_language_has(key: str) -> None:
    """Each piece of code in it is an expression or an assignment, and its functions are in the catalogue."""
    text = (
        sentence(key)
        .replace("{x}", "x")
        .replace("{dim}", "0")
        .replace("{call}", "sqrt(x)")
        .replace("{safe_call}", "sqrt(safe)")
    )
    for code in (quoted for quoted in re.findall(r"`([^`]*)`", text) if "(" in quoted and not quoted.startswith("GET")):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Call):
                name = _called(node.func)
                try:
                    find(name)
                except PullbackError:
                    assert name == "eye", f"{code}: {name}"  # a factory of the language


def _called(function: ast.expr) -> str:
    """The name of a method without what it is called on, of a function as it stands."""
    name = ast.unparse(function)
    is_function = isinstance(function, ast.Name) or name.startswith(("torch.", "nn.", "linalg."))
    return name if is_function or not isinstance(function, ast.Attribute) else function.attr


def test_where_nothing_is_known_nothing_is_said() -> None:
    assert instead("kink", "sqrt") is None
    assert instead("boolean", "isnan") is None
    assert instead("integer", "argmax") != instead("integer", "argmin")


def _forward_mode(info: OpInfo, sample: Any) -> str:
    """`missing` where forward mode refuses, `wrong` where ⟨v, Jᵗu⟩ ≠ ⟨Jv, u⟩, else `right`."""
    arguments = [sample.input, *sample.args]
    places = [k for k, a in enumerate(arguments) if isinstance(a, Tensor) and a.is_floating_point()]
    primals = tuple(arguments[k].detach() for k in places)

    def function(*floating: Tensor) -> tuple[Tensor, ...]:
        full = list(arguments)
        for k, value in zip(places, floating, strict=True):
            full[k] = value
        return tuple(t for t in tensors(info.op(*full, **sample.kwargs)) if t.is_floating_point())

    generator = torch.Generator().manual_seed(SEED)
    v = tuple(torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in primals)
    try:
        results, product = torch.func.jvp(function, primals, v)  # type: ignore[misc]
    except (NotImplementedError, RuntimeError):
        return "missing"
    u = tuple(torch.randn(o.shape, dtype=o.dtype, generator=generator) for o in results)
    back = torch.func.vjp(function, *primals)[1](u)
    left = sum((a * b).sum() for a, b in zip(v, back, strict=True))
    right = sum((a * b).sum() for a, b in zip(product, u, strict=True))
    return "right" if torch.allclose(torch.as_tensor(left), torch.as_tensor(right), rtol=1e-6, atol=1e-9) else "wrong"


@pytest.mark.parametrize("name", sorted(values("forward")))
def test_forward_mode_is_missing_or_wrong_where_the_table_says_so(name: str) -> None:
    """Of PyTorch's own samples at least one shows it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = {
            _forward_mode(info, sample)
            for info in opinfos()
            if short(info.name).lstrip("_") == name
            for sample in itertools.islice(info.sample_inputs("cpu", torch.float64, requires_grad=False), 40)
        }
    assert values("forward")[name] in seen
