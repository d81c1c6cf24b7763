"""The examples of `docs/examples` run against a real server and show what they say."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import Server, clean_environment

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples"
# Example → a package that it needs beside the development ones, and its last line.
SHOWN = {
    "torch_at_home": ("tesseract_torch", "the same"),
    "jax_at_home": ("tesseract_jax", "the same"),
    "sampler": ("emcee", "Langevin: 600 draws"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_example(speaking: Server, name: str) -> None:
    package, last = SHOWN[name]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), speaking.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=850, check=False, env=clean_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().splitlines()[-1].startswith(last), done.stdout


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SHOWN)
