"""The frozen table of derivative formulas against PyTorch's own file."""

from __future__ import annotations

import json

import pytest
import torch

from app.engine.explain.formulas import FILE, formula_of, formulas


def test_the_table_is_what_this_pytorch_says() -> None:
    pytest.importorskip("yaml")
    from app.engine.explain import formulas_freeze

    torch_version = json.loads(FILE.read_text())["torch"]
    if not torch.__version__.startswith(torch_version):
        pytest.skip(f"the table was made from PyTorch {torch_version}")
    assert formulas_freeze.read() == dict(formulas())


def test_the_two_rules_of_max_are_told_apart() -> None:
    x = torch.zeros(3, requires_grad=True)
    assert "evenly_distribute_backward" in (formula_of([torch.max(x)]) or "")
    assert "value_selecting_reduction_backward" in (formula_of([torch.max(x, 0)[0]]) or "")


def test_what_has_no_derivative_has_no_formula() -> None:
    assert formula_of([torch.argmax(torch.zeros(3))]) is None
