"""`python -m tests.oracle.batch_sweep`: PyTorch's own samples in batches of different ones: each sample has the numbers that it has alone.

A second run takes up what the first has left, and prints all that both have seen.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from app.engine.tensors import from_torch, to_torch
from app.errors import PullbackError
from app.query import Answer, Query, SparseData
from tests.engine.asking import ENGINE
from tests.op_db import Case
from tests.oracle import sweeping
from tests.oracle.sweeping import Asked, small_samples

RESULTS: Final = Path("build/batches.jsonl")
DTYPES: Final = (torch.float64, torch.complex128, torch.float32, torch.bfloat16, torch.float16, torch.complex64)
KINDS: Final = ("vjp", "jvp", "jacobian", "hessian")
VARIANTS: Final = 7
_SMALL: Final = 40  # elements of all inputs, so that a Jacobian of seven samples stays quick; chosen
_SAMPLES: Final = 2  # of each operation; chosen
# Two orders of the same sums: some hundred roundings, in half precision some ten.
_TOLERANCES: Final = {
    torch.float64: 1e-8, torch.complex128: 1e-8, torch.float32: 1e-3, torch.complex64: 1e-3, torch.bfloat16: 6e-2, torch.float16: 2e-2,
}  # fmt: skip
_SAYS_SO: Final = ("non_finite", "precision", "rounded", "overflow")


def every(names: tuple[str, ...] | None = None, dtypes: tuple[torch.dtype, ...] = DTYPES) -> Iterator[Asked]:
    """All of PyTorch's small samples of operations that have a derivative, in every dtype they take, and each kind."""
    return small_samples(KINDS, dtypes, names, _SAMPLES, _SMALL)


def altered(tensor: Tensor) -> list[Tensor]:
    """As it is; with zeros; rounded, so that there are ties; with equal rows, so that matrices are singular; with a NaN; negative; uneven."""
    if not tensor.dtype.is_floating_point and not tensor.dtype.is_complex:
        return [tensor] * VARIANTS
    generator = torch.Generator().manual_seed(tensor.numel())
    zeros, equal, odd, uneven = (tensor.clone(memory_format=torch.contiguous_format) for _ in range(4))
    zeros[torch.rand(tensor.shape, generator=generator) < 0.4] = 0
    if tensor.dim() >= 2 and tensor.shape[-2] > 1:
        equal[..., 1, :] = equal[..., 0, :]
    if tensor.numel():
        odd.view(-1)[-1] = float("nan")
        uneven.view(-1)[0] *= 1e3 if tensor.dtype == torch.float16 else 1e6
    rounded = torch.complex(tensor.real.round(), tensor.imag.round()) if tensor.dtype.is_complex else tensor.round()
    return [tensor, zeros, rounded, equal, odd, -tensor, uneven]


def of_samples(case: Case) -> list[dict[str, list[Tensor]]]:
    """The inputs of each sample, by name a list of tensors, of which there is one where the operation takes no list."""
    members = {name: value if isinstance(value, list) else [value] for name, value in case.inputs.items()}
    variants = {name: [altered(tensor) for tensor in value] for name, value in members.items()}
    return [{name: [t[index] for t in value] for name, value in variants.items()} for index in range(VARIANTS)]


def stacked(samples: Sequence[Mapping[str, list[Tensor]]]) -> dict[str, list[Tensor]]:
    """Samples under one leading axis."""
    return {name: [torch.stack(t) for t in zip(*(s[name] for s in samples), strict=True)] for name in samples[0]}


def _sent(case: Case, tensors: Mapping[str, list[Tensor]]) -> dict[str, Any]:
    data = {name: tuple(from_torch(_plain(tensor)) for tensor in value) for name, value in tensors.items()}
    return {name: value if isinstance(case.inputs[name], list) else value[0] for name, value in data.items()}


def _plain(tensor: Tensor) -> Tensor:
    return tensor.resolve_conj().resolve_neg().contiguous()


def tangents(case: Case) -> list[dict[str, Tensor]]:
    """A random tangent for each sample; the third's are zeros."""
    rows: dict[str, list[Tensor]] = {}
    generator = torch.Generator().manual_seed(11)
    for name, value in case.inputs.items():
        for index, tensor in enumerate(value if isinstance(value, list) else [value]):
            if tensor.dtype.is_floating_point or tensor.dtype.is_complex:
                kind = torch.complex128 if tensor.dtype.is_complex else torch.float64
                drawn = [torch.randn(tensor.shape, generator=generator, dtype=kind).to(tensor.dtype) for _ in range(VARIANTS)]
                drawn[2] = torch.zeros_like(drawn[2])
                rows[f"{name}.{index}" if isinstance(value, list) else name] = drawn
    return [{name: row[index] for name, row in rows.items()} for index in range(VARIANTS)]


