"""Values that PyTorch's kernels follow out of their tensors, or die of, are refused at every door, and the next query is answered.

Every query runs in a forked child, because without the guard it crashes; the same child then answers a good one, and the next test's.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.forking import Forking, Reply

NAN = float("nan")
LEAST = -(2**63)
LEAST32 = -(2**31)
SCORES = np.log(np.random.default_rng(0).dirichlet(np.ones(4), (5, 2)))
IMAGE = np.ones((1, 1, 4, 4))


@dataclass(frozen=True)
class Case:
    """One operation: how a program writes it, inputs that are refused with the argument at fault, and inputs that are answered."""

    operation: str
    text: str
    at: str
    bad: Mapping[str, Any]
    good: Mapping[str, Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    want: tuple[str, ...] = ("outputs",)

    def __str__(self) -> str:
        return f"{self.operation}-{self.at}"


def ints(*values: Any, dtype: str = "int64") -> np.ndarray[Any, Any]:
    return np.array(values, dtype=dtype)


def ctc(bad: Any, good: Any = ((1, 2), (1, 3)), at: str = "targets", sizes: tuple[int, int] = (2, 2)) -> Case:
    return Case(
        "nn.functional.ctc_loss",
        f"ctc_loss(log_probs, targets, [5, 5], {list(sizes)})",
        at,
        {"log_probs": SCORES, "targets": ints(*bad)},
        {"log_probs": SCORES, "targets": ints(*good)},
        {"input_lengths": (5, 5), "target_lengths": sizes},
        ("outputs", "vjp"),
    )


def ctc_lengths(name: str, values: Any) -> Case:
    good = {"log_probs": SCORES, "targets": ints((1, 2), (1, 3)), "input_lengths": ints(5, 5), "target_lengths": ints(2, 2)}
    text = "ctc_loss(log_probs, targets, input_lengths, target_lengths)"
    return Case("nn.functional.ctc_loss", text, name, {**good, name: ints(*values)}, good, want=("outputs", "vjp"))


def segments(name: str, bad: Any, good: Any) -> Case:
    rows = np.arange(8.0).reshape(4, 2)
    text = f'segment_reduce(data, "sum", {name}={name})'
    return Case(
        "segment_reduce", text, name, {"data": rows, name: ints(*bad)}, {"data": rows, name: ints(*good)}, {"reduce": "sum"},
        ("outputs", "vjp"),
    )  # fmt: skip


def bag(bad: Any, good: Any, mode: str = "mean", **more: Any) -> Case:
    table = np.arange(6.0).reshape(3, 2)
    extra = "".join(f", {name}={value}" for name, value in more.items())
    return Case(
        "nn.functional.embedding_bag",
        f'embedding_bag(input, weight, offsets, mode="{mode}"{extra})',
        "offsets",
        {"input": ints(0, 1), "weight": table, "offsets": ints(*bad)},
        {"input": ints(0, 1), "weight": table, "offsets": ints(*good)},
        {"mode": mode, **more},
        ("outputs", "vjp"),
    )


def grid(mode: str, value: float) -> Case:
    good = np.zeros((1, 3, 3, 2))
    bad = good.copy()
    bad[0, 1, 1, 0] = value
    return Case(
        "nn.functional.grid_sample",
        f'grid_sample(input, grid, padding_mode="{mode}", align_corners=False)',
        "grid",
        {"input": IMAGE, "grid": bad},
        {"input": IMAGE, "grid": good},
        {"padding_mode": mode, "align_corners": False},
        ("outputs", "vjp"),
    )


def division(one: Any, other: Any, dtype: str) -> Case:
    good = {"input": ints(7, -7, dtype=dtype), "other": ints(2, -1, dtype=dtype)}
    bad = {"input": ints(*one, dtype=dtype), "other": ints(*other, dtype=dtype)}
    return Case("div", 'div(input, other, rounding_mode="trunc")', "other", bad, good, {"rounding_mode": "trunc"})


def pivots(bad: Any) -> Case:
    factors, right = np.eye(4), np.ones((4, 2))
    good = {"LD": factors, "pivots": ints(1, -3, -3, 4, dtype="int32"), "B": right}
    return Case(
        "linalg.ldl_solve", "linalg.ldl_solve(LD, pivots, B)", "pivots", {**good, "pivots": ints(*bad, dtype="int32")}, good
    )


def recurrent(*states: tuple[int, ...]) -> Case:
    weights = {"params": (np.ones((8, 2)), np.ones((8, 2)))}
    options = {
        "has_biases": False,
        "num_layers": 1,
        "dropout": 0.0,
        "train": False,
        "bidirectional": False,
        "batch_first": False,
    }
    call = ", ".join(f"{name}={value}" for name, value in options.items())
    good = {"input": np.ones((3, 1, 2)), "hx": (np.zeros((1, 1, 2)), np.zeros((1, 1, 2))), **weights}
    bad = {**good, "hx": tuple(np.zeros(shape) for shape in states)}
    return Case("lstm", f"lstm(input, [hx_0, hx_1], [params_0, params_1], {call})[0]", "hx", bad, good, options)


SPOILT = np.eye(6)
SPOILT[0, 0] = NAN
CASES = (
    ctc(((1, 2), (1, 10**6))),
    ctc(((1, 2), (1, 4))),
    ctc(((1, 2), (1, -1))),
    ctc((1, 2, 1, -1), (1, 2, 1, 3)),
    ctc((1, 2, 1), (1, 2, 1, 3), "target_lengths"),
    ctc_lengths("target_lengths", (2, 3)),
    ctc_lengths("target_lengths", (2, -1)),
    ctc_lengths("input_lengths", (5, 6)),
    ctc_lengths("input_lengths", (-1, 5)),
    segments("offsets", (0, 10**7), (0, 2, 4)),
    segments("offsets", (1, 4), (0, 4)),
    segments("offsets", (0, 3, 1, 4), (0, 1, 3, 4)),
    segments("offsets", (0, -2, 4), (0, 2)),
    segments("lengths", (2, 3), (1, 3)),
    segments("lengths", (5, -1), (4, 0)),
    bag((), (0, 1)),
    bag((), (0, 1), "max"),
    bag((0, 2, 1), (0, 1, 2), "max"),
    bag((0,), (0, 2), "max", include_last_offset=True),
    grid("border", NAN),
    grid("reflection", float("inf")),
    Case("linalg.eigvals", "linalg.eigvals(A)", "A", {"A": SPOILT}, {"A": np.eye(6)}),
    Case("nn.functional.pdist", "pdist(input)", "input", {"input": np.zeros((0, 3))}, {"input": np.eye(3)}, {}, ("vjp",)),
    Case("linalg.lstsq", 'linalg.lstsq(input, b, driver="gelss")[0]', "b",
         {"input": np.eye(3), "b": np.ones((3, 0))}, {"input": np.eye(3), "b": np.ones((3, 1))}, {"driver": "gelss"}),
    Case("lu_unpack", "lu_unpack(LU_data, LU_pivots)[0]", "LU_pivots",
         {"LU_data": np.ones((2, 3, 3)), "LU_pivots": ints(1, 2, 3, dtype="int32")},
         {"LU_data": np.ones((3, 3)), "LU_pivots": ints(1, 2, 3, dtype="int32")}),
    Case("lu_unpack", "lu_unpack(LU_data, LU_pivots)[0]", "LU_pivots",
         {"LU_data": np.ones((3, 3)), "LU_pivots": ints(1, 2, LEAST32, dtype="int32")},
         {"LU_data": np.ones((3, 3)), "LU_pivots": ints(3, 2, 3, dtype="int32")}),
    pivots((1, 2, 3, 0)),
    pivots((1, 2, 3, -4)),
    pivots((-1, 2, 3, 4)),
    pivots((1, 2, 3, 9)),
    pivots((1, -2, -3, 4)),
    pivots((1, 2, 3, LEAST32)),
    division((5, LEAST), (2, -1), "int64"),
    division((LEAST32,), (-1,), "int32"),
    Case("lcm", "lcm(input, other)", "input", {"input": ints(LEAST, 6), "other": ints(2**63 - 1, 4)},
         {"input": ints(6, -6), "other": ints(4, 9)}),
    recurrent((1, 1, 2), (0, 1, 2)),
    recurrent((2, 1, 2), (1, 1, 2)),
    Case("nn.functional.embedding", "embedding(input, weight)", "input",
         {"input": ints(0, 3), "weight": np.eye(3)}, {"input": ints(0, 2), "weight": np.eye(3)}),
)  # fmt: skip


# A program gives no argument that starts with an underscore.
PRIVATE = Case(
    "nn.functional.fractional_max_pool2d",
    "",
    "_random_samples",
    {"input": IMAGE, "_random_samples": np.full((1, 1, 2), 7.0)},
    {"input": IMAGE, "_random_samples": np.full((1, 1, 2), 0.5)},
    {"kernel_size": (2, 2), "output_size": (2, 2)},
)


def sent(inputs: Mapping[str, Any], *, lists: bool = True) -> dict[str, Any]:
    """Tensors as a query carries them; a tuple of them as a list, or one by one (`hx_0`, `hx_1`) for a program."""

    def tensor(value: Any) -> dict[str, Any]:
        array = np.asarray(value)
        return {"data": array.ravel().tolist(), "shape": array.shape, "dtype": str(array.dtype)}

    tensors: dict[str, Any] = {}
    for name, value in inputs.items():
        if not isinstance(value, tuple):
            tensors[name] = tensor(value)
        elif lists:
            tensors[name] = [tensor(member) for member in value]
        else:
            tensors.update({f"{name}_{index}": tensor(member) for index, member in enumerate(value)})
    return tensors


def refused_then_answered(road: Forking, bad: Mapping[str, Any], good: Mapping[str, Any]) -> Any:
    """The refusal of `bad`; the same process answers `good` after it."""
    first, second = road.ask(bad, good)
    assert second.status == 200, second.body
    assert first.status == 422, first.body
    assert first.body["code"] == "operation_failed", first.body
    return first.body


@pytest.mark.parametrize("case", [*CASES, PRIVATE], ids=str)
def test_an_operation_refuses_what_its_kernel_would_not_survive(road: Forking, case: Case) -> None:
    def query(inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"operation": case.operation, "inputs": sent(inputs), "parameters": case.parameters, "want": case.want}

    problem = refused_then_answered(road, query(case.bad), query(case.good))
    room = "inputs" if case.at in case.bad else "parameters"
    assert problem["at"] == f"{room}.{case.at}", problem
    assert problem["expected"], problem


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_step_of_a_program_refuses_it_at_its_place(road: Forking, case: Case) -> None:
    def query(inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"program": f"y = {case.text}\nreturn y", "inputs": sent(inputs, lists=False)}

    assert refused_then_answered(road, query(case.bad), query(case.good))["at"] == "1:5"


BATCHES = [
    case
    for case in CASES
    if "hx" not in case.good and all(np.shape(case.bad[name]) == np.shape(case.good[name]) for name in case.good)
]


@pytest.mark.parametrize("case", BATCHES, ids=str)
def test_one_sample_of_a_batch_refuses_it(road: Forking, case: Case) -> None:
    """Under vmap the values are not seen from above; the kernel sees them."""

    def query(second: Mapping[str, Any]) -> dict[str, Any]:
        pairs = {name: np.stack([np.asarray(case.good[name]), np.asarray(second[name])]) for name in case.good}
        return {"program": case.text, "inputs": sent(pairs), "batched": list(pairs), "want": [case.want[-1]]}

    refused_then_answered(road, query(case.bad), query(case.good))


@pytest.mark.parametrize("want", ["explain", "check", "jvp"])
def test_every_kind_of_derivative_comes_past_the_guard(road: Forking, want: str) -> None:
    case = grid("border", NAN)

    def query(inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"program": f"{case.text}.sum()", "inputs": sent(inputs), "wrt": ["input"], "want": [want]}

    refused_then_answered(road, query(case.bad), query(case.good))


def test_a_stored_function_refuses_it(road: Forking) -> None:
    def query(*offsets: int) -> dict[str, Any]:
        inputs = {"i": ints(0, 1), "t": np.eye(3), "o": ints(*offsets)}
        return {"function": "look_up", "inputs": sent(inputs), "want": ["outputs", "vjp"]}

    refused_then_answered(road, query(), query(0, 1))


@pytest.mark.parametrize("text", ['div(x, -1, rounding_mode="trunc")', 'div(-9223372036854775808, x, rounding_mode="trunc")'])
def test_plain_numbers_are_values_too(road: Forking, text: str) -> None:
    bad, good = ({"program": text, "inputs": sent({"x": ints(*values)})} for values in ((-1, LEAST), (4, 2)))
    refused_then_answered(road, bad, good)


QUOTIENTS = """
import torch
from app.catalogue.kernels.guard import install
def quotients():
    kinds = (torch.int8, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64)
    for tensor in (torch.tensor([7, -7, 5]), torch.tensor(7)):
        for x in (tensor.to(kind) for kind in kinds):
            for mode in ("trunc", "floor", None):
                for number in (2, -3, 2.5, 0.1, 7 / 3, 100, True):
                    yield torch.div(x, number, rounding_mode=mode)
                    yield torch.div(number, x, rounding_mode=mode)
                    yield torch.div(x, torch.tensor(number), rounding_mode=mode)
