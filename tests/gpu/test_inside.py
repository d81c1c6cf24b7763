"""CUDA graphs, pinned memory, memory limits and a lost context, each in a process of its own as a worker has it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from app.pool.environment import GPU
from tests.gpu import on_cuda_alone
from tests.gpu.inside import LOOKS
from tests.server import clean_environment
from tests.test_floors import ROOT

pytestmark = [pytest.mark.gpu, on_cuda_alone]


@pytest.mark.parametrize("look", LOOKS)
def test_on_a_gpu(look: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.inside", look, "cuda:0"],
        cwd=ROOT,
        env=clean_environment(**GPU),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
