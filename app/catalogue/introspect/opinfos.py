"""PyTorch's own test database of operations, read quickly."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import numpy as np
import torch


@cache
def opinfos() -> tuple[Any, ...]:
    """Every OpInfo, for samples on the CPU. The import takes seconds.

    Before each pass over samples PyTorch looks on the stack for the unittest that asks, with the sources of all that stands there, and
    before each sample it seeds the generators of every kind of device, which writes the stack down three times: two thirds of the time
    that the catalogue takes (measured). Here nobody is looked for, and the CPU's generators alone are seeded, as they would be.
    """
    from torch.testing._internal import common_utils
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.opinfo import core

    for module in (common_utils, core):
        setattr(module, "extract_test_fn", lambda: None)  # noqa: B010 - another's name, which mypy would hold to its type
    setattr(common_utils, "set_rng_seed", lambda seed=None: seed_cpu(common_utils.SEED if seed is None else seed))  # noqa: B010
    return tuple(op_db)


def seed_cpu(seed: int) -> None:
    """Seed all that PyTorch's samples and operations draw from on the CPU."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
