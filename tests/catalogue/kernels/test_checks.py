"""What PyTorch would add up term by term for minutes is refused where it costs more than a second, and nothing else is."""

from __future__ import annotations

import time

import pytest
import torch

from app.catalogue.kernels.checks import ZETA_LIMIT
from app.errors import PullbackError
from tests.engine.asking import ask, results

FAR = -10.0 * ZETA_LIMIT - 0.25
COSTLY = [
    ("polygamma(2, x)", FAR, "outputs"),
    ("polygamma(5, x)", FAR, "vjp"),
    ("polygamma(1, x)", FAR, "vjp"),
    ("polygamma(1, x)", FAR, "explain"),
    ("polygamma(1, x)", FAR, "check"),
    ("x.digamma()", FAR, "hessian"),
    ("special.zeta(3, x)", FAR, "outputs"),
    ("special.zeta(tensor(3.0, dtype=float64), x)", FAR, "vjp"),
    ("polygamma(2, x.expand(1000)).sum()", FAR / 1000, "outputs"),
]
# Steps whose memory values or numbers say, before which a plan on fakes knows nothing of it; and draws that PyTorch cannot count.
BEYOND = [
    ("bincount(torch.tensor([10 ** 9]))", "too_costly", "1,000,000,001 bins"),
    ("bincount(torch.tensor([1]), minlength=10 ** 9)", "too_costly", "1,000,000,000 bins"),
    ("histogram(x, 10 ** 9)", "too_costly", "1,000,000,000 bins"),
    ("histogramdd(x.expand(4, 3), [1000] * 3)", "too_costly", "1,000,000,000 bins"),
    ("mvlgamma(x + 1e10, 10 ** 9)", "too_costly", "1,000,000,000 terms"),
    ("poisson(x * 1e30)", "operation_failed", "rates go up to 9e+18"),
]
CHEAP = [
    ("polygamma(2, x)", -1e6 - 0.25, 124.02510672119826),
    ("polygamma(2, x)", 1e9, -1e-18),
    ("polygamma(2, x)", -10.0 * ZETA_LIMIT, float("-inf")),  # a pole
    ("polygamma(1, x)", FAR, None),
    ("digamma(x)", FAR, None),
    ("special.zeta(2.5, x)", FAR, float("nan")),
    ("special.zeta(0.5, x)", FAR, float("nan")),
    ("special.zeta(x, 0.5)", FAR, float("nan")),
    ("special.zeta(3, x)", 0.5, 8.414398322117158),
]


@pytest.mark.parametrize(("text", "at", "want"), COSTLY)
def test_long_sums_are_refused(text: str, at: float, want: str) -> None:
    with pytest.raises(PullbackError, match="one term for each whole number") as refused:
        ask(program=text, inputs={"x": [at]}, want=[want])
    assert refused.value.code == "too_costly"


@pytest.mark.parametrize(("text", "code", "words"), BEYOND)
def test_what_is_beyond_all_memory_or_counting_is_refused_before_it_runs(text: str, code: str, words: str) -> None:
    with pytest.raises(PullbackError) as refused:
        ask(program=text, inputs={"x": [1.0]}, want=["outputs"], seed=0)
    assert refused.value.code == code
    assert words in refused.value.detail


@pytest.mark.parametrize(("text", "at", "value"), CHEAP)
def test_what_ends_at_once_is_answered(text: str, at: float, value: float | None) -> None:
    begun = time.process_time()
    answer = torch.tensor(results(program=text, inputs={"x": [at]}, want=["outputs"])["outputs"]["output"])
    assert time.process_time() - begun < 60
    if value is not None:
        assert torch.allclose(answer, torch.tensor([value], dtype=torch.float64), rtol=1e-9, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("number", [3, 2.5, True])
def test_a_plain_number_keeps_the_dtype_of_zeta(dtype: torch.dtype, number: float) -> None:
    """The guarded kernel is given it as a tensor, with the precision that PyTorch computes in."""
    for x in (torch.tensor([2, 4], dtype=dtype), torch.tensor(4, dtype=dtype)):
        common = torch.promote_types(torch.result_type(x, number), torch.float32)
        same = torch.full_like(x, number, dtype=common)
        for answer, expected in (
            (torch.special.zeta(x, number), torch.special.zeta(x.to(common), same)),
            (torch.special.zeta(number, x), torch.special.zeta(same, x.to(common))),
        ):
            assert answer.dtype == common
            assert torch.equal(answer, expected)
