"""What a GPU answers beside the CPU: people's questions, PyTorch's samples, what repeats, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch

from tests.gpu import DEVICE, on_a_device
from tests.gpu.comparing import asked, differences, sent
from tests.op_db import Case, cases, is_excepted, pages, title
from tests.pool.queries import metric
from tests.server import Server

pytestmark = [pytest.mark.gpu, on_a_device]
QUESTIONS: Final = sorted((Path(__file__).parent.parent / "questions").glob("*.json"))
# Operations whose results are not unique: another library may choose others that are as right.
NOT_UNIQUE: Final = frozenset(
    {
        "linalg.eig", "linalg.eigh", "linalg.svd", "linalg.qr", "svd", "qr", "geqrf", "linalg.householder_product", "ormqr", "pca_lowrank",
        "svd_lowrank", "linalg.ldl_factor", "linalg.ldl_factor_ex", "linalg.lstsq", "lu", "linalg.lu", "linalg.lu_factor",
        "linalg.lu_factor_ex", "mode", "empty_like", "new_empty", "empty", "empty_strided", "new_empty_strided", "empty_permuted",
    }
)  # fmt: skip
PROGRAM: Final = {
    "program": "h = tanh(x @ w + b)\nreturn nn.functional.cross_entropy(h @ v, y) + 0.1 * (w ** 2).sum()",
    "want": ["outputs", "gradient"],
    "wrt": ["w", "b", "v"],
}


def numbers(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).tolist()


def program(seed: int) -> dict[str, Any]:
    inputs = {"x": numbers(seed, 4, 6), "w": numbers(seed + 1, 6, 5), "b": numbers(seed + 2, 5), "v": numbers(seed + 3, 5, 3)}
    return {**PROGRAM, "inputs": {**inputs, "y": [0, 2, 1, 1]}}


@pytest.mark.parametrize("path", QUESTIONS, ids=lambda path: path.stem)
def test_a_question_is_answered_right_on_the_device(device_server: Server, path: Path) -> None:
    question = json.loads(path.read_text())
    status, answer, results = asked(device_server, question["query"])
    assert status == question["status"], answer
    if status == 200:
        assert answer["plan"]["device"].startswith(DEVICE)
    for name, expected in question.get("expect", {}).items():
        np.testing.assert_allclose(results[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)


def query_of(case: Case) -> dict[str, Any]:
    inputs = {name: [sent(t) for t in v] if isinstance(v, list) else sent(v) for name, v in case.inputs.items()}
    return {"operation": case.operation, "inputs": inputs, "parameters": case.parameters}


def test_a_sample_of_every_operation_beside_the_cpu(server: Server, device_server: Server) -> None:
    """Values and VJPs; what the CPU refuses is refused. At least 97 %, as over HTTP on the CPU; no worker may die of any."""

    faults, tried = [], 0
    for case in cases(pages(server.http), 1):
        if isinstance(case, str) or is_excepted(title(case.info)) or case.operation in NOT_UNIQUE:
            continue
        if not is_plain(case.parameters):
            continue
        for want in (["outputs"], ["vjp"]):
            query = {**query_of(case), "want": want}
            status, answer, expected = asked(server, query)
            other, ours, results = asked(device_server, query)
            tried += 1
            if status != other:
                faults.append(
                    f"{title(case.info)} {want}: {other} {ours.get('detail')}, on the CPU {status} {answer.get('detail')}"
                )
            elif lines := differences(results, expected):
                faults.append(f"{title(case.info)} {want}: {lines}")
    print("\n".join(faults))  # noqa: T201
    assert tried > 700
    assert len(faults) <= 0.03 * tried, faults
    assert metric(device_server.http, 'pullback_worker_restarts_total{reason="crash"}') == 0


def is_plain(parameters: Any) -> bool:
    """Without numbers that JSON lacks."""
    try:
        json.dumps(parameters, allow_nan=False)
    except ValueError:
        return False
    return True


# What a GPU's kernels assert: an assertion that fails there ends the process.
HOSTILE: Final[dict[str, dict[str, Any]]] = {
    "gather": {"operation": "gather", "inputs": {"input": [1.0, 2.0], "index": [2]}, "parameters": {"dim": 0}},
    "index": {"program": "x[i]", "inputs": {"x": [1.0, 2.0], "i": [-3]}},
    "scatter_add": {"program": "x.scatter_add(0, i, x)", "inputs": {"x": [1.0, 2.0], "i": [0, 9]}},
    "embedding": {"operation": "nn.functional.embedding", "inputs": {"input": [3], "weight": [[1.0], [2.0]]}},
    "cross_entropy": {"operation": "nn.functional.cross_entropy", "inputs": {"input": [[1.0, 2.0]], "target": [2]}},
    "binary_cross_entropy": {"operation": "nn.functional.binary_cross_entropy", "inputs": {"input": [1.5], "target": [1.0]}},
    "bernoulli": {"operation": "bernoulli", "inputs": {"input": [2.0]}, "seed": 0},
    "one_hot": {"operation": "nn.functional.one_hot", "inputs": {"input": [5]}, "parameters": {"num_classes": 3}},
    "take": {"operation": "take", "inputs": {"input": [1.0], "index": [4]}},
    "max_unpool1d": {
        "operation": "nn.functional.max_unpool1d",
        "inputs": {"input": [[[0.4, 0.8]]], "indices": [[[1, 9]]]},
        "parameters": {"kernel_size": 2},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_values_that_a_kernel_would_assert_are_refused_and_the_worker_lives(device_server: Server, name: str) -> None:
    status, answer, _ = asked(device_server, HOSTILE[name])
    # On the CPU some of PyTorch's own words count as being about shapes.
    assert status == 422, answer
    assert answer["code"] in ("operation_failed", "shape_mismatch"), answer
    assert "CUDA" not in answer["detail"]
    assert asked(device_server, program(0))[0] == 200
    assert metric(device_server.http, 'pullback_worker_restarts_total{reason="crash"}') == 0


def test_what_repeats_is_answered_as_the_first_time_and_as_on_the_cpu(server: Server, device_server: Server) -> None:
    """Often enough for a recipe and for a CUDA graph of it, with other numbers each time."""
    first = [asked(device_server, program(seed))[2] for seed in range(40)]
    for seed, results in enumerate(first):
        assert not differences(results, asked(server, program(seed))[2]), seed
    for seed, results in enumerate(first):
        again = asked(device_server, program(seed))[2]
        assert {name: value.tobytes() for name, value in again.items()} == {n: v.tobytes() for n, v in results.items()}, seed


# What stood on the CPU, or was not followed, where all the rest was on a device.
MIXED: Final[dict[str, dict[str, Any]]] = {
    "constants": {"program": "(torch.ones(3) * x).sum() + (torch.eye(3) @ x)[0] + torch.tensor([1.0, 2.0, 3.0]) @ x", "want": ["gradient"]},
    "pattern of a constant": {"program": "torch.diag(torch.arange(3) * 1.0) @ x", "want": ["jacobian"], "format": "sparse"},
    "exact numbers of an index": {
        "operation": "gather",
        "inputs": {"input": [0.1, 0.2, 0.3], "index": [2, 0]},
        "parameters": {"dim": 0},
        "want": ["precision"],
    },
    "LSTM without biases": {
        "program": "w = torch.ones(8, 2)\nreturn torch.lstm_cell(x[None, :2], (x[None, 1:], x[None, :2]), w, w)[0].sum()",
        "want": ["gradient"],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
def test_constants_and_indices_stand_on_the_device(server: Server, device_server: Server, name: str) -> None:
    query = {"inputs": {"x": [0.1, 0.2, 0.3]}, **MIXED[name]}
    status, expected, tensors = asked(server, query)
    other, answer, results = asked(device_server, query)
    assert (status, other) == (200, 200), (expected, answer)
    assert not differences(results, tensors)
    assert [note["code"] for note in answer["notes"]] == [note["code"] for note in expected["notes"]]
    if "precision" in answer:
        assert answer["precision"]["input"]["reference"] == expected["precision"]["input"]["reference"] == "mpmath"


def test_a_seed_gives_the_same_draws(device_server: Server) -> None:
    query = {"operation": "nn.functional.dropout", "inputs": {"input": numbers(0, 50)}, "seed": 7, "want": ["outputs", "vjp"]}
    _, _, one = asked(device_server, query)
    assert one
    for _ in range(3):
        assert not differences(asked(device_server, query)[2], one, 0.0)
    assert differences(asked(device_server, {**query, "seed": 8})[2], one)


@pytest.mark.parametrize("text", ["x @ x", "nn.functional.conv2d(x[None, None], x[None, None, :9, :9])"], ids=["@", "conv2d"])
def test_float32_keeps_its_digits(device_server: Server, text: str) -> None:
    """TF32, with 11 bits of a factor, would be off by some 3e-4 of the largest number."""
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    single, double = (
        asked(device_server, {"program": text, "inputs": {"x": sent(x.to(dtype))}, "want": ["outputs", "vjp"]})[2]
        for dtype in (torch.float32, torch.float64)
    )
    for name, value in double.items():
        assert np.abs(single[name] - value).max() < 2e-5 * np.abs(value).max(), name


def test_large_bodies(device_server: Server) -> None:
    """W2 of the benchmarks: tanh of a million float32 and its VJP, in and out as bytes."""
    x = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    query = {"operation": "tanh", "inputs": {"input": sent(x)}, "cotangent": {"output": sent(x)}, "want": ["outputs", "vjp"]}
    for _ in range(3):
        status, _, results = asked(device_server, query)
        assert status == 200
        np.testing.assert_allclose(results["outputs.output"], torch.tanh(x), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(results["vjp.input"], x * (1 - torch.tanh(x) ** 2), rtol=1e-3, atol=1e-5)
