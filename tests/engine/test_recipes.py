"""Recipes are made for what comes again, and kept within bounds, the least recently used forgotten first."""

from __future__ import annotations

import json

import pytest

from app.engine.recipes import Recipes
from app.limits import Limits
from app.protocols.message import Message
from app.protocols.native.repetition import taking_apart
from app.road import Request, Road

BODY = json.dumps({"operation": "exp", "inputs": {"input": [0.5, 1.5]}, "want": ["vjp"]}).encode()


def test_a_recipe_is_made_when_a_query_comes_again() -> None:
    road = Road(Limits(), "cpu")
    take_apart = taking_apart(Message("query", memoryview(BODY)))
    repetition = None if take_apart is None else take_apart(BODY)
    assert repetition is not None
    for times in range(3):
        assert (road.recipes.get(repetition.signature) is not None) is (times == 2)
        assert road.answer(Request("query", "a", None, None, None, memoryview(BODY)), lambda _: None).status == 200


@pytest.mark.parametrize(("size", "kept"), [(1 << 10, 512), (1 << 20, 31)])
def test_their_number_and_their_bytes_are_bounded(size: int, kept: int) -> None:
    recipes = Recipes()
    recipes.keep("first", None, size)
    for number in range(2000):
        assert not recipes.is_due("first"), "it is known to have none"
        recipes.get("first")
        recipes.keep(number, None, size)
    assert recipes.is_due(1998 - kept) is recipes.is_due(0) is False, "forgotten, so they are seen for the first time"
    assert recipes.is_due(1998 - kept) is recipes.is_due(0) is True
    assert not recipes.is_due(2001 - kept), "still known"
    assert not recipes.is_due(2001 - kept)
    assert not recipes.is_due("first")
