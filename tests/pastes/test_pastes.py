"""Every paste gives PyTorch's outputs and gradients, with its weights sent or with its weights drawn from the seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from app.query import Query, TensorData
from tests.engine.asking import ENGINE, array
from tests.pastes import attention, derivatives, inplace, layers, losses, models, notebook, steps
from tests.pastes.paste import Paste, collected, reference, tensors
from tests.share import is_whole, share

SORTS = [
    notebook.PASTES, losses.PASTES, inplace.PASTES, layers.PASTES, models.PASTES, attention.PASTES, derivatives.PASTES, steps.PASTES,
    [*collected()],
]  # fmt: skip
PASTES = [paste for sort in SORTS for paste in sort]


def _file(paste: Paste) -> str:
    """Of those that were collected, where it stands."""
    return paste.name.partition(": ")[0] if ": " in paste.name else ""


ASKED = [paste for sort in SORTS for paste in share(sort, 2, _file)]
WITH_WEIGHTS = [paste for paste in ASKED if paste.model]
# To read a paste is most of what it costs: half of each sort are asked, of those with weights half have them drawn and the others sent; all
# of them, and both, where all is asked.
DRAWN = share(WITH_WEIGHTS, 2)
SENT = [paste for paste in ASKED if is_whole() or paste not in DRAWN]


def _data(tensor: Tensor) -> TensorData:
    value = np.array(tensor.detach().numpy(), order="C")
    return TensorData(str(value.dtype), value.shape, memoryview(bytearray(value.tobytes())), False)


def _answer(paste: Paste, sent: dict[str, Tensor], cotangent: Tensor, wrt: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    query = Query(
        program=paste.text,
        inputs={name: _data(tensor) for name, tensor in sent.items()},
        parameters=paste.parameters,
        seed=paste.seed,
        want=("outputs", "vjp") if wrt else ("outputs",),
        wrt=wrt or None,
        cotangent={"output": _data(cotangent)} if wrt else {},
    )
    results = ENGINE.answer(query).results
    output = torch.tensor(array(results["outputs"]["output"]))
    return output, {key: torch.tensor(array(value)) for key, value in results.get("vjp", {}).items()}


def _gives_what_pytorch_gives(paste: Paste, *, drawn: bool) -> None:
    wanted = reference(paste)
    sent = {**tensors(paste), **({} if drawn else wanted.weights)}
    wrt = tuple(name for name, gradient in wanted.gradients.items() if gradient is not None)
    output, gradients = _answer(paste, sent, wanted.cotangent, wrt)
    torch.testing.assert_close(output.to(wanted.output.dtype), wanted.output, rtol=1e-9, atol=1e-11, equal_nan=True)
    for name in wrt:
        torch.testing.assert_close(gradients[name], wanted.gradients[name], rtol=1e-8, atol=1e-10, equal_nan=True, msg=name)


@pytest.mark.parametrize("paste", SENT, ids=[paste.name for paste in SENT])
def test_gives_what_pytorch_gives(paste: Paste) -> None:
    _gives_what_pytorch_gives(paste, drawn=False)


@pytest.mark.parametrize("paste", DRAWN, ids=[paste.name for paste in DRAWN])
def test_weights_that_are_not_sent_are_pytorchs(paste: Paste) -> None:
    _gives_what_pytorch_gives(paste, drawn=True)


def test_there_are_many_and_half_of_each_sort_are_asked() -> None:
    assert len({paste.name for paste in PASTES}) == len(PASTES) >= 520
    assert {_file(paste) for paste in ASKED} == {_file(paste) for paste in PASTES}
    assert len(PASTES) * 0.49 < len(ASKED)
