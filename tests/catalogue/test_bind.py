"""Choosing a signature by names and kinds, and the refusals: each says where, what was expected, what was given, what to send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from app.catalogue.bind import Bound, Leaf, bind
from app.catalogue.call import invoke
from app.catalogue.read import find
from app.errors import PullbackError
from app.query import Parameter


def bound(name: str, tensors: Mapping[str, int | None], parameters: Mapping[str, Parameter] | None = None) -> Bound:
    return bind(find(name), tensors, parameters or {})


def refused(name: str, tensors: Mapping[str, int | None], parameters: Mapping[str, Parameter] | None = None) -> PullbackError:
    with pytest.raises(PullbackError) as caught:
        bound(name, tensors, parameters)
    assert caught.value.detail
    assert caught.value.at
    assert caught.value.fix
    return caught.value


def test_positional_until_the_first_gap_then_by_keyword() -> None:
    call = bound("softmax", {"input": None}, {"dim": -1})
    assert (call.args, dict(call.kwargs)) == ((Leaf("input"), -1), {})
    call = bound("conv2d", {"input": None, "weight": None}, {"groups": 2})
    assert (call.args, dict(call.kwargs)) == ((Leaf("input"), Leaf("weight"), None), {"groups": 2})
    call = bound("add", {"input": None, "other": None}, {"alpha": 2})
    assert dict(call.kwargs) == {"alpha": 2}


def test_lists_of_tensors_are_leaves_by_number() -> None:
    call = bound("cat", {"tensors": 3}, {"dim": 1})
    assert call.args == ((Leaf("tensors.0"), Leaf("tensors.1"), Leaf("tensors.2")), 1)


# Operation, tensors, parameters → kinds of the signature that is chosen.
CHOICES: list[tuple[str, dict[str, int | None], dict[str, Parameter], tuple[str, ...]]] = [
    ("max", {"input": None}, {}, ("tensor",)),
    ("max", {"input": None}, {"dim": 0}, ("tensor", "integer", "boolean")),
    ("max", {"input": None, "other": None}, {}, ("tensor", "tensor")),
    ("pow", {"input": None, "exponent": None}, {}, ("tensor", "tensor")),
    ("pow", {"input": None}, {"exponent": 2}, ("tensor", "number")),
    ("pow", {"exponent": None}, {"input": 2.0}, ("number", "tensor")),
    ("squeeze", {"input": None}, {"dim": 0}, ("tensor", "integer")),
    ("squeeze", {"input": None}, {"dim": (0, 1)}, ("tensor", "integers")),
    ("norm", {"input": None}, {"p": "nuc"}, ("tensor", "string", "integers", "boolean", "dtype")),
    ("norm", {"input": None}, {"p": 1.5}, ("tensor", "number", "integers", "boolean", "dtype")),
    (
        "conv1d",
        {"input": None, "weight": None},
        {"padding": "same"},
        ("tensor", "tensor", "tensor", "integers", "string", "integers", "integer"),
    ),
    ("unique", {"input": None}, {"return_inverse": False}, ("tensor", "boolean", "boolean", "boolean", "integer")),
]


@pytest.mark.parametrize(("name", "tensors", "parameters", "kinds"), CHOICES, ids=lambda value: str(value)[:30])
def test_names_and_kinds_choose(
    name: str, tensors: dict[str, int | None], parameters: dict[str, Parameter], kinds: tuple[str, ...]
) -> None:
    assert tuple(a.kind for a in bound(name, tensors, parameters).signature.arguments) == kinds


def test_a_switch_chooses_the_outputs() -> None:
    for value, outputs in ((True, ["output", "indices"]), (False, ["output"])):
        call = bound("max_pool2d", {"input": None}, {"kernel_size": 2, "return_indices": value})
        assert [o.name for o in call.signature.outputs] == outputs
    call = bound("unique", {"input": None}, {"return_counts": True, "return_inverse": False})
    assert [o.name for o in call.signature.outputs] == ["output", "counts"]


@pytest.mark.parametrize("written", ["input", "self", "x", "A"])
def test_the_first_tensor_has_other_names(written: str) -> None:
    assert bound("linalg.inv", {written: None}).args == (Leaf(written),)
    assert bound("softmax", {written: None}, {"dim": 0}).args == (Leaf(written), 0)


def test_numpys_words_are_taken() -> None:
    assert bound("sum", {"input": None}, {"axis": 1, "keepdims": True}).args == (Leaf("input"), 1, True)


def test_a_single_value_stands_for_a_list() -> None:
    assert bound("permute", {"input": None}, {"dims": 0}).args[1] == (0,)
    assert bound("avg_pool2d", {"input": None}, {"kernel_size": 2}).args[1] == 2


def test_null_is_the_default_of_an_optional_argument() -> None:
    assert bound("layer_norm", {"input": None}, {"normalized_shape": (3,), "weight": None}).args[2] is None
    assert bound("sum", {"input": None}, {"dim": None}).args[1] is None
    assert refused("softmax", {"input": None}, {"dim": None}).at == "parameters.dim"


def test_nonfinite_numbers_are_strings() -> None:
    assert bound("linalg.norm", {"input": None}, {"ord": "Infinity"}).args[1] in (float("inf"), "Infinity")
    call = bound("masked_fill", {"input": None, "mask": None}, {"value": "-Infinity"})
    assert call.args[2] == float("-inf")


def test_unknown_name() -> None:
    error = refused("softmax", {"input": None}, {"dimm": 1})
    assert (error.code, error.at) == ("bad_parameter", "parameters.dimm")
    assert "`dim`" in error.detail
    error = refused("conv2d", {"input": None, "wieght": None})
    assert (error.code, error.at) == ("bad_tensor", "inputs.wieght")
    assert "`weight`" in error.detail


def test_missing_argument() -> None:
    error = refused("softmax", {"input": None})
    assert (error.code, error.at) == ("bad_parameter", "parameters.dim")
    assert "softmax(input: tensor, dim: integer, dtype: dtype = null)" in str(error.expected)
    error = refused("matmul", {"input": None})
    assert (error.code, error.at) == ("bad_tensor", "inputs.other")


def test_tensor_where_a_parameter_belongs() -> None:
    error = refused("softmax", {"input": None, "dim": None})
    assert (error.code, error.at) == ("bad_tensor", "inputs.dim")
    assert "parameters" in str(error.fix)


def test_parameter_where_a_tensor_belongs() -> None:
    error = refused("softmax", {}, {"input": (1.0, 2.0), "dim": 0})
    assert (error.code, error.at) == ("bad_parameter", "parameters.input")
    assert "inputs" in str(error.fix)


def test_list_and_single_tensor_are_told_apart() -> None:
    assert refused("cat", {"tensors": None}).at == "inputs.tensors"
    assert refused("softmax", {"input": 2}, {"dim": 0}).at == "inputs.input"


WRONG: list[tuple[str, str, Any]] = [
    ("softmax", "dim", 1.5),
    ("softmax", "dim", True),
    ("max", "dim", 1.0),
    ("softmax", "dim", "0"),
    ("softmax", "dim", (0,)),
    ("softmax", "dim", 2**31 + 1),
    ("softmax", "dim", -(2**63)),
    ("linalg.matrix_power", "n", -(2**63)),
    ("cumsum", "dim", None),
    ("permute", "dims", (0, 1.5)),
    ("permute", "dims", (True, False)),
    ("permute", "dims", "01"),
    ("topk", "k", [[1]]),
    ("nn.functional.gelu", "approximate", 3),
    ("sum", "keepdim", 1),
    ("clamp", "min", "a"),
    ("clamp", "min", 2**70),
    ("tensordot", "dims", ((0, "a"), (1,))),
]


@pytest.mark.parametrize(("name", "parameter", "value"), WRONG)
def test_wrong_kind(name: str, parameter: str, value: Any) -> None:
    tensors = {a.name: None for a in find(name).signatures[0].arguments if a.kind == "tensor" and a.required}
    required: dict[str, Parameter] = {"dim": 0} if name == "sum" else {}
    error = refused(name, tensors, {**required, parameter: value})
    assert (error.code, error.at) == ("bad_parameter", f"parameters.{parameter}")
    assert error.expected
    assert error.given is not None
    assert len(str(error.problem())) < 2_000


@pytest.mark.parametrize("dtype", ["float128", "complex32", "FLOAT64", "uint64", 3])
def test_only_dtypes_of_the_contract(dtype: Parameter) -> None:
    error = refused("softmax", {"input": None}, {"dim": 0, "dtype": dtype})
    assert error.at == "parameters.dtype"
    assert "bfloat16" in str(error.expected)


def test_dtypes_reach_pytorch() -> None:
    for written in ("float32", "torch.float32"):
        call = bound("softmax", {"input": None}, {"dim": 0, "dtype": written})
        result = invoke(call, {"input": torch.ones(2, dtype=torch.float64)})
        assert result.dtype == torch.float32


@pytest.mark.parametrize("name", ["device", "out", "generator", "memory_format", "requires_grad"])
def test_what_is_left_out_says_so(name: str) -> None:
    error = refused("softmax", {"input": None}, {"dim": 0, name: "cuda"})
    assert error.at == f"parameters.{name}"
    assert "Leave" in str(error.fix)


def test_the_same_argument_twice() -> None:
    error = refused("softmax", {"input": None, "self": None}, {"dim": 0})
    assert error.at == "inputs.self"


def test_calls_of_every_kind() -> None:
    ones = torch.ones(2, 2, dtype=torch.float64)
    assert invoke(bound("einsum", {"tensors": 2}, {"equation": "ij,jk->ik"}), {"tensors.0": ones, "tensors.1": ones}).sum() == 8
    assert invoke(bound("block_diag", {"tensors": 2}), {"tensors.0": ones, "tensors.1": ones}).shape == (4, 4)
    assert invoke(bound("repeat", {"input": None}, {"repeats": (1, 3)}), {"input": ones}).shape == (2, 6)
    assert invoke(bound("mT", {"input": None}), {"input": torch.ones(2, 3)}).shape == (3, 2)
    grids = invoke(
        bound("meshgrid", {"tensors": 2}, {"indexing": "xy"}), {"tensors.0": torch.ones(2), "tensors.1": torch.ones(3)}
    )
    assert [tuple(grid.shape) for grid in grids] == [(3, 2), (3, 2)]
    pairs = invoke(bound("tensordot", {"a": None, "b": None}, {"dims": ((0, 1), (0, 1))}), {"a": ones, "b": ones})
    assert pairs == 4


def test_what_pytorch_would_write_to_is_copied() -> None:
    mean, var = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    call = bound("batch_norm", {"input": None, "running_mean": None, "running_var": None}, {"training": True})
    invoke(
        call, {"input": torch.tensor([[1.0, 2.0], [3.0, 5.0]], dtype=torch.float64), "running_mean": mean, "running_var": var}
    )
    assert mean.tolist() == [0, 0]
    assert var.tolist() == [1, 1]
    weight = torch.full((2, 2), 3.0)
    invoke(
        bound("embedding", {"input": None, "weight": None}, {"max_norm": 1.0}), {"input": torch.tensor([0]), "weight": weight}
    )
    assert weight.tolist() == [[3, 3], [3, 3]]
