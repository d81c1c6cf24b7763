"""Stacks answer each query of several with its own numbers, and say how many are worth a stack."""

from __future__ import annotations

import json
import random

import pytest

from app.engine.joint.proof import Joint
from app.engine.joint.stacks import Stacks
from app.limits import Limits
from app.road import Request, Road, TakenApart


@pytest.mark.parametrize(
    ("count", "best"), [(1, 1), (2, 2), (4, 4), (5, 4), (7, 4), (8, 8), (16, 16), (17, 16), (40, 40), (64, 64), (99, 64)]
)
def test_how_many_are_computed_together(count: int, best: int) -> None:
    assert Stacks([], Joint(fewest={4: 2, 16: 8, 64: 33})).best(count) == best
    assert Stacks([], Joint()).best(count) == 1


def test_one_that_is_not_finite_is_asked_alone_and_the_others_are_answered() -> None:
    road = Road(Limits(), "cpu")
    number = random.Random(1)

    def taken(values: list[float]) -> TakenApart:
        body = json.dumps({"program": "return (exp(x) * x).sum()", "inputs": {"x": values}, "want": ["gradient"]}).encode()
        request = Request("query", "a", None, None, None, memoryview(body))
        road.answer(request, lambda _: None)
        take_apart = road.taking_apart(request)
        parts = None if take_apart is None else take_apart(body)
        assert parts is not None
        return parts

    for _ in range(12):
        taken([number.random() for _ in range(3)])
    while road.improve():
        pass
    queries = [taken([number.random(), 1e6 if place == 1 else 0.5, 1.0]) for place in range(3)]
    prepared = queries[0].prepared
    assert prepared is not None
    if prepared.recipe.stacks.best(3) < 3:
        pytest.skip("on this machine a stack took no less time just now")
    first, second, third = road.repeated_together(prepared, [query.repetition for query in queries])
    assert second is None
    assert first is not None
    assert third is not None
    for reply, query in ((first, queries[0]), (third, queries[2])):
        alone = road.repeated(prepared, query.repetition)
        assert alone is not None
        assert reply.buffers == alone.buffers
