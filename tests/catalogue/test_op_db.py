"""PyTorch's own samples through bind and invoke: the outputs are PyTorch's."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from app.catalogue.bind import bind
from app.catalogue.call import invoke
from app.catalogue.operation_page import page
from app.catalogue.read import find
from app.errors import PullbackError
from tests.op_db import SEED, Case, cases, equal, is_excepted, tensors, title

SAMPLES = 3


def _page(name: str) -> Mapping[str, Any] | None:
    try:
        operation = find(name)
    except PullbackError:
        return None
    return None if name not in (operation.name, *operation.aliases) else page(operation)


def _answer(case: Case) -> Any:
    counts = {name: len(value) if isinstance(value, list) else None for name, value in case.inputs.items()}
    bound = bind(find(case.operation), counts, case.parameters)
    leaves = {}
    for name, value in case.inputs.items():
        leaves.update({f"{name}.{i}": t for i, t in enumerate(value)} if isinstance(value, list) else {name: value})
    torch.default_generator.manual_seed(SEED)
    return invoke(bound, leaves)


def _agrees(case: Case) -> str:
    """Empty where the answer is PyTorch's, else what is wrong."""
    expected = tensors(case.expected())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answered = tensors(_answer(case))
    except (PullbackError, RuntimeError, TypeError, ValueError, IndexError, AttributeError, AssertionError) as error:
        return f"{title(case.info)}: sample {case.number}: {str(error)[:200]}"
    same = len(expected) == len(answered) and all(equal(e, f) for e, f in zip(expected, answered, strict=True))
    return "" if same else f"{title(case.info)}: sample {case.number}: another result"


def test_the_catalogue_answers_as_pytorch_does() -> None:
    """At least 97 % of the samples, and every operation that fails is one whose samples cannot be read from its signature."""
    wrong: list[str] = []
    count = 0
    operations: Counter[str] = Counter()
    for case in cases(_page, SAMPLES):
        count += 1
        fault = case if isinstance(case, str) else _agrees(case)
        operations[case.partition(":")[0] if isinstance(case, str) else case.operation] += 1
        if fault:
            wrong.append(fault)
    assert len(operations) > 480
    assert len(wrong) <= 0.03 * count, wrong
    unknown = [fault for fault in wrong if not is_excepted(fault.partition(":")[0])]
    assert not unknown, unknown
