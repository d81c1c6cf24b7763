"""What a refusal says: the code, line and column, and what to write instead."""

from __future__ import annotations

import pytest
import torch

from app.errors import PullbackError
from app.program.errors import is_memory, way_out
from tests.program.building import built

INPUTS = {
    "x": torch.tensor([[0.5, -1.25, 2.0], [1.5, 0.25, -0.75]], dtype=torch.float64),
    "w": torch.ones(4, 2, dtype=torch.float64),
    "label": torch.tensor([0, 1]),
}

# program, code, line:column, words of the detail, words of the fix
CASES = [
    ("x.__class__", "bad_program", "1:1", "`.__class__`", None),
    ("y = x +\nreturn y", "bad_program", "1:8", "invalid syntax", None),
    ("y = relu(x\nreturn y", "bad_program", "1:9", "'(' was never closed", None),
    ("sofmax(x, dim=1)", "bad_program", "1:1", "no operation `sofmax`", "softmax"),
    ("y = 2 * x\nz = y + tanhh(y)\nz", "bad_program", "2:9", "`tanhh`", "tanh"),
    ("x + lable", "bad_program", "1:5", "`lable` is not defined; the inputs and parameters are: label, w, x", "label"),
    ("softmax(x, axs=1)", "bad_program", "1:1", "no argument `axs`", "dim"),
    ("x.sumz(0)", "bad_program", "1:1", "no `.sumz`", "sum"),
    ("where((x > 0) and (x < 1), x, 0)", "bad_program", "1:7", "`and` does not work on tensors", "&"),
    ("(0 < x < 1).sum()", "bad_program", "1:2", "chained comparison", "(a < x) & (x < b)"),
    ("relu = x * 2\nrelu(x)", "bad_program", "2:1", "`relu` is your variable (a tensor)", "torch.relu"),
    ("def f(z):\n    return z", "bad_program", "1:7", "neither an input nor a parameter", '"z"'),
    ("def f(x):\n    return f(x)", "bad_program", "2:12", "calls itself", "for"),
    ("x[::-1]", "bad_program", "1:1", "step below 1", "flip"),
    ("return x\ny = 2", "bad_program", "2:1", "Nothing after `return`", None),
    ("max(x, 1) * 2", "bad_program", "1:1", "`max` gives several tensors", "`.values`"),
    ("x ** 2 ** 1000", "bad_program", "1:6", "more than 256 bits", "2.0 ** n"),
    ("for i in range(3000):\n    x = x + 1\nreturn x", "too_costly", "2:9", "more than 2,000 steps", "whole tensors"),
    ("zeros(10 ** 12)", "too_costly", "1:1", "1,000,000,000,000 elements", None),
    ("y = x @ w", "shape_mismatch", "1:5", "`@` was given float64[2, 3], float64[4, 2]", None),
    ("y = x\nz = y @ x\nreturn z", "shape_mismatch", "2:5", "float64[2, 3]", "a @ b.mT"),
    ("x + w", "shape_mismatch", "1:1", "`+` was given", None), ("x[5]", "shape_mismatch", "1:1", "out of bounds", "from 0 to 1"),
    ("zeros(0)[3]", "shape_mismatch", "1:1", "out of bounds", "empty"),
    ("x[-2 ** 63:]", "bad_program", "1:3", "at most 63 bits", "Leave the bound out"), ("x[:0.5]", "bad_program", "1:3", "made of integers", "//"),
    ("cat([x, w])", "shape_mismatch", "1:1", "`cat`", None),
    ("x.reshape(4)", "shape_mismatch", "1:1", "invalid for input of size 6", None),
    ("softmax(x)", "bad_program", "1:1", "needs to know along which axis", "dim=-1"),
    ("linalg.inv(x)", "shape_mismatch", "1:1", "square matrices", None),
    ("v = x[0]\nv * (v.T is v.T)", "bad_program", "2:6", "one tensor or two", "names"),
    ("y = x[:, :2]\nx * (y.T is y.T)", "bad_program", "2:6", "one tensor or two", "names"),
    ("x.sum(7)", "operation_failed", "1:1", "Dimension out of range", "from -2 to 1"),
    ("nn.functional.one_hot(label - 1)", "operation_failed", "1:1", "non-negative", "Send classes from 0"),
    ("x.topk(-1)", "operation_failed", "1:1", "PyTorch refused: the arguments do not fit.", None),
]  # fmt: skip

