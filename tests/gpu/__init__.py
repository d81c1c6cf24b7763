"""Tests on a GPU. `PULLBACK_TEST_DEVICE=cpu` runs on the CPU what does not need one, so that the tests themselves are tried everywhere."""

from __future__ import annotations

import os
from typing import Final

import pytest
import torch

DEVICE: Final = os.environ.get("PULLBACK_TEST_DEVICE", "cuda")
# Counted by NVML, so that these tests' own process does not open CUDA.
GPUS: Final = torch.cuda.device_count()
_NONE: Final = "there is no CUDA device here (PULLBACK_TEST_DEVICE=cpu tries on the CPU what can be)"

on_a_device: Final = pytest.mark.skipif(DEVICE == "cuda" and not GPUS, reason=_NONE)
on_cuda_alone: Final = pytest.mark.skipif(DEVICE != "cuda" or not GPUS, reason=_NONE)
on_several_gpus: Final = pytest.mark.skipif(DEVICE != "cuda" or GPUS < 2, reason="there are not two GPUs here")
