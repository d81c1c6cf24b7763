"""Recipes that stage their numbers, here with the CPU in the place of a GPU: the same bits as the plain recipe."""

from __future__ import annotations

import random
from array import array
from functools import partial

import numpy as np
import orjson
import pytest

from app.catalogue.read import operations
from app.engine.cuda.cuda_recipe import CudaRecipe
from app.engine.engine import Engine
from app.engine.recipes import Numbers, recipe
from app.errors import PullbackError
from app.limits import Limits
from app.program.functions import load
from app.protocols.message import Message
from app.protocols.native import bodies
from app.protocols.native.repetition import taking_apart
from tests.engine.cuda.test_graphs import Recorder

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's, of deprecated operations; a worker ignores them too
RUNS = 18  # two more than are needed for a recording
PROGRAMS = (
    {"program": "return (softmax(x @ w, 1) ** 2).sum()", "inputs": {"x": [[1.0, 2.0]], "w": [[0.5, 0.1], [0.2, 0.3]]}},
    {"program": "return {'a': x * y, 'n': x.shape[0] * y}", "inputs": {"x": [1, 2, 3], "y": [0.5, 1.5, 2.5]}},
)
ENGINE = Engine(Limits(), "cpu", load(None))


def moved(numbers: array[float] | array[int], draws: random.Random) -> Numbers:
    """The same with others near them, probabilities again; integers, which may be places, stay."""
    return array(numbers.typecode, [n * draws.uniform(0.9, 1.0) for n in numbers]) if numbers.typecode in "df" else numbers


def is_the_same(text: dict[str, object]) -> bool | None:
    """Whether a staged recipe gives the plain one's bits, run by run; None where the query has none."""
    body = orjson.dumps(text)
    query = bodies.read(memoryview(body), None, None, Limits())
    take_apart = taking_apart(Message("query", memoryview(body)))
    repetition = None if take_apart is None else take_apart(body)
    if repetition is None:
        return None
    try:
        ENGINE.answer(query)
        plain = ENGINE.recipe(query, repetition.names)
    except PullbackError:
        return None
    if plain is None:
        return None
    recorder = Recorder()
    staged = recipe(query, ENGINE.prepared(query), repetition.names, partial(CudaRecipe, device="cpu", record=recorder.record))
    assert staged is not None
    staged.always_zero = plain.always_zero
    draws, pairs, queries = random.Random(0), [], []
    for _ in range(RUNS):
        numbers = [sent if isinstance(sent, memoryview) else moved(sent, draws) for sent in repetition.numbers]
        queries.append(numbers)
        expected = [(str(one.dtype), one.shape, one.tobytes()) for one in plain.run(numbers) or ()]
        pairs.append((expected, staged.run(numbers)))
    # Compared at the end: a staged recipe's results stand in memory of their own.
    together = staged.run_together(queries) if all(arrays is not None for _, arrays in pairs) else []
    for expected, arrays in [*pairs, *zip([expected for expected, _ in pairs], together, strict=False)]:
        if expected != [(str(one.dtype), one.shape, one.tobytes()) for one in arrays or ()]:
            return False
    assert recorder.replayed > 1
    return True


@pytest.mark.parametrize("text", PROGRAMS, ids=lambda text: str(next(iter(text.values()))))
@pytest.mark.parametrize("want", [["outputs"], ["vjp"], ["outputs", "vjp"]], ids="+".join)
def test_programs(text: dict[str, object], want: list[str]) -> None:
    assert is_the_same({**text, "want": want})


@pytest.mark.parametrize("part", range(2))
def test_operations_of_the_catalogue(part: int) -> None:
    examples = [operation.example for operation in operations().values()][3 * part :: 7]
    same = [is_the_same(dict(example)) for example in examples]
    assert np.count_nonzero([verdict is True for verdict in same]) > 30
    assert False not in same, [
        example["operation"] for example, verdict in zip(examples, same, strict=True) if verdict is False
    ]


def test_a_zero_that_digits_were_lost_in_takes_the_whole_road_alone() -> None:
    """(1e-200)² is no zero: of the queries that are launched together, the one that gives it is not answered by its recipe."""
    body = orjson.dumps({"program": "x * y", "inputs": {"x": 0.5, "y": 0.25}, "want": ["outputs"]})
    query = bodies.read(memoryview(body), None, None, Limits())
    take_apart = taking_apart(Message("query", memoryview(body)))
    assert take_apart is not None
    ENGINE.answer(query)
    repetition = take_apart(body)
    assert repetition is not None
    staged = recipe(
        query, ENGINE.prepared(query), repetition.names, partial(CudaRecipe, device="cpu", record=Recorder().record)
    )
    assert staged is not None
    numbers = [[array("d", [n]), array("d", [m])] for n, m in ((0.5, 0.25), (1e-200, 1e-200))]
    together = [None if rows is None else [float(row) for row in rows] for rows in staged.run_together(numbers)]
    assert together == [[0.125], None]
    assert staged.run(numbers[1]) is None
