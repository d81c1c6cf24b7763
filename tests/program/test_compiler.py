"""Programs as people write them, built and run: values against NumPy, gradients against central differences of that."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.program.building import answer, built, flat, tensors
from tests.program.written_programs import CASES, differences, named


@pytest.mark.parametrize("name", CASES)
def test_values(name: str) -> None:
    case = CASES[name]
    got = answer(case.text, tensors(**case.inputs), case.parameters)
    expected = named(case.expected(**case.inputs))
    assert built(case.text, tensors(**case.inputs), case.parameters).static is case.static
    assert set(got) == set(expected)
    for output, value in expected.items():
        np.testing.assert_allclose(got[output].numpy(), value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.wrt])
def test_gradients(name: str) -> None:
    case = CASES[name]
    inputs = tensors(**case.inputs)
    function = built(case.text, inputs, case.parameters)
    for name in case.wrt:
        inputs[name] = inputs[name].clone().requires_grad_()
    outputs = [output for output in function.call(*flat(inputs)) if output.requires_grad]
    gradients = torch.autograd.grad(
        torch.stack([output.sum() for output in outputs]).sum(), [inputs[name] for name in case.wrt]
    )
    for name, gradient in zip(case.wrt, gradients, strict=True):
        np.testing.assert_allclose(gradient.numpy(), differences(case, name), rtol=1e-5, atol=1e-6)
