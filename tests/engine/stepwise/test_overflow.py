"""The first step that overflows in the dtype that was sent is found; infinity that float64 has too is none."""

from __future__ import annotations

from weakref import ReferenceType, ref

import orjson
import pytest
import torch
from torch import Tensor

from app.catalogue.facts import operations_with
from app.engine.stepwise.overflow import first_overflow
from app.engine.stepwise.point import Point, step_of
from app.limits import Limits
from app.road import Request, Road
from tests.engine.building import program


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = x + 1\nb = a ** 2\nc = b * 2\n1 / c", 2),
        ("a = x / 0\n1 / a", None),
        ("a = x.masked_fill(x > 0, -inf)\nexp(a)", None),
    ],
)
def test_first_overflow(text: str, line: int | None) -> None:
    leaves = {"x": torch.tensor([300.0, 2.0], dtype=torch.float16)}
    function = program(text, leaves)
    for at, batched in ((leaves, ()), ({"x": torch.stack([leaves["x"], leaves["x"] / 300])}, ("x",))):
        node = first_overflow(function, at, None, batched)
        step = None if node is None else step_of(node)
        assert (None if step is None else step.line) == line


HIDING = {
    "normalize": "torch.nn.functional.normalize(x, dim=0)",
    "cosine_similarity": "torch.nn.functional.cosine_similarity(x, x * 0.5 + x.flip(0), dim=0)",
    "local_response_norm": "torch.nn.functional.local_response_norm(x.view(1, 4, 1), 2)",
    "rms_norm": "torch.nn.functional.rms_norm(x, (4,))",
    "batch_norm": "torch.nn.functional.batch_norm(x.view(4, 1), None, None, training=True)",
    "instance_norm": "torch.nn.functional.instance_norm(x.view(1, 1, 4))",
    "renorm": "torch.renorm(x.view(1, 4), 2, 0, 1.0)",
}


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("name", sorted(operations_with("hides_overflow")))
def test_a_step_that_gives_zero_where_a_number_within_it_is_infinite(name: str) -> None:
    """Alone, and in a batch of which one sample shows it; ordinary numbers show nothing."""
    small = torch.tensor([3.0, 2.0, -1.0, 0.5])
    large = {"x": small * 1e30}
    function = program(f"a = x * 1\n{HIDING[name]}", large)
    points: list[tuple[dict[str, Tensor], tuple[str, ...]]] = [(large, ())]
    if name != "batch_norm":  # whose batches PyTorch computes otherwise, without an overflow
        points.append(({"x": torch.stack([small, small * 1e30])}, ("x",)))
    for at, batched in points:
        node = first_overflow(function, at, None, batched)
        step = None if node is None else step_of(node)
        assert step is not None
        assert step.line == 2
    assert first_overflow(function, {"x": small}, None) is None
    assert first_overflow(function, {"x": small * 1e6}, None) is None


@pytest.mark.parametrize("text", [HIDING["local_response_norm"], HIDING["normalize"]])
def test_it_is_noted_beside_derivatives_also_by_the_short_cut(text: str) -> None:
    road, noted = Road(Limits(), "cpu"), []
    for size in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1e30):
        body = orjson.dumps(
            {"program": text, "inputs": {"x": [3 * size, 2 * size, -size, size]}, "dtype": "float32", "want": ["vjp"]}
        )
        reply = road.answer(Request("query", "a", "application/json", None, None, memoryview(body)), lambda _: None)
        while road.improve():
            pass
        noted.append("a number within this step" in b"".join(map(bytes, reply.buffers)).decode())
    assert noted == [False] * 6 + [True]


def test_results_that_no_later_step_needs_are_dropped() -> None:
    leaves = {"x": torch.ones(4)}
    point = Point(program("a = x + 1\nb = a * 2\nc = b * 3\nc.sum()", leaves), leaves, None)
    alive = []
    results: list[ReferenceType[Tensor]] = []
    for _, result in point.in_order():
        results.append(ref(result))
        del result
        alive.append(sum(each() is not None for each in results))
    assert len(alive) == 4
    assert max(alive) <= 2
