"""An operation that comes with other shapes is planned in another way, and answered alike: the same plan, the same outputs."""

from __future__ import annotations

from typing import Any

import pytest

from app.catalogue.read import operations
from app.engine.engine import Engine
from app.errors import PullbackError
from app.limits import Limits
from app.program.functions import load
from app.protocols.native import bodies, native_query

FUNCTIONS = load(None)
STEPS = 5


def longer(tensor: Any, by: int) -> Any:
    """The list with its first members again behind it."""
    if isinstance(tensor, dict):
        return {**tensor, "data": longer(tensor["data"], by)} if set(tensor) == {"data", "dtype"} else tensor
    return tensor + (tensor * by)[:by] if isinstance(tensor, list) and tensor else tensor


def told(engine: Engine, query: dict[str, Any]) -> Any:
    """The plan, the notes, and what there is of each output; or the refusal."""
    try:
        answer = engine.answer(native_query.query(query))
    except PullbackError as error:
        return error.code, error.detail
    return answer.plan, answer.notes, {name: (data.dtype, data.shape) for name, data in answer.results["outputs"].items()}


@pytest.mark.parametrize("part", range(3))
def test_other_shapes_are_planned_alike(part: int) -> None:
    answered = 0
    for operation in list(operations().values())[part::6]:
        used = Engine(Limits(), "cpu", FUNCTIONS)
        for by in range(STEPS):
            inputs = {name: longer(value, by) for name, value in operation.example["inputs"].items()}
            query = {**operation.example, "inputs": inputs, "want": ["outputs"]}
            query.pop("cotangent", None)
            fresh = told(Engine(Limits(), "cpu", FUNCTIONS), query)
            assert told(used, query) == fresh, (operation.name, by)
            answered += len(fresh) == 3
    assert answered > 150


def test_what_grows_is_planned_before_it_is_made() -> None:
    """Of two elements to three the memory may grow from nothing to all: the plan on fakes comes first, and refuses it."""
    engine = Engine(Limits(memory_bytes=1 << 28, result_bytes=1 << 26), "cpu", FUNCTIONS)

    def combined(count: int) -> Any:
        body = b'{"operation": "cartesian_prod", "inputs": {"tensors": [%b]}}' % b",".join(
            [b"[%b]" % b",".join([b"0.5"] * count)] * 6
        )
        return engine.answer(bodies.read(memoryview(body), None, None, Limits()))

    for count in (2, 3, 4):
        combined(count)
    with pytest.raises(PullbackError, match=r"result_too_large|too_costly"):
        combined(30)
