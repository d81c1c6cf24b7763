"""check on derivations in closed form, in every precision: what is right agrees, and no mistake does."""

from __future__ import annotations

from typing import Any, Final

import pytest
import torch
from torch import Tensor

from tests.engine.building import checked
from tests.oracle import closed_forms, closed_matrices
from tests.oracle.closed_forms import Form
from tests.oracle.written_out import as_dtype

FORMS: Final = closed_forms.FORMS | closed_matrices.FORMS
DTYPES: Final = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# All four mistakes of all forms in all dtypes take minutes; these take turns.
ASKED: Final = [(title, DTYPES[k % 4], k // 4 % 4) for k, title in enumerate(FORMS)]


def _verdict(form: Form, inputs: dict[str, Tensor], believed: Tensor) -> dict[str, Any]:
    verdict: dict[str, Any] = checked(form.text, {form.wrt: believed}, "gradient", None, (form.wrt,), **inputs)[form.wrt]
    return verdict


@pytest.mark.parametrize(("title", "dtype", "mistake"), ASKED, ids=[title for title, *_ in ASKED])
@pytest.mark.share(3)
def test_a_derivation_agrees_and_its_mistake_does_not(title: str, dtype: torch.dtype, mistake: int) -> None:
    form = FORMS[title]
    if "linalg." in form.text or "fft." in form.text or any(tensor.is_complex() for tensor in form.inputs.values()):
        dtype = {torch.float16: torch.float32, torch.bfloat16: torch.float64}.get(dtype, dtype)  # PyTorch has no kernels
    inputs = {name: as_dtype(tensor, dtype) for name, tensor in form.inputs.items()}
    exact = {name: as_dtype(tensor, torch.float64) for name, tensor in inputs.items()}
    right = _verdict(form, inputs, as_dtype(form.right(**exact), dtype))
    assert right["agrees"] is True, right
    assert "likely" not in right
    name, wrong = list(form.wrong.items())[mistake]
    verdict = _verdict(form, inputs, as_dtype(wrong(**exact), dtype))
    assert verdict["agrees"] is not True, (name, verdict)
    if dtype == torch.float64:
        assert verdict["agrees"] is False, (name, verdict)
    if name == "sign" and verdict["agrees"] is False:  # of all or of one term
        codes = {claim["code"] for claim in (verdict.get("likely"), *verdict["also_possible"]) if claim}
        assert {"sign", "sign_of_term"} & codes, verdict
