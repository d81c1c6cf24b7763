"""What is infinite or NaN for the dtype's sake carries a note: programs, batches, and PyTorch's own samples in narrow dtypes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from app.catalogue.introspect.opinfos import opinfos
from app.engine.tensors import from_torch, to_torch
from app.errors import PullbackError
from app.query import Answer, Query, TensorData
from tests.engine.asking import ENGINE, ask
from tests.op_db import Case, cases, differentiable_page
from tests.oracle.explain_points import sample_query
from tests.oracle.explain_sweep import wide

KINDS = ("outputs", "vjp", "jvp")


def noted(answer: Answer) -> dict[str, str]:
    return {note.at: note.message for note in answer.notes if note.code == "non_finite"}


@pytest.mark.parametrize(
    ("text", "dtype", "values", "step"),
    [
        ("y = exp(x)\nz = y / (1 + y)\nz", "float32", [1.0, 100.0], "y = exp(x)"),
        ("(x * x).sum()", "float16", [300.0], "(x * x).sum()"),
        ("y = x.half()\ny + 1", "float64", [1e5, 1.0], "y = x.half()"),
        ("F.soft_margin_loss(x, -torch.ones_like(x))", "float16", [12.0], "F.soft_margin_loss(x, -torch.ones_like(x))"),
        ("x ** 20", "bfloat16", [300.0], "x ** 20"),
        ("torch.complex(x, x) ** 9", "float32", [1e5], "torch.complex(x, x) ** 9"),
    ],
)
def test_an_output_that_its_dtype_cannot_hold(text: str, dtype: str, values: list[float], step: str) -> None:
    answer = ask(program=text, inputs={"x": values}, dtype=dtype, want=["outputs"])
    assert f"`{step}`" in noted(answer)["outputs.output"]


@pytest.mark.parametrize(("dtype", "large"), [("float16", 300.0), ("float32", 1e25)])
@pytest.mark.parametrize("want", ["gradient", "vjp", "jacobian"])
def test_a_finite_derivative_through_a_step_that_overflows(dtype: str, large: float, want: str) -> None:
    fields: dict[str, Any] = {"program": "y = x ** 2\nsqrt(y).sum()", "want": [want]}
    answer = ask(inputs={"x": np.array([large, 1.0], dtype=dtype)}, **fields)
    assert any("`y = x ** 2`" in message for message in noted(answer).values())
    assert not noted(ask(inputs={"x": np.array([2.0, 1.0], dtype=dtype)}, **fields))
    assert not noted(ask(inputs={"x": np.array([large, 1.0])}, **fields))


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the matrix products that PyTorch computes."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten.mm.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("dtype", "value"), [("float32", 0.5), ("float16", 40.0), ("float64", 0.5)])
def test_what_is_finite_is_not_computed_again_to_see_that(dtype: str, value: float) -> None:
    fields: dict[str, Any] = {"program": "(tanh(x @ x) @ x).mean()", "want": ["gradient"]}
    x = np.full((30, 30), value, dtype=dtype)  # the sum of a step is beyond what float16 holds
    ask(inputs={"x": x}, **fields)  # planned
    with Products() as products:  # type: ignore[no-untyped-call]
        answer = ask(inputs={"x": x}, **fields)
    assert not noted(answer)
    looks = 2 if dtype == "float16" else 1  # half precision is compared with float64, whatever is finite
    assert products.count == looks * (2 + 4)  # forward, and two a step backward


@pytest.mark.parametrize(("text", "values"), [("log(x)", [0.0, 1.0]), ("x / 0", [1.0]), ("sqrt(x)", [-1.0]), ("x", [np.inf])])
def test_what_float64_does_not_have_either_is_no_matter_of_the_dtype(text: str, values: list[float]) -> None:
    assert not noted(ask(program=text, inputs={"x": np.array(values, dtype="float32")}, want=["outputs"]))


def test_any_sample_of_a_batch() -> None:
    samples = np.array([[1.0], [2.0], [100.0]], dtype="float32")
    answer = ask(program="exp(x).sum()", inputs={"x": samples}, batched=("x",), want=["outputs"])
    assert "float64" in noted(answer)["outputs.output"]


def narrow_queries() -> Iterator[Query]:
    names = sorted({info.name for info in opinfos()})[::9]
    for dtype in (torch.float16, torch.bfloat16):
        for case in cases(differentiable_page, 1, dtype, names):
            if isinstance(case, Case):
                for scale in (1.0, 300.0):
                    yield replace(sample_query(case, partial(torch.mul, other=scale)), want=KINDS)


def tensors(tree: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, TensorData):
        yield path, to_torch(tree, "cpu")
    elif isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from tensors(value, f"{path}.{name}" if path else name)


def test_no_sample_overflows_without_a_note() -> None:
    asked, overflows = 0, 0
    for query in narrow_queries():
        try:
            answer = ENGINE.answer(query)
            asked += 1
            odd = {path: value for path, value in tensors(answer.results) if not bool(torch.isfinite(value).all())}
            expected = dict(tensors(ENGINE.answer(wide(query)).results)) if odd else {}
        except PullbackError:
            continue
        for path, value in odd.items():
            if bool((torch.isfinite(expected[path]) & ~torch.isfinite(value)).any()):
                overflows += 1
                assert path in noted(answer), (query.operation, query.parameters)
    assert asked > 50
    assert overflows > 5


@pytest.mark.parametrize("size", [3, 3_000_000])
def test_a_large_plan_and_a_batch_are_watched_too(size: int) -> None:
    sent = np.ones((2, size), dtype="float32")
    sent[1, size // 2] = 1e25
    shared: tuple[dict[str, Any], ...] = ({}, {"batched": ("x",)})
    for more in shared:
        answer = ask(program="y = x ** 2\nz = 1 / (1 + y)\nz.sum()", inputs={"x": sent}, want=["gradient"], **more)
        assert any("`y = x ** 2`" in message for message in noted(answer).values())
        sent_small = np.ones((2, 3), dtype="float32")
        assert not noted(
            ask(program="y = x ** 2\nz = 1 / (1 + y)\nz.sum()", inputs={"x": sent_small}, want=["gradient"], **more)
        )


def test_a_step_that_overflows_is_named_beside_finite_outputs_and_in_a_dtype_that_a_step_takes() -> None:
    for dtype, text in (("float16", "y = x ** 2\n1 / (1 + y)"), ("float64", "y = x.half() ** 2\n1 / (1 + y.double())")):
        answer = ask(program=text, inputs={"x": np.array([300.0], dtype=dtype)}, want=["outputs", "vjp"])
        assert any("float64: the derivatives" in message for message in noted(answer).values()), dtype


@pytest.mark.parametrize(
    "call", ["torch.igamma(a, x)", "torch.special.gammainc(a, x)", "torch.igammac(a, x)", "torch.special.gammaincc(a, x)"]
)
@pytest.mark.parametrize("kind", ["vjp", "gradient", "jacobian"])
def test_an_output_that_is_nan_beside_a_finite_derivative_is_named(call: str, kind: str) -> None:
    for a, is_noted in ((-1.0, True), (1.5, False)):
        answer = ask(program=f"{call}.sum()", inputs={"a": [a], "x": [2.0]}, wrt=("x",), want=[kind])
        assert ("is NaN" in noted(answer).get("outputs.output", "")) == is_noted


# Program in x and w → a point of w at which its value is NaN, and one at which it is not, while the derivative by x stays finite.
BEYOND: Mapping[str, tuple[float, float]] = {
    "x + w": (np.nan, 1.0), "x + log(w)": (-1.0, 1.0), "x + sqrt(w)": (-1.0, 1.0), "x * 2 + asin(w)": (2.0, 0.5),
    "sin(x) + w / w": (0.0, 1.0), "x + acosh(w)": (0.5, 2.0), "x + special.ndtri(w)": (2.0, 0.5), "x + erfinv(w)": (1.5, 0.5),
    "x + w ** 0.5": (-2.0, 2.0), "x + fmod(w, w)": (0.0, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("text", BEYOND)
def test_whatever_is_nan_beside_a_finite_derivative_is_named(text: str) -> None:
    for w, is_noted in zip(BEYOND[text], (True, False), strict=True):
        answer = ask(program=f"({text}).sum()", inputs={"x": [2.5, 1.5], "w": [w]}, wrt=("x",), want=["gradient"])
        assert ("is NaN" in noted(answer).get("outputs.output", "")) == is_noted


@pytest.mark.parametrize("want", [["gradient"], ["outputs", "gradient"], ["vjp"]])
def test_a_single_number_that_is_infinite_beside_a_finite_derivative_is_named(want: list[str]) -> None:
    for text, x, is_noted in (
        ("linalg.norm(x)", [1e200, 1e200], True), ("linalg.norm(x)", [1.0, 1e200], True), ("linalg.norm(x)", [1.0, 2.0], False),
        ("sum(x)", [np.inf, 1.0], False), ("exp(x).sum()", [1000.0, 0.0], False),
    ):  # fmt: skip
        answer = ask(program=text, inputs={"x": np.array(x)}, want=want)
        assert ("is infinite, and" in noted(answer).get("outputs.output", "")) == is_noted, text
    sent = {"x": np.array([[1.0, 2.0], [1e200, 2.0]])}
    assert "outputs.output" in noted(ask(program="linalg.norm(x)", inputs=sent, batched=("x",), want=want))


def test_infinities_of_a_mask_are_not_named() -> None:
    assert not noted(ask(program="x.masked_fill(x > 1, -inf)", inputs={"x": [1.0, 2.0]}, want=["jacobian"]))


def test_a_nan_of_one_sample_beside_its_derivative_is_named() -> None:
    sent = {"a": np.array([[1.5], [-1.0]]), "x": np.array([[2.0], [2.0]])}
    answer = ask(program="torch.igamma(a, x).sum()", inputs=sent, wrt=("x",), batched=("a", "x"), want=["gradient"])
    assert "is NaN" in noted(answer)["outputs.output"]
    apart = ask(
        program="x[x.nonzero()[:, 0]].sum()", inputs={"x": [[1.0, 2.0], [1.0, np.nan]]}, batched=("x",), want=["gradient"]
    )
    assert "is NaN" in noted(apart)["outputs.output"]  # `nonzero` has no batching rule
    answer = ask(program="y = torch.igamma(a, x)\nz = x.sum()\nreturn y, z", inputs=sent, wrt=("x",), of="z", want=["gradient"])
    assert not noted(answer)


@pytest.mark.parametrize(("form", "says_so"), [("dense", False), ("sparse", True), ("auto", True)])
def test_a_structured_form_says_that_another_may_have_nan_elsewhere(form: Any, says_so: bool) -> None:
    """Dense passes make NaN of zeros beside the infinite derivative of sqrt at 0."""
    answer = ask(program="cat([x, x.sqrt()])", inputs={"x": [0.0, 1.0]}, want=["jacobian"], format=form)
    assert ("dense" in noted(answer)["jacobian.output.x"]) == says_so


B, H = torch.bfloat16, torch.float16
LSE, FIRST, KL = (
    "logsumexp(x, 0)",
    "log_softmax(x, 0)[0]",
    "nn.functional.kl_div(log_softmax(x, 0), softmax(y, 0), reduction='sum')",
)
# Program, the kind, inputs, dtype, and whether a note says that nothing is right.
ROUNDED: list[tuple[str, str, list[list[float]], torch.dtype, bool]] = [
    (LSE, "hessian", [[8.0, -8.0, -7.5]], B, True),
    (LSE, "hvp", [[8.0, -8.0, -7.5]], B, False),  # along the ones it is zero
    (LSE, "hessian", [[1.0, -0.5, 0.25]], B, False),
    (LSE, "hessian", [[8.0, -8.0, -7.5]], torch.float32, False),
    (LSE, "gradient", [[8.0, -8.0, -7.5]], B, False),
    (FIRST, "gradient", [[8.0, -8.0, -7.5]], B, True),
    (FIRST, "gradient", [[1.0, -0.5, 0.25]], H, False),
    (FIRST, "jacobian", [[8.0, -8.0, -7.5]], B, True),
    (KL, "gradient", [[1.0, 0.5, -0.25], [1.0, 0.5, -0.246]], B, True),
    (KL, "gradient", [[1.0, 0.5, -0.25], [0.5, 1.0, 0.25]], B, False),
    ("(x ** 2).sum()", "gradient", [[0.0, 0.0, 0.0]], B, False),
    ("softmax(x, 0).sum() * 0", "gradient", [[1.0, 2.0, 3.0]], B, False),
    ("(x * 2.0 ** -20) @ (x * 2.0 ** -20)", "gradient", [[2.0**-8, 0.0]], H, False),  # zero, as 2^-47 is in it
    ("relu(x).sum()", "hessian", [[1.0, -1.0]], B, False),
    # One of few numbers beside larger ones; of many one may be lost by ordinary rounding.
    ("x[0] * 10000 + log_softmax(x[1:], 0)[0]", "gradient", [[1.0, 8.0, -8.0, -7.5]], B, True),
    ("x[0] * 10000 + log_softmax(x[1:], 0)[0]", "gradient", [[1.0, 1.0, -0.5, 0.25]], B, False),
    ("stack([x[0], log(1 + x[1])])", "outputs", [[1.0, 1e-4]], H, True),
    ("stack([x[0], log1p(x[1])])", "outputs", [[1.0, 1e-4]], H, False),
    ("cat([x[:1].expand(20), log(1 + x[1:])])", "outputs", [[1.0, 1e-4]], H, False),
    ("x[0] - x[1]", "outputs", [[1.0, 1.0]], B, False),
    ("argmax(x)", "outputs", [[1.0, 1.0]], B, False),
    ("x ** 2", "outputs", [[300.0, 1.0]], H, False),  # infinite, as another note says
]


def lost(program: str, kind: str, tensors: list[torch.Tensor], **fields: Any) -> list[str]:
    """The places of its notes that digits are lost."""
    inputs = {name: from_torch(tensor) for name, tensor in zip("xy", tensors, strict=False)}
    answer = ENGINE.answer(Query(program=program, inputs=inputs, want=(kind,), wrt=("x",), **fields))
    return [note.at for note in answer.notes if note.code == "rounded"]


@pytest.mark.parametrize(("program", "kind", "inputs", "dtype", "is_lost"), ROUNDED)
def test_nothing_right_is_noted(program: str, kind: str, inputs: list[list[float]], dtype: torch.dtype, is_lost: bool) -> None:
    places = lost(program, kind, [torch.tensor(each, dtype=dtype) for each in inputs])
    assert bool(places) == is_lost
    assert all(place.startswith(kind) for place in places)


@pytest.mark.parametrize("form", ["sparse", "auto"])
def test_of_structured_forms(form: Any) -> None:
    assert lost(LSE, "hessian", [torch.tensor([8.0, -8.0, -7.5], dtype=B)], format=form) == ["hessian.x.x"]


def test_of_one_sample_of_a_batch() -> None:
    x = torch.tensor([[1.0, -0.5, 0.25], [8.0, -8.0, -7.5], [1.0, 2.0, 3.0]], dtype=B)
    assert lost(LSE, "hessian", [x], batched=("x",)) == ["hessian.x.x"]
    small = torch.tensor([[1.0, 1.0], [1.0, 1e-4]], dtype=H)
    assert lost("stack([x[0], log(1 + x[1])])", "outputs", [small], batched=("x",)) == ["outputs.output"]
    assert not lost(LSE, "hessian", [x[::2]], batched=("x",))
