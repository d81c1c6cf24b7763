"""StoredFunction functions: what a file says, what is wrong with one, and how its annotations and defaults bind a query."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import TestCase

import numpy as np
import pytest
import torch

from app.errors import PullbackError
from app.program.functions import build_function, load
from app.program.stored import Functions, parse
from tests.program.building import tensors

CARRIED = ["banana_log_density", "gaussian_log_density", "heat_step", "mlp_loss", "rosenbrock"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Good files, broken ones, and what is no function file at all."""
    files = {
        "decay.py": (
            'def decay(t: float64["n"], rate: float = 2.0, *, scale: int = 1):\n'
            '    """Exponential decay."""\n'
            "    return scale * exp(-rate * t)\n"
        ),
        "pair.py": (
            'def pair(a: float64["n", 3], b: float64["n"], i: int64["n"]):\n'
            '    return {"total": a.sum(1) * b, "picked": a[arange(a.shape[0]), i]}\n'
        ),
        "rosenbrock.py": ('def rosenbrock(x: float64[2]):\n    """Ours."""\n    return x.sum()\n'),
        "broken.py": "def broken(x: float64[3]):\n    import torch._C\n    return x\n",
        "other.py": "def another(x: float64[3]):\n    return x\n",
        "syntax.py": "def syntax(x:\n",
        "two.py": ("def two(x: float64):\n    return x\n\n\ndef three(x: float64):\n    return x\n"),
        "untyped.py": "def untyped(x: Tensor):\n    return x\n",
        "axis.py": "def axis(x: float64[n]):\n    return x\n",
        "default.py": "def default(x: float64, k=open('a')):\n    return x\n",
        "empty.py": "",
        "long.py": "def long(x: float64):\n    return x\n" + "#" * 20_000,
        "nothing.py": "def nothing(k: float = 1.0):\n    return k\n",
        "notes.txt": "not a function",
        "_private.py": "def _private(x: float64):\n    return x\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "latin.py").write_bytes(b"def latin(x: float64):\n    '\xe9'\n    return x\n")
    return tmp_path


def names(functions: Functions) -> list[str]:
    return [stored.name for stored in functions]


def test_the_package_carries_a_few() -> None:
    functions = load(None)
    assert names(functions) == CARRIED
    for stored in functions:
        assert stored.description
        example = {name: torch.tensor(value, dtype=torch.float64) for name, value in stored.entry["example"]["inputs"].items()}
        function = build_function(stored, example, {}, torch.float64)
        assert function.title == stored.name
        assert function.outputs == stored.outputs
        assert all(torch.isfinite(value).all() for value in function.call(*example.values()))


def test_carried_functions_are_right() -> None:
    functions = load(None)
    rng = np.random.default_rng(3)
    x, mean, log_scale = rng.normal(size=(3, 4))
    density = _value(functions, "gaussian_log_density", x=x, mean=mean, log_scale=log_scale)
    expected = sum(-0.5 * ((x - mean) / np.exp(log_scale)) ** 2 - log_scale - 0.5 * np.log(2 * np.pi))
    np.testing.assert_allclose(density, expected)
    np.testing.assert_allclose(_value(functions, "rosenbrock", x=[1.0, 1.0, 1.0]), 0.0)
    np.testing.assert_allclose(_value(functions, "rosenbrock", x=[0.5, 2.0]), 0.25 + 100 * 1.75**2)
    u = np.array([1.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(_value(functions, "heat_step", u=u), [0.8, 0.1, 0.0, 0.1])
    weights = {"w1": rng.normal(size=(3, 5)), "b1": rng.normal(size=5), "w2": rng.normal(size=(5, 2)), "b2": rng.normal(size=2)}
    inputs, target = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    prediction = np.tanh(inputs @ weights["w1"] + weights["b1"]) @ weights["w2"] + weights["b2"]
    loss = _value(functions, "mlp_loss", x=inputs, target=target, **weights)
    np.testing.assert_allclose(loss, ((prediction - target) ** 2).mean())


def _value(functions: Functions, name: str, **inputs: object) -> Any:
    leaves = tensors(**inputs)
    stored = functions.find(name)
    ordered = {spec.name: leaves[spec.name] for spec in stored.inputs}
    return build_function(stored, ordered, {}, torch.float64).call(*ordered.values())[0].numpy()


def test_a_folder_adds_functions_and_names_the_broken(folder: Path) -> None:
    with TestCase().assertLogs("pullback.functions", logging.ERROR) as logs:
        functions = load(str(folder))
    assert names(functions) == sorted(["decay", "pair", *CARRIED])
    assert functions.find("rosenbrock").description == "Ours."
    listing = functions.listing()["functions"]
    broken = {entry["name"]: entry["error"] for entry in listing if "error" in entry}
    expected = ["axis", "broken", "default", "empty", "latin", "long", "nothing", "other", "syntax", "two", "untyped"]
    assert sorted(broken) == expected
    assert broken["broken"]["at"] == "2:5"
    assert "import" in broken["broken"]["detail"]
    for name in expected:
        assert f"{name}.py" in "\n".join(logs.output)
    assert str(folder) not in str(listing)


def test_the_entry_of_a_function(folder: Path) -> None:
    entry = load(str(folder)).find("pair").entry
    assert entry["signature"] == {
        "inputs": [
            {"name": "a", "dtype": "float64", "shape": ["n", 3]},
            {"name": "b", "dtype": "float64", "shape": ["n"]},
            {"name": "i", "dtype": "int64", "shape": ["n"]},
        ],
        "parameters": [],
        "outputs": [{"name": "total"}, {"name": "picked"}],
    }
    assert entry["program"].startswith("def pair(")
    decay = load(str(folder)).find("decay").entry
    assert decay["description"] == "Exponential decay."
    assert decay["signature"]["parameters"] == [
        {"name": "rate", "kind": "number", "required": False, "default": 2.0},
        {"name": "scale", "kind": "integer", "required": False, "default": 1},
    ]


def test_defaults_and_parameters(folder: Path) -> None:
    decay = load(str(folder)).find("decay")
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(build_function(decay, {"t": t}, {}, torch.float64).call(t)[0], torch.exp(-2 * t))
    changed = build_function(decay, {"t": t}, {"rate": 1, "scale": 3}, torch.float64)
    torch.testing.assert_close(changed.call(t)[0], 3 * torch.exp(-t))
    rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        build_function(decay, {"t": t, "rate": rate}, {}, torch.float64).call(t, rate)[0].sum(), rate
    )
    torch.testing.assert_close(gradient, -(t * torch.exp(-0.5 * t)).sum())


def test_dtypes_that_can_stand_for_the_annotation(folder: Path) -> None:
    decay = load(str(folder)).find("decay")
    whole = torch.tensor([0, 1])
    torch.testing.assert_close(
        build_function(decay, {"t": whole}, {}, torch.float64).call(whole)[0], torch.exp(-2.0 * whole.double())
    )
    single = torch.tensor([0.0, 1.0])
    assert build_function(decay, {"t": single}, {}, torch.float32).call(single)[0].dtype == torch.float32


REFUSED = [
    ("pair", {"a": (2, 3), "b": (3,), "i": (2,)}, {}, "shape_mismatch", "inputs.b", "`n`"),
    ("pair", {"a": (2, 4), "b": (2,), "i": (2,)}, {}, "shape_mismatch", "inputs.a", "[2, 4]"),
    ("pair", {"a": (2,), "b": (2,), "i": (2,)}, {}, "shape_mismatch", "inputs.a", "[2]"),
    ("decay", {}, {}, "bad_tensor", "inputs.t", "needs the input"),
    ("decay", {}, {"t": 1.0}, "bad_tensor", "inputs.t", "needs the input"),
    ("decay", {"t": (2,), "tt": (2,)}, {}, "bad_tensor", "inputs.tt", "no input `tt`"),
    ("decay", {"t": (2,)}, {"rat": 1.0}, "bad_parameter", "parameters.rat", "no parameter `rat`"),
    ("decay", {"t": (2,)}, {"rate": "fast"}, "bad_parameter", "parameters.rate", "kind number"),
    ("decay", {"t": (2,)}, {"scale": 1.5}, "bad_parameter", "parameters.scale", "kind integer"),
]


@pytest.mark.parametrize(("name", "shapes", "parameters", "code", "at", "detail"), REFUSED)
def test_what_does_not_fit_is_refused(
    folder: Path, name: str, shapes: dict[str, tuple[int, ...]], parameters: dict[str, float], code: str, at: str, detail: str
) -> None:
    inputs = {k: torch.zeros(s, dtype=torch.int64 if k == "i" else torch.float64) for k, s in shapes.items()}
    with pytest.raises(PullbackError) as caught:
        build_function(load(str(folder)).find(name), inputs, parameters, torch.float64)
    assert (caught.value.code, caught.value.at) == (code, at)
    assert detail in caught.value.detail


def test_a_floating_tensor_cannot_stand_for_an_index(folder: Path) -> None:
    inputs = {"a": torch.zeros(2, 3), "b": torch.zeros(2), "i": torch.zeros(2)}
    with pytest.raises(PullbackError, match="int64"):
        build_function(load(str(folder)).find("pair"), inputs, {}, torch.float64)


def test_unknown_functions_are_named_with_the_nearest(folder: Path) -> None:
    functions = load(str(folder))
    with pytest.raises(PullbackError) as caught:
        functions.find("rosenbrok")
    assert caught.value.code == "unknown_function"
    assert "rosenbrock" in caught.value.detail
    with pytest.raises(PullbackError, match="import") as broken:
        functions.find("broken")
    assert broken.value.code == "unknown_function"


def test_a_folder_that_is_missing_is_named() -> None:
    with TestCase().assertLogs() as logs:
        assert names(load("/nowhere/at/all")) == CARRIED
    assert "does not exist" in "\n".join(logs.output)


def test_a_docstring_may_stand_before_the_def() -> None:
    assert parse("f", '"""A file."""\n\n\ndef f(x):\n    return x\n').inputs[0].shape is None


def test_reading_functions_needs_no_torch() -> None:
    code = "import sys; import app.program.stored as k; k.load(None).listing(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