_FITTED = """v, u = (torch.ones(2, requires_grad=True) for _ in range(2))
a, b = torch.optim.SGD([v], lr=0.1, momentum=0.9), torch.optim.SGD([u], lr=0.1, momentum=0.9)
(u.sum() + v.sum()).backward()
a.step()
s = a.state_dict()
"""
CASES += [
    (_FITTED + "a.step()\na.load_state_dict(s)", "bad_program", "7:1", "made steps since", "deepcopy"),
    (_FITTED + "a.step()\nt = copy.deepcopy(s)", "bad_program", "7:5", "made steps since", "deepcopy"),
    (_FITTED + "b.load_state_dict(s)\nb.step()\na.step()", "bad_program", "8:1", "the same tensors", "deepcopy"),
    (_FITTED + "s = copy.deepcopy(s)\nb.load_state_dict(s)\nb.step()\nb.load_state_dict(s)", "bad_program", "9:1", "made steps since", "deepcopy"),
    (_FITTED + "b.add_param_group({'params': [x[0]]})\nb.load_state_dict(s)", "operation_failed", "7:1", "other groups", "that was saved"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "code", "at", "detail", "fix"), CASES, ids=[case[0] for case in CASES])
def test_says_what_where_and_what_instead(text: str, code: str, at: str, detail: str, fix: str | None) -> None:
    with pytest.raises(PullbackError) as caught:
        built(text, INPUTS)
    error = caught.value
    assert error.code == code, error
    assert error.at == at, error
    assert detail in error.detail, error
    assert error.detail.startswith(f"Line {at.split(':')[0]}, column {at.split(':')[1]}: ")
    if fix is not None:
        assert fix in (error.fix or ""), error.fix


@pytest.mark.parametrize("bases", ["A, B", "A, A"])
def test_classes_without_a_common_order_are_refused_where_they_stand(bases: str) -> None:
    with pytest.raises(PullbackError) as caught:
        built(f"class A:\n    k = 2\nclass B(A):\n    pass\nclass C({bases}):\n    pass\nx * B().k", {"x": torch.ones(2)})
    assert (caught.value.code, caught.value.at) == ("bad_program", "5:1")


@pytest.mark.parametrize("yielding", ["print((yield x))", "z = [(yield x)]", "return x + (yield x)"])
def test_a_yield_inside_an_expression_is_refused_where_it_stands(yielding: str) -> None:
    with pytest.raises(PullbackError) as caught:
        built(f"def g():\n    {yielding}\n    yield x\nsum(g())", {"x": torch.ones(2)})
    assert caught.value.code == "bad_program"
    assert (caught.value.at or "").startswith("2:")
    assert "alone behind `=`" in caught.value.detail


def test_the_place_counts_indentation_and_characters() -> None:
    with pytest.raises(PullbackError) as caught:
        built("    θ = x\n    'é'; y = θ + foo\n    return y", INPUTS)
    assert caught.value.at == "2:18"


def test_wrong_keywords_name_the_signature() -> None:
    with pytest.raises(PullbackError) as caught:
        built("softmax(x, axs=1)", INPUTS)
    assert "dim" in (caught.value.expected or "")
    assert caught.value.given == "axs"


def test_names_that_no_text_could_mean_are_refused() -> None:
    for name in ("a-b", "0", "", "a b", "__x", "None"):
        with pytest.raises(PullbackError) as caught:
            built("1 + 1", {name: INPUTS["x"]})
        assert (caught.value.code, caught.value.at) == ("bad_program", f"inputs.{name}")


def test_steps_that_fail_only_when_they_run_keep_their_place() -> None:
    from app.program.graph_runner import step_of

    function = built("y = x * 2\nreturn linalg.cholesky(y)", {"x": torch.ones(2, 2, dtype=torch.float64)})
    with pytest.raises(RuntimeError) as caught:
        function.call(-torch.ones(2, 2, dtype=torch.float64))
    step = step_of(caught.value)
    assert step is not None
    assert (step.line, step.column, step.operation) == (2, 8, "linalg.cholesky")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"), True),
        (RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUSPARSE_STATUS_INSUFFICIENT_RESOURCES"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), False),
        (ValueError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_allocator_that_refuses_is_known_by_its_words(error: BaseException, expected: bool) -> None:
    assert is_memory(error) == expected


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("Target 5 is out of bounds.", "number of classes - 1"),
        ("target out of range", "number of classes - 1"),
        ("argument #2 'target' is out of range", "number of classes - 1"),
        ("index out of range in self", "length of the axis - 1"),
        ("out of range: tried to access index 9 on a tensor of 6 elements.", "from 0 to 5"),
        ("index 3 is out of bounds for dimension 0 with size 2", "from 0 to 1"),
        ("Found an invalid max index: -3 (output volumes are of size 4x1)", "as the pooling gives them"),
        ("bincount only supports 1-d non-negative integral inputs.", "whole numbers from 0"),
    ],
)
def test_what_pytorch_says_of_indices_has_a_way_out(said: str, fix: str) -> None:
    assert fix in (way_out(IndexError(said)) or "")
