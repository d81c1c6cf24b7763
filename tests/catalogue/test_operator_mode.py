"""What runs in a mode has the result that it has outside, complex conjugates within kernels too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db

from app.catalogue.operator_mode import OperatorMode
from tests.engine.asking import results

LINALG = [
    op
    for op in op_db
    if torch.complex128 in op.dtypes
    and (op.name.startswith("linalg") or op.name == "pinverse")
    and op.variant_test_name != "singular"  # it makes its samples by a deprecated function, which warns
]
REAL, IMAGINARY = np.array([[1, 2, 5], [3, 4, 1]]), np.array([[2, 1, -1], [0, 3, 4]])


def tensors(result: object) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result.resolve_conj().resolve_neg()]
    return [one for member in result for one in tensors(member)] if isinstance(result, tuple | list) else []


@pytest.mark.parametrize("op", LINALG, ids=lambda op: op.formatted_name)
def test_a_kernel_made_of_others(op: object) -> None:
    for sample in list(op.sample_inputs("cpu", torch.complex128))[:3]:  # type: ignore[attr-defined]
        outside = tensors(op(sample.input, *sample.args, **sample.kwargs))  # type: ignore[operator]
        with OperatorMode():
            inside = tensors(op(sample.input, *sample.args, **sample.kwargs))  # type: ignore[operator]
        torch.testing.assert_close(inside, outside)


@pytest.mark.parametrize("of", ["torch.linalg.pinv(z)", "torch.linalg.lstsq(z, z[:, :1])[0]", "z.mH @ z", "z.conj().imag + z"])
def test_whole_numbers_sent_bare(of: str) -> None:
    """Their outputs are computed in a mode that watches for lost digits."""
    z = torch.complex(torch.tensor(REAL).double(), torch.tensor(IMAGINARY).double())
    expected = eval(of, {"torch": torch, "z": z})  # noqa: S307  # our own texts
    program = f"z = torch.complex(x, y)\nreturn torch.view_as_real(({of}).resolve_conj())"
    got = results(program=program, inputs={"x": REAL, "y": IMAGINARY}, want=("outputs",))["outputs"]["output"]
    np.testing.assert_allclose(got, torch.view_as_real(expected.resolve_conj()).numpy(), 1e-5, 1e-6)


def test_a_branch_by_a_conjugate_within_a_kernel() -> None:
    """Small programs are read on their values in a mode that counts."""
    real, imaginary = torch.tensor(REAL).double(), torch.tensor(IMAGINARY).double()
    value = float(torch.linalg.pinv(torch.complex(real, imaginary)).real.sum())
    program = (
        "if torch.linalg.pinv(torch.complex(x, y)).real.sum() > limit:\n    r = x.sum()\nelse:\n    r = -x.sum()\nreturn r"
    )
    for limit in (value - 1e-3, value + 1e-3):
        inputs = {"x": real.numpy(), "y": imaginary.numpy(), "limit": np.array(limit)}
        got = results(program=program, inputs=inputs, want=("outputs",))["outputs"]["output"]
        assert float(got) == (16.0 if limit < value else -16.0)
