"""Batches of PyTorch's own samples, altered so that each is another case: every sample has the numbers that it has alone."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from app.engine.batching import _looked_at
from app.engine.planning.cost import Counter
from app.engine.tensors import from_torch, to_torch
from app.errors import PullbackError
from app.query import Answer, Query, SparseData, TensorData
from tests.engine.asking import ENGINE, array, ask, results
from tests.op_db import Case, cases, differentiable_page

SMALL = 40  # elements of all inputs
EVERY = 60  # of the operations: each takes a tenth of a second
FIRST = {torch.float64: 3, torch.bfloat16: 20, torch.complex128: 40}
KINDS = ("vjp", "jvp", "jacobian")
TOLERANCES = {torch.float64: 1e-8, torch.bfloat16: 6e-2, torch.complex128: 1e-8}


def altered(tensor: Tensor) -> list[Tensor]:
    """As it is; with zeros; rounded, so that there are ties; with equal rows, so that matrices are singular; with a NaN; negative; uneven."""
    if not tensor.dtype.is_floating_point and not tensor.dtype.is_complex:
        return [tensor] * 7
    generator = torch.Generator().manual_seed(tensor.numel())
    zeros, equal, odd, uneven = (tensor.clone() for _ in range(4))
    zeros[torch.rand(tensor.shape, generator=generator) < 0.4] = 0
    if tensor.dim() >= 2 and tensor.shape[-2] > 1:
        equal[..., 1, :] = equal[..., 0, :]
    if tensor.numel():
        odd.reshape(-1)[-1] = float("nan")
        uneven.reshape(-1)[0] *= 1e6
    rounded = torch.complex(tensor.real.round(), tensor.imag.round()) if tensor.dtype.is_complex else tensor.round()
    return [tensor, zeros, rounded, equal, odd, -tensor, uneven]


def chosen(dtype: torch.dtype) -> Iterator[Case]:
    for case in itertools.islice(cases(differentiable_page, 1, dtype), FIRST[dtype], None, EVERY):
        if isinstance(case, str):
            continue
        tensors = [t for value in case.inputs.values() for t in (value if isinstance(value, list) else [value])]
        if sum(tensor.numel() for tensor in tensors) <= SMALL:
            yield case


def asked(case: Case, inputs: Mapping[str, Any], kind: str, batched: tuple[str, ...] = ()) -> Answer | PullbackError:
    parameters = {name: tuple(value) if isinstance(value, list) else value for name, value in case.parameters.items()}
    try:
        return ENGINE.answer(
            Query(operation=case.operation, inputs=inputs, parameters=parameters, want=(kind,), batched=batched, seed=1)
        )
    except PullbackError as refusal:
        return refusal


def of_samples(case: Case) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The inputs of each sample, and of all together."""
    members = {name: value if isinstance(value, list) else [value] for name, value in case.inputs.items()}
    variants = {name: [altered(tensor) for tensor in value] for name, value in members.items()}

    def sent(name: str, tensors: list[Tensor]) -> Any:
        data = tuple(from_torch(tensor.contiguous()) for tensor in tensors)
        return data if isinstance(case.inputs[name], list) else data[0]

    alone = [{name: sent(name, [t[index] for t in value]) for name, value in variants.items()} for index in range(7)]
    return alone, {name: sent(name, [torch.stack(t) for t in value]) for name, value in variants.items()}


def assert_same(together: Any, alone: Any, index: int, tolerance: float, is_noted: bool, what: str) -> None:
    if isinstance(alone, Mapping):
        assert together.keys() == alone.keys(), what
        for key, value in alone.items():
            assert_same(together[key], value, index, tolerance, is_noted, f"{what}.{key}")
        return
    assert isinstance(alone, TensorData)
    assert not isinstance(together, SparseData)
    wide = torch.complex128 if alone.dtype.startswith("complex") else torch.float64
    got, right = to_torch(together, "cpu")[index].to(wide), to_torch(alone, "cpu").to(wide)
    assert got.shape == right.shape, what
    finite = got.isfinite() & right.isfinite()
    assert is_noted or torch.equal(got.isfinite(), right.isfinite()), what
    scale = float(right[finite].abs().max()) if bool(finite.any()) else 0.0
    assert bool(((got - right)[finite].abs() <= tolerance * scale).all()), f"{what}\n{got}\n{right}"


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
def test_samples_that_differ(dtype: torch.dtype) -> None:
    count = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in chosen(dtype):
            alone, stacked = of_samples(case)
            for kind in KINDS:
                single = [asked(case, inputs, kind) for inputs in alone]
                together = asked(case, stacked, kind, tuple(stacked))
                if any(isinstance(answer, PullbackError) for answer in single):
                    continue
                assert isinstance(together, Answer), (case.operation, kind, together)
                is_noted = "non_finite" in {note.code for note in together.notes}
                for index, one in enumerate(single):
                    assert isinstance(one, Answer)
                    what = f"{kind} of sample {index} of {case.operation}"
                    assert_same(together.results, one.results, index, TOLERANCES[dtype], is_noted, what)
                    count += 1
    assert count > 20


@pytest.mark.parametrize("program", ["x.logit(eps=0.1)", "x.prod(0)", "x.sigmoid() * x"])
@pytest.mark.parametrize("where", [1, 2, 4])
def test_not_a_number_in_one_sample(program: str, where: int) -> None:
    """Whether a derivative there is NaN does not hang on the samples beside it."""
    x = np.random.default_rng(where).normal(size=(6, 4))
    x[where, 1] = np.nan
    together = results(program=program, inputs={"x": x}, want=("vjp",), batched=("x",))["vjp"]["x"]
    for sample, rows in zip(x, together, strict=True):
        np.testing.assert_allclose(
            rows, results(program=program, inputs={"x": sample}, want=("vjp",))["vjp"]["x"], 1e-12, 1e-12
        )


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_not_a_number_behind_an_infinite_sample(form: Any) -> None:
    """The batching rule of `logit` with `eps` gives infinity its zero, and NaN the same."""
    x = np.full((40, 1), 0.3)
    x[3], x[5] = np.inf, np.nan
    jacobian = ask(program="x.logit(eps=0.1)", inputs={"x": x}, want=("jacobian",), batched=("x",), format=form).results[
        "jacobian"
    ]
    block = jacobian["output"]["x"]
    values = array(block.values if isinstance(block, SparseData) else block).reshape(-1)
    assert np.isnan(values).nonzero()[0].tolist() == [5]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_the_first_sample_that_is_not_finite_is_looked_at_without_a_copy_of_the_batch(
    dtype: torch.dtype, number: float
) -> None:
    leaf = torch.zeros(80, 1000, dtype=dtype)
    leaf[3, 7] = leaf[5, 0] = number
    with Counter() as counter:
        assert 3 in _looked_at(80, [leaf])
    assert counter.largest <= 16000  # bytes, of these two samples; truth values of all numbers take 80,000


def test_of_samples_that_are_not_finite_alike_one_is_looked_at_and_each_place_in_one() -> None:
    samples = 3000
    alike = torch.zeros(samples, 3)
    alike[:, 1] = math.nan
    alike[7, 2] = math.inf
    assert 7 in (looked := _looked_at(samples, [alike]))
    assert len(looked) <= 4
    scattered = torch.zeros(samples, 40)
    scattered[torch.rand(samples, 40, generator=torch.Generator().manual_seed(0)) < 0.1] = math.nan
    scattered[9, 5] = -math.inf
    looked = _looked_at(samples, [scattered[:, :20], scattered[:, 20:]])
    assert len(looked) < 100
    assert bool(scattered[looked].isnan().any(0).all())
    assert 9 in looked
