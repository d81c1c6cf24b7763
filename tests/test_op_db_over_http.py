"""PyTorch's own samples, one for each operation (two by `make sweep`), sent by name over HTTP: outputs and VJPs are PyTorch's."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from app.catalogue.dtypes import dtype_name
from tests.op_db import SEED, Case, cases, equal, is_excepted, pages, tensors, title
from tests.server import Server
from tests.share import is_whole

SAMPLES = 2 if is_whole() else 1
# Where the answer is right and PyTorch's test asks for something else.
VJP_APART = {
    "nn.functional.ctc_loss": "its backward takes the scores to be normalised",
}


def _sent(value: Tensor) -> dict[str, Any]:
    dtype = dtype_name(value.dtype)
    value = value.detach().resolve_conj().resolve_neg()
    if value.is_complex():
        data = [[_word(part) for part in pair] for pair in torch.view_as_real(value).reshape(-1, 2).tolist()]
    else:
        data = [_word(x) for x in value.flatten().tolist()]
    return {"dtype": dtype, "shape": list(value.shape), "data": data}


def _word(x: Any) -> Any:
    if isinstance(x, float) and x != x:
        return "NaN"
    return {float("inf"): "Infinity", float("-inf"): "-Infinity"}.get(x, x) if isinstance(x, float) else x


def _plain(value: Any) -> Any:
    return [_plain(member) for member in value] if isinstance(value, list) else _word(value)


def _read(answer: Mapping[str, Any]) -> Tensor:
    dtype = getattr(torch, answer["dtype"])

    def number(value: Any) -> Any:
        if isinstance(value, list):
            return [number(member) for member in value]
        return float(value.replace("Infinity", "inf")) if isinstance(value, str) else value

    data = number(answer["data"])
    if dtype.is_complex:
        return torch.view_as_complex(torch.tensor(data, dtype=torch.float64).reshape(*answer["shape"], 2)).to(dtype)
    return torch.tensor(data, dtype=dtype).reshape(answer["shape"])


def _with_grad(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.is_floating_point() or value.is_complex())
    return type(value)(map(_with_grad, value)) if type(value) in (list, tuple) else value


def _oracle(case: Case) -> tuple[list[Tensor], dict[int, Tensor], list[Tensor | None]]:
    """PyTorch's outputs, a cotangent for each differentiable one by its place, and the gradients of the floating leaves in order."""
    args, kwargs = _with_grad(case.args), {name: _with_grad(value) for name, value in case.kwargs.items()}
    leaves = [t for t in tensors([*args, *kwargs.values()]) if t.requires_grad]
    torch.default_generator.manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            outputs = tensors(case.info.op(*args, **kwargs))
        except RuntimeError:  # some of these inputs are constants for PyTorch
            return tensors(case.expected()), {}, []
        generator = torch.Generator().manual_seed(SEED)
        cotangents = {
            place: torch.randn(o.shape, dtype=o.dtype, generator=generator)
            for place, o in enumerate(outputs)
            if o.requires_grad
        }
        if not cotangents or not leaves:
            return outputs, {}, []
        try:
            gradients = torch.autograd.grad(
                [outputs[p] for p in cotangents], leaves, list(cotangents.values()), allow_unused=True
            )
        except (RuntimeError, NotImplementedError):
            return outputs, {}, []
    return outputs, cotangents, list(gradients)


def _fault(server: Server, case: Case, outputs_of: dict[str, list[str]]) -> str:
    """Empty where outputs and VJPs are PyTorch's, else what is wrong.

    The first sample of an operation is asked for both one after the other, the next ones at once: what the outputs are called is known then.
    """
    inputs = {name: [_sent(t) for t in v] if isinstance(v, list) else _sent(v) for name, v in case.inputs.items()}
    query = {
        "operation": case.operation,
        "seed": SEED,
        "inputs": inputs,
        "parameters": {n: _plain(v) for n, v in case.parameters.items()},
    }
    outputs, cotangents, gradients = _oracle(case)
    has_vjp = bool(cotangents) and title(case.info) not in VJP_APART
    known = outputs_of.get(case.operation, [])
    if has_vjp and len(known) == len(outputs):
        query |= {"want": ["outputs", "vjp"], "cotangent": {known[place]: _sent(c) for place, c in cotangents.items()}}
    reply = server.http.post("/v1/query", json=query)
    if reply.status_code != 200:
        return f"{reply.status_code} {reply.json().get('detail')}"
    answer = reply.json()["outputs"]
    outputs_of[case.operation] = list(answer)
    if len(answer) != len(outputs) or not all(equal(o, _read(a)) for o, a in zip(outputs, answer.values(), strict=True)):
        return "another result"
    if not has_vjp:
        return ""
    if "vjp" not in reply.json():
        names = list(answer)
        query |= {"want": ["vjp"], "cotangent": {names[place]: _sent(c) for place, c in cotangents.items()}}
        reply = server.http.post("/v1/query", json=query)
    if reply.status_code != 200:
        return f"vjp: {reply.status_code} {reply.json().get('detail')}"
    answered = [_read(value) for value in reply.json()["vjp"].values()]
    wanted = [g for g in gradients if g is not None and bool(g.abs().sum() != 0)]
    pool = [f for f in answered if bool(f.abs().sum() != 0)]
    same = len(pool) == len(wanted) and all(any(equal(w, f) for f in pool) for w in wanted)
    return "" if same else "another vjp"


def test_samples_of_every_operation(server: Server) -> None:
    """At least 97 % of the samples; the exceptions are those that tests/op_db.py lists with their reasons."""

    faults: list[str] = []
    outputs_of: dict[str, list[str]] = {}
    asked = 0
    for case in cases(pages(server.http), SAMPLES):
        asked += 1
        if isinstance(case, str):
            faults.append(case)
        elif fault := _fault(server, case, outputs_of):
            faults.append(f"{title(case.info)}: sample {case.number}: {fault}")
    assert asked > 450 * SAMPLES
    unknown = [fault for fault in faults if not is_excepted(fault.partition(":")[0])]
    assert len(faults) <= 0.03 * asked, faults
    assert not unknown, unknown