def _asked(
    batch: Asked, sample: Mapping[str, list[Tensor]], tangent: Mapping[str, Tensor], *, batched: bool = False
) -> Answer | PullbackError:
    inputs = _sent(batch.case, sample)
    parameters = {name: tuple(value) if isinstance(value, list) else value for name, value in batch.case.parameters.items()}
    query = Query(
        operation=batch.case.operation,
        inputs=inputs,
        parameters=parameters,
        want=(batch.kind,),
        batched=tuple(inputs) if batched else (),
        seed=1,
    )
    if batch.kind == "hessian":
        query = of_squares(batch.case, query)
    elif batch.kind == "jvp":
        query = Query(
            **{**{f: getattr(query, f) for f in query.__slots__}, "tangent": {n: from_torch(t) for n, t in tangent.items()}}
        )
    try:
        return ENGINE.answer(query)
    except PullbackError as refusal:
        return refusal


def of_squares(case: Case, query: Query) -> Query:
    """The query of Σ|f|² instead of f, as a program; lists of inputs become inputs of their own."""
    inputs: dict[str, Any] = {}
    arguments = []
    for name, value in query.inputs.items():
        members = {f"{name}_{i}": member for i, member in enumerate(value)} if isinstance(value, tuple) else {f"{name}_": value}
        inputs |= members
        arguments.append(f"{name}=[{', '.join(members)}]" if isinstance(value, tuple) else f"{name}={name}_")
    arguments += [f"{name}={_literal(name, value)}" for name, value in query.parameters.items()]
    text = f"y = torch.{case.operation}({', '.join(arguments)})\n"
    text += "y = y[0] if isinstance(y, (list, tuple)) else y\n(y * y.conj()).real.sum()"
    fields = {field: getattr(query, field) for field in query.__slots__}
    sent = tuple(inputs) if query.batched else ()
    return Query(**{**fields, "operation": None, "program": text, "inputs": inputs, "parameters": {}, "batched": sent})


def _literal(name: str, value: Any) -> str:
    if isinstance(value, str) and ("dtype" in name):
        return f"torch.{value}"
    return repr(list(value) if isinstance(value, tuple) else value).replace("inf", "math.inf").replace("nan", "math.nan")


def _differences(together: Any, alone: Any, index: int, batch: Asked, is_noted: bool, what: str) -> Iterator[str]:
    if isinstance(alone, Mapping):
        for key, value in alone.items():
            if key in together:
                yield from _differences(together[key], value, index, batch, is_noted, f"{what}.{key}")
            else:
                yield f"wrong: {what}.{key} of sample {index} is missing"
        return
    if isinstance(alone, SparseData):
        return
    got, right = to_torch(together, "cpu")[index].to(torch.complex128), to_torch(alone, "cpu").to(torch.complex128)
    if got.shape != right.shape:
        yield f"wrong: {what} of sample {index} has shape {list(got.shape)}, alone {list(right.shape)}"
        return
    finite = got.isfinite() & right.isfinite()
    if not is_noted and not torch.equal(got.isfinite(), right.isfinite()):
        yield f"wrong: {what} of sample {index} is finite at other places than alone"
    error = float((got - right)[finite].abs().max()) if bool(finite.any()) else 0.0
    scale = float(right[finite].abs().max()) if bool(finite.any()) else 0.0
    if error > _TOLERANCES[batch.dtype] * scale:
        yield f"wrong: {what} of sample {index} is off by {error:.3g} of {scale:.3g}"


def complaint(batch: Asked) -> str:
    """What is wrong with the reply to the batch of those samples that are answered alone; empty where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asked = [(*pair, _asked(batch, *pair)) for pair in zip(of_samples(batch.case), tangents(batch.case), strict=True)]
        answered = [(sample, tangent, answer) for sample, tangent, answer in asked if isinstance(answer, Answer)]
        if len(answered) < 2:
            return f"refused alone: {next(answer.code for *_, answer in asked if isinstance(answer, PullbackError))}"
        samples, along, single = zip(*answered, strict=True)
        tangent = {name: torch.stack([t[name] for t in along]) for name in along[0]}
        together = _asked(batch, stacked(samples), tangent, batched=True)
    if isinstance(together, PullbackError):
        return f"only together refused: {together.code} {together.detail}"
    is_noted = any(note.code in _SAYS_SO for note in together.notes)
    complaints = (
        words
        for index, one in enumerate(single)
        for words in _differences(together.results, one.results, index, batch, is_noted, batch.kind)
    )
    return next(complaints, "")


main = functools.partial(
    sweeping.run, "tests.oracle.batch_sweep", __doc__, RESULTS, every(), lambda batch: batch.title, complaint
)

if __name__ == "__main__":
    main(sys.argv[1:])
