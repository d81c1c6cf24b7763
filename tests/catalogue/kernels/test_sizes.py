"""What would take for ever, or a tensor of a thousand axes, is refused with a code before it begins, and the next query is answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from app.query import RANK_LIMIT
from tests.forking import Forking

NAN = float("nan")
ROW = [1.0] * 1_000_000
LIMIT_S = 60.0  # a refusal comes in milliseconds, and the good query after it; what is not refused runs for ever


def operation(name: str, parameters: Mapping[str, Any] | None = None, **inputs: Any) -> dict[str, Any]:
    sent = {key: value if isinstance(value, list | dict) else {"data": value} for key, value in inputs.items()}
    return {"operation": name, "inputs": sent, "parameters": parameters or {}, "seed": 0}


def program(text: str, **inputs: Any) -> dict[str, Any]:
    return {"program": text, "inputs": inputs or {"x": [1.0]}, "seed": 0}


def whole(*values: int) -> dict[str, Any]:
    return {"data": list(values), "dtype": "int64"}


SQUARE = [[2.0, 0.0], [0.0, 1.0]]
CUBE = [[[[[1.0] * 4] * 4] * 4]]
ENDLESS = (
    (operation("linalg.matrix_power", {"n": -(2**63)}, A=SQUARE), operation("linalg.matrix_power", {"n": -2}, A=SQUARE)),
    (program("linalg.matrix_power(x, -9223372036854775808)", x=SQUARE), program("linalg.matrix_power(x, 3)", x=SQUARE)),
    (operation("combinations", {"r": 10**5}, input=[1.0, 2.0]), operation("combinations", {"r": 2}, input=[1.0, 2.0])),
    (program("combinations(x, r=100000)", x=[1.0, 2.0]), program("combinations(x, r=2)", x=[1.0, 2.0])),
    (operation("combinations", {"r": 30}, input=[1.0] * 40), operation("combinations", {"r": 3}, input=[1.0] * 4)),
    (operation("nn.functional.fold", {"output_size": [4, 4], "kernel_size": [2, 2], "padding": 2**40}, input=[[[1.0] * 9] * 4]),
     operation("nn.functional.fold", {"output_size": [4, 4], "kernel_size": [2, 2]}, input=[[[1.0] * 9] * 4])),
    (operation("nn.functional.fractional_max_pool3d", {"kernel_size": -(2**31), "output_size": 2}, input=CUBE),
     operation("nn.functional.fractional_max_pool3d", {"kernel_size": 2, "output_size": 2}, input=CUBE)),
    (operation("nn.functional.fractional_max_pool2d", {"kernel_size": -(2**31), "output_size": 2}, input=CUBE[0]),
     operation("nn.functional.fractional_max_pool2d", {"kernel_size": 2, "output_size": 2}, input=CUBE[0])),
    (operation("nn.functional.adaptive_max_pool3d", {"output_size": 2**31 - 1}, input=CUBE),
     operation("nn.functional.adaptive_max_pool3d", {"output_size": 2}, input=CUBE)),
    (operation("nn.functional.adaptive_avg_pool1d", {"output_size": 2**31 - 1}, input=[[1.0, 2.0]]),
     operation("nn.functional.adaptive_avg_pool1d", {"output_size": 1}, input=[[1.0, 2.0]])),
    (operation("tensor_split", {"sections": 10**6}, input=[1.0]), operation("tensor_split", {"sections": 3}, input=[1.0])),
    (program("tensor_split(x, 1000000)[0]"), program("tensor_split(x, 3)[0]")),
    (operation("tensor_split", input=[1.0], tensor_indices_or_sections={"data": 10**6, "dtype": "int64"}),
     operation("tensor_split", input=[1.0], tensor_indices_or_sections={"data": 3, "dtype": "int64"})),
    (program("hsplit(x, 1000000)[0]"), program("hsplit(x, 1)[0]")),
    (operation("chunk", {"chunks": 10**6}, input=ROW), operation("chunk", {"chunks": 2}, input=ROW[:9])),
    (operation("unbind", input=ROW), operation("unbind", input=ROW[:9])),
    (program("s = 0.0\nfor v in x:\n    s = s + v\nreturn s", x=ROW), program("s = 0.0\nfor v in x:\n    s = s + v\nreturn s", x=ROW[:9])),
    (program("split(x, 1)[0]", x=ROW), program("split(x, 1)[0]", x=ROW[:9])),
    (operation("binomial", count=[NAN], prob=[0.3]), operation("binomial", count=[5.0], prob=[0.3])),
    (operation("svd_lowrank", {"q": 1, "niter": 2**31 - 1}, A=SQUARE), operation("svd_lowrank", {"q": 1}, A=SQUARE)),
    (program("pca_lowrank(x, 1, True, 2147483647)[1]", x=SQUARE), program("pca_lowrank(x, 1, True, 3)[1]", x=SQUARE)),
    (operation("special.legendre_polynomial_p", x=[0.5] * 9, n={"data": 2**31, "dtype": "int64"}),
     operation("special.legendre_polynomial_p", x=[0.5] * 9, n={"data": 50, "dtype": "int64"})),
    (program("special.laguerre_polynomial_l(x, 2147483647)"), program("special.laguerre_polynomial_l(x, 3)")),
)  # fmt: skip


@pytest.mark.parametrize(("endless", "good"), ENDLESS, ids=lambda query: str(query.get("operation") or query["program"])[:40])
def test_what_would_never_end_is_refused_first(road: Forking, endless: Mapping[str, Any], good: Mapping[str, Any]) -> None:
    first, second = road.ask(endless, good, limit_s=LIMIT_S)
    assert first.body["code"] in ("too_costly", "operation_failed", "bad_parameter", "result_too_large"), first.body
    assert first.status in (413, 422)
    assert second.status == 200, second.body


def _ones(count: int) -> str:
    return ", ".join(["1"] * count)


@pytest.mark.parametrize(
    "text",
    ["zeros({})", "ones(({},))", "full(({},), 2.0)", "rand({})", "randint(3, ({},))", "x.new_zeros({})", "x.reshape({})",
     "reshape(x, ({},))", "x.view({})", "x.expand({})", "x.repeat({})", "tile(x, ({},))", "broadcast_to(x, ({},))",
     "unflatten(x, 0, ({},))"],
)  # fmt: skip
def test_a_thousand_axes_are_refused(road: Forking, text: str) -> None:
    for count in (1000, RANK_LIMIT + 1):
        refused, good = road.ask(program(text.format(_ones(count))), program(text.format(_ones(RANK_LIMIT))), limit_s=LIMIT_S)
        assert (refused.status, refused.body["code"]) == (413, "too_costly"), refused.body
        assert f"the limit is {RANK_LIMIT}" in refused.body["detail"]
        assert good.status == 200, good.body


@pytest.mark.parametrize("text", ["x[{}]", "for i in range({count}):\n    x = x.unsqueeze(0)\nreturn x.sum()"])
def test_axes_that_come_one_by_one_are_refused(road: Forking, text: str) -> None:
    queries = [program(text.format(", ".join(["None"] * count), count=count)) for count in (1000, RANK_LIMIT - 1)]
    refused, good = road.ask(*queries, limit_s=LIMIT_S)
    assert (refused.status, refused.body["code"]) == (413, "too_costly"), refused.body
    assert good.status == 200, good.body


def test_an_operation_is_refused_a_thousand_axes(road: Forking) -> None:
    for name, argument in (("reshape", "shape"), ("broadcast_to", "size"), ("repeat", "repeats")):
        refused = road.ask(operation(name, {argument: [1] * 1000}, input=[1.0]), limit_s=LIMIT_S)[0]
        assert (refused.status, refused.body["code"]) == (413, "too_costly"), refused.body


def test_lists_that_are_no_shape_may_be_long(road: Forking) -> None:
    row = [float(i) for i in range(100)]
    asked = road.ask(
        operation("split_with_sizes", {"split_sizes": [1] * 100}, input=row),
        operation("tensor_split", {"indices": list(range(50))}, input=row),
        program(f"x[{list(range(60))}].sum() + tensor({list(range(60))}).sum()", x=row),
        program(f"split(x, {[1] * 100})[99]", x=row),
    )
    assert [reply.status for reply in asked] == [200] * 4, [reply.body for reply in asked if reply.status != 200]


@pytest.mark.parametrize(
    "text",
    ["empty(3)", "torch.empty(3)", "empty_like(x)", "x.new_empty(3)", "empty_strided((2,), (1,))", "empty_permuted((2,), (0,))",
     "x.new_empty_strided((2,), (1,))", "x.resize_(9)", "x.resize_as_(x)", "x.set_()", "Tensor(3)", "torch.Tensor(3)",
     "FloatTensor(4)", "x.new(3)", "x.as_strided((9,), (1,))", "as_strided(x, (9,), (1,))", "as_strided(x, (1,), (1,), 9)"],
)  # fmt: skip
def test_what_would_show_uninitialised_memory_is_refused_or_zero(road: Forking, text: str) -> None:
    first, good = road.ask(program(text), program("x + 1"), limit_s=LIMIT_S)
    assert good.status == 200
    if first.status == 200:
        (values,) = first.body["outputs"].values()
        assert values["data"] in (3.0, 4.0) or set(values["data"]) == {0.0}, first.body  # `Tensor(3)` is read as `tensor(3)`
    else:
        assert first.status == 422, first.body


@pytest.mark.parametrize("name", ["empty", "empty_like", "new_empty", "empty_strided", "Tensor.resize_", "Tensor.new_empty"])
def test_uninitialised_memory_is_no_operation(road: Forking, name: str) -> None:
    assert road.ask(operation(name, input=[1.0]))[0].body["code"] == "unknown_operation"
