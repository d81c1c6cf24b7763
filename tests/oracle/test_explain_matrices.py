"""explain at matrices of deficient rank, repeated and complex eigenvalues, and at norms of zeros: verdict, elements, reason and advice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.building import explained

RANK_1 = [[1.0, 2.0], [2.0, 4.0]]
EYE = [[1.0, 0.0], [0.0, 1.0]]
HERMITIAN = torch.tensor([[2, 1 + 1j], [1 - 1j, 3]], dtype=torch.complex128)
COMPLEX = torch.tensor([[1 + 1j, 2], [3, 1 - 3j]], dtype=torch.complex128)
REAL = [[1.0, 2.0], [-3.0, 0.5]]  # its eigenvalues are complex

# Program in x, x, verdict, elements (None: not looked at), a word of the reason.
CASES: dict[str, tuple[str, Any, str, list[list[int]] | None, str]] = {
    "qr of deficient rank": ("linalg.qr(x)[0]", RANK_1, "singular", None, "linearly dependent"),
    "signs of qr": ("linalg.qr(x)[0]", EYE, "singular", [[0, 0]], "jumps"),
    "pinv of deficient rank": ("linalg.pinv(x)", RANK_1, "singular", None, "jumps"),
    "root norm beside a zero": ("linalg.vector_norm(x, 0.5)", [0.0, 2.0, 0.0], "singular", [[0], [2]], "without bound"),
    "angle of negative numbers": ("fft.fft(x).angle()", [-1.0, 1.0, 1.0], "singular", [[1], [2]], "jumps"),
    "mode": ("mode(x)[0]", [-1.0, 1.0, 1.0], "singular", [[1], [2]], "jumps"),
    "phase of eigenvectors": ("linalg.eigh(x)[1]", HERMITIAN, "singular", None, "e^(i phi)"),
    "phase of singular vectors": ("linalg.svd(x)[0]", COMPLEX, "singular", None, "e^(i phi)"),
    "phase of a real matrix's": ("linalg.eig(x)[1]", REAL, "singular", None, "e^(i phi)"),
    "sizes of eigenvectors": ("linalg.eigh(x)[1].abs()", HERMITIAN, "differentiable", [], ""),
    "sizes of singular vectors": ("linalg.svd(x)[0].abs()", COMPLEX, "differentiable", [], ""),
    "sizes of a real matrix's": ("linalg.eig(x)[1].abs()", REAL, "differentiable", [], ""),
    "projector": ("v = linalg.eigh(x)[1]\n(v[:, :1] @ v[:, :1].mH).abs()", HERMITIAN, "differentiable", [], ""),
    "eigenvalues": ("linalg.eigvals(x)", COMPLEX, "differentiable", [], ""),
    "no formula for complex numbers": ("nn.functional.silu(x)", COMPLEX, "disconnected", [], "of complex numbers"),
    "one path without a formula": ("nan_to_num(x).abs() * x.abs()", COMPLEX[:1], "disconnected", [[0, 0], [0, 1]], "of complex numbers"),
    "an edge beside others": ("nn.functional.kl_div(tensor([-1.0, -2.0]), x)", [0.0, 0.5], "singular", [[0]], "not a number"),
    "det of deficient rank": ("linalg.det(x)", RANK_1, "differentiable", [], ""),
}  # fmt: skip


# Singular, with a last pivot that is 0 on some processors and 1e-17 on others: the verdict is the same.
ROUNDED = ([[1.0, 1.0], [1.0, 1.0]], [[0.1, 0.2], [0.3, 0.6]], [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
DIVIDING = ("linalg.qr(x)[1]", "linalg.lu(x)[2]", "linalg.inv_ex(x)[0]", "logdet(x)", "linalg.pinv(x)", "linalg.cond(x)")


@pytest.mark.parametrize("text", DIVIDING)
def test_rounding_does_not_decide_whether_a_matrix_is_singular(text: str) -> None:
    for x in ROUNDED:
        entry = explained(text, x=x)["inputs"]["x"]
        assert entry["verdict"] == "singular", (x, entry)
        assert "cannot tell" not in str(entry)


@pytest.mark.parametrize(
    ("text", "x"),
    [
        ("linalg.inv(x)", [[0.1, 0.2], [0.3, 0.6]]),
        ("linalg.solve(B=eye(2), A=x)", [[0.1, 0.2], [0.3, 0.6]]),
        ("linalg.cholesky_ex(x)[0]", [[0.1, 0.3], [0.3, 0.9]]),
    ],
)
def test_what_inverts_a_matrix_that_is_singular_to_rounding(text: str, x: Any) -> None:
    entry = explained(text, x=x)["inputs"]["x"]
    assert (entry["verdict"], "singular here" in entry["because"]["reason"]) == ("singular", True)


def test_a_singular_matrix_that_no_derivative_passes_is_not_said() -> None:
    assert explained("x.sum() + linalg.qr(x)[1].detach().sum()", x=RANK_1)["inputs"]["x"]["verdict"] == "differentiable"
    assert explained("linalg.inv(x)", x=[[1.0, 0.0], [0.0, 1e-20]])["inputs"]["x"]["verdict"] == "differentiable"
    normal = "torch.distributions.MultivariateNormal(zeros(2, dtype=float64), linalg.cholesky_ex(eye(2, dtype=float64))[0])"
    assert explained(f"{normal}.log_prob(x)", x=[[0.0, 1.0]] * 3)["inputs"]["x"]["verdict"] == "differentiable"


@pytest.mark.parametrize("case", CASES)
def test_matrices(case: str) -> None:
    text, x, verdict, elements, word = CASES[case]
    report = explained(text, x=x)
    entry = report["inputs"]["x"]
    assert entry["verdict"] == verdict, entry
    assert elements is None or entry["elements"] == elements
    assert word in ((entry["because"] or {}).get("reason") or "")
    reasons = [finding["because"]["reason"] for finding in entry["findings"]]
    assert len(reasons) == len(set(reasons))


@pytest.mark.parametrize(("text", "x"), [("linalg.vector_norm(x, -inf)", [0.0, 0.0, 0.0]), ("linalg.qr(x)[1]", EYE)], ids=str)
def test_no_sentence_takes_another_back(text: str, x: Any) -> None:
    reasons = [finding["because"]["reason"] for finding in explained(text, x=x)["inputs"]["x"]["findings"]]
    assert not any("the whole does not" in reason for reason in reasons), reasons
    assert not any("of the function differ" in reason for reason in reasons), reasons


def test_the_way_out_of_the_signs_of_qr_is_smooth() -> None:
    text = "q, r = linalg.qr(x)\ns = r.diagonal().sign()\ncat([q * s, s[:, None] * r])"
    assert explained(text, x=EYE)["inputs"]["x"]["verdict"] == "differentiable"
    singular = explained("linalg.qr(x)[0]", x=RANK_1)["inputs"]["x"]
    assert "torch.cat([x, eps * eye(n)])" in singular["instead"]
    safe = explained("linalg.qr(torch.cat([x, 1e-3 * eye(2)]))[0].abs()", x=np.array(RANK_1).tolist())
    assert safe["inputs"]["x"]["verdict"] == "differentiable"
