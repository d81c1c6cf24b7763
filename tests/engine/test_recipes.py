"""Recipes are made for what comes again, and kept within bounds, the least recently used forgotten first."""

from __future__ import annotations

import json
from array import array

import numpy as np
import pytest

from app.engine.recipes import PreparedReply, Recipes
from app.limits import Limits
from app.protocols.message import Message
from app.protocols.native.repetition import taking_apart
from app.query import Query
from app.road import Request, Road
from tests.engine.asking import ENGINE, data

BODY = json.dumps({"operation": "exp", "inputs": {"input": [0.5, 1.5]}, "want": ["vjp"]}).encode()


def test_a_recipe_is_made_when_a_query_comes_again() -> None:
    road = Road(Limits(), "cpu")
    take_apart = taking_apart(Message("query", memoryview(BODY)))
    repetition = None if take_apart is None else take_apart(BODY)
    assert repetition is not None
    for times in range(3):
        assert (road.recipes.get(repetition.signature) is not None) is (times == 2)
        assert road.answer(Request("query", "a", None, None, None, memoryview(BODY)), lambda _: None).status == 200


@pytest.mark.parametrize(("size", "remaining"), [(1 << 10, 512), (1 << 20, 31)])
def test_their_number_and_their_bytes_are_bounded(size: int, remaining: int) -> None:
    recipes = Recipes()
    recipes.add("first", None, size)
    for number in range(2000):
        assert not recipes.is_due("first"), "it is known to have none"
        recipes.get("first")
        recipes.add(number, None, size)
    assert recipes.is_due(1998 - remaining) is recipes.is_due(0) is False, "forgotten, so they are seen for the first time"
    assert recipes.is_due(1998 - remaining) is recipes.is_due(0) is True
    assert not recipes.is_due(2001 - remaining), "still known"
    assert not recipes.is_due(2001 - remaining)
    assert not recipes.is_due("first")


def test_proofs_that_are_due_keep_no_more_than_recipes_may() -> None:
    """A Jacobian's recipe keeps its unit rows, here 2 MiB, and a proof that is due keeps the recipe, forgotten or not."""
    recipes, due, due_bytes = Recipes(), 0, 0
    for factor in range(12):
        query = Query(program=f"sin(x) * {factor + 2}.5", inputs={"x": data(np.ones(512))}, want=("jacobian",))
        recipe = ENGINE.recipe(query, None)
        assert recipe is not None
        assert recipe.bytes >= 512 * 512 * 8
        prepared = PreparedReply(recipe, lambda _: None, "", {}, {})
        for number in range(8):
            recipes.note(factor, prepared, [array("d", [number] * 512)], 1e-4)
        if recipe.came is None:
            due, due_bytes = due + 1, due_bytes + recipe.bytes
    assert due > 1
    assert due_bytes <= 16 << 20
