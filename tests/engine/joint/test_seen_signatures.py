"""A signature is worth a recipe when it comes again; one that failed is tried again some times, and its memory is counted."""

from __future__ import annotations

import sys

import orjson
import pytest

from app.engine.joint.seen_signatures import SeenSignatures, held_bytes
from app.limits import Limits
from app.road import Request, Road


def answered(road: Road, program: str, x: list[object]) -> bytes:
    query = {"program": program, "inputs": {"x": x}, "want": ["gradient"]}
    return b"".join(
        map(
            bytes, road.answer(Request("query", "a", None, None, None, memoryview(orjson.dumps(query))), lambda _: None).buffers
        )
    )


def test_of_each_two_the_second_is_known() -> None:
    seen = SeenSignatures()
    assert [seen.is_second(("a",)) for _ in range(4)] == [False, True, False, True]
    assert not seen.is_second(("b",))


def test_failures_are_forgiven_some_times() -> None:
    seen = SeenSignatures()
    assert [seen.failed("a") for _ in range(4)] == [True, True, True, False]
    assert seen.failed("b")


@pytest.mark.parametrize(
    ("program", "unusual", "usual"),
    [
        ("log(x).sum()", [0.0, 1.0], [2.0, 1.0]),  # the gradient is infinite
        ("linalg.inv(x).sum()", [[1.0, 1.0], [1.0, 1.0 + 1e-14]], [[2.0, 1.0], [1.0, 3.0]]),  # nearly singular
    ],
)
def test_unusual_numbers_do_not_decide_for_those_that_follow(program: str, unusual: list[object], usual: list[object]) -> None:
    road = Road(Limits(), "cpu")
    for _ in range(3):
        answered(road, program, unusual)
    assert len(road.recipes) == 0
    bodies = {answered(road, program, usual) for _ in range(4)}
    assert len(road.recipes) == 1
    assert len(bodies) == 1


def test_who_is_always_unusual_costs_a_bounded_number_of_tries() -> None:
    road = Road(Limits(), "cpu")
    for _ in range(20):
        answered(road, "linalg.inv(x).sum()", [[1.0, 1.0], [1.0, 1.0 + 1e-14]])
    assert len(road.recipes) == 0
    assert len(road.recipes.by_signature) == 1  # that there is none


def test_what_is_held_is_counted() -> None:
    program = "x * 1.0 + " + "1.0 + " * 500 + "x.sum()"
    assert held_bytes(("program", program)) > len(program)
    assert held_bytes(("a", frozenset({int}), (1, 2))) > sys.getsizeof("a")
    road = Road(Limits(), "cpu")
    x = [0.1234567890123456] * 3000  # 60 kB of text there, and back
    for _ in range(3):
        answered(road, "(x * x).sum()", list(x))
    assert len(road.recipes) == 1
    ((_, size),) = road.recipes.by_signature.values()
    assert 3000 * 8 < size < 60_000