before = list(quotients())
install()
after = list(quotients())
assert len(before) == len(after) > 800
for one, other in zip(before, after):
    assert one.dtype == other.dtype and torch.equal(one, other), (one, other)
"""


def test_the_guard_changes_no_quotient() -> None:
    """A plain number reaches the guarded kernel as a tensor again, with the same dtype and precision of the result."""
    done = subprocess.run([sys.executable, "-c", QUOTIENTS], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]


def test_padding_behind_a_target_may_be_anything(road: Forking) -> None:
    case = ctc(((1, 2), (1, -1)), sizes=(2, 1))
    query = {"operation": case.operation, "inputs": sent(case.bad), "parameters": case.parameters, "want": case.want}
    assert road.ask(query)[0].status == 200


def test_segment_reduce_has_no_unsafe_mode(road: Forking) -> None:
    inputs = sent({"data": np.ones(4), "lengths": ints(10**6, 1)})
    parameters = {"reduce": "sum", "unsafe": True}
    program = 'segment_reduce(data, "sum", lengths=lengths, unsafe=True)'
    asked: list[Reply] = road.ask(
        {"operation": "segment_reduce", "inputs": inputs, "parameters": parameters}, {"program": program, "inputs": inputs}
    )
    assert [reply.status for reply in asked] == [422, 422]
    assert "always checked" in asked[0].body["detail"]
