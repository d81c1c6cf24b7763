"""What is known of single operations beyond their signatures: `facts.json`, a row for each, and the source of each kind of fact.

A row is called as a program calls the operation, without namespace: `softmax`, `pinv`; a sign by its name in Python's module
`operator`: `truediv`. A new fact is an entry there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson

FILE: Final = Path(__file__).with_name("facts.json")
# Signs of the language, as Python's module `operator` calls them.
OPERATORS: Final[dict[str, str]] = {
    "+": "add", "-": "sub", "*": "mul", "/": "truediv", "//": "floordiv", "%": "mod", "**": "pow", "@": "matmul", "<": "lt", "<=": "le",
    ">": "gt", ">=": "ge", "==": "eq", "!=": "ne", "&": "and", "|": "or", "^": "xor", "<<": "lshift", ">>": "rshift", "-x": "neg", "+x": "pos",
    "~x": "invert", "[]": "getitem", "[]=": "setitem",
}  # fmt: skip


@cache
def _table() -> Mapping[str, Any]:
    table: dict[str, Any] = orjson.loads(FILE.read_bytes())
    return table


def rows() -> Mapping[str, Mapping[str, Any]]:
    """Operation → fact → value."""
    operations: Mapping[str, Mapping[str, Any]] = _table()["operations"]
    return operations


def kinds_of_fact() -> Mapping[str, Mapping[str, Any]]:
    """Fact → what it means, which values it takes, and its source or the measurement that showed it."""
    facts: Mapping[str, Mapping[str, Any]] = _table()["facts"]
    return facts


@cache
def values(fact: str) -> Mapping[str, Any]:
    """Operation → value, of one kind of fact."""
    if fact not in kinds_of_fact():
        raise KeyError(fact)
    return {name: row[fact] for name, row in rows().items() if fact in row}


@cache
def operations_with(fact: str, value: Any = True) -> frozenset[str]:
    """The operations of which a fact has this value, or this one among its values."""
    return frozenset(name for name, own in values(fact).items() if own == value or (isinstance(own, list) and value in own))


def sentence(key: str) -> str:
    """A sentence of the table; `{x}`, `{dim}`, `{call}` and `{safe_call}` in it are holes."""
    text: str = _table()["sentences"][key]
    return text


def instead(what: str, operation: str) -> str | None:
    """What to write instead of `operation`, where `what` happens to a derivative; None where nothing is known.

    Arguments:
        what: `integer`, `kink`, `singular`…: a key of `instead_of_any`.
    """
    own = rows().get(operation, {}).get("instead", {})
    key = own[what] if what in own else _table()["instead_of_any"][what]
    return None if key is None else sentence(key)


def short(name: str) -> str:
    """A catalogue name without its namespace, or a sign's in words, as the rows are called."""
    return OPERATORS.get(name) or name.rpartition(".")[2]
