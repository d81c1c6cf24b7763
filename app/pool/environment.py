"""How our own processes are started: the command of each engine, and the settings as variables, secrets left out, thread pools off."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Final

from app.settings import PREFIX, SECRETS, Settings

# Engine, as the setting names it → what starts the parent of its workers on this machine.
COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "local": (sys.executable, "-m", "app.pool.forkserver"),
}
# Where no GPU is to be used, PyTorch must find none: its fake tensors would ask CUDA for its devices, which spoils the fork.
NO_GPU: Final[Mapping[str, str]] = {"CUDA_VISIBLE_DEVICES": ""}
# Where one may be used. What the operator has set counts more.
GPU: Final[Mapping[str, str]] = {
    # `torch.cuda.is_available`, which fake tensors ask, must not initialise CUDA before the fork: NVML counts the devices
    # (docs.pytorch.org, "CUDA semantics", the note on forks).
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    # Without a workspace of its own cuBLAS adds in another order from call to call (docs.nvidia.com, cuBLAS, "Results reproducibility").
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # Queries of ever other sizes leave holes in segments that cannot grow (docs.pytorch.org, "Memory management").
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
}
# A thread pool does not survive a fork, so none may exist in the forkserver; workers set their threads after it.
SINGLE_THREADED: Final[Mapping[str, str]] = {
    "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMEXPR_NUM_THREADS": "1",
    # A worker's threads sleep between two operations instead of spinning on cores that the front and other workers need.
    "OMP_WAIT_POLICY": "PASSIVE",
}  # fmt: skip


def environment(settings: Settings) -> dict[str, str]:
    """The environment in which `Settings()` reads the same again, but for its secrets."""
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
    if settings.device == "cpu":
        return inherited | dict(SINGLE_THREADED) | dict(NO_GPU) | variables(settings)
    return dict(GPU) | inherited | dict(SINGLE_THREADED) | variables(settings)


def variables(settings: Settings) -> dict[str, str]:
    """The settings as `PULLBACK_*` variables, secrets and unset ones left out."""
    values = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if name not in SECRETS and value is not None:
            values[PREFIX + name.upper()] = ",".join(value) if isinstance(value, tuple) else str(value)
    return values
