"""Points that explain is asked about: operations at PyTorch's samples and at altered ones, pointwise functions, random programs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from app.catalogue.entry import Operation
from app.catalogue.read import operations
from app.engine.tensors import from_torch
from app.query import Query
from tests.op_db import Case, cases, differentiable_page
from tests.oracle import programs

DTYPES: Final = (torch.float64, torch.float32, torch.bfloat16, torch.complex128)
SAMPLES: Final = 3  # of each operation in each dtype; chosen
VALUES: Final = (0.3, -0.7, 1.7, 2.6, 0.0, 0.5, -0.5, 1.0, -1.0, 2.0, 3.0, -3.0, 6.0, 1e-12, -1e-12, 1e3, -1e3, 1e8, -1e8)
PROGRAMS: Final = 150  # of smooth steps, and as many that bend
_SIZE: Final = 3
# A sample with other numbers: ties and whole numbers, zeros, large and tiny ones, rows that depend on each other.
_ALTERED: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "whole": torch.round,
    "zero": torch.zeros_like,
    "ones": torch.ones_like,
    "large": lambda x: x * 1e6,
    "tiny": lambda x: x * 1e-6,
    "equal rows": lambda x: x[..., :1, :].expand_as(x) if x.ndim > 1 else x,
}
# Steps that bend, jump, end or cancel, over vectors a and b.
_BENDING: Final = (
    "relu({a})", "abs({a})", "clamp({a}, -1, 1)", "maximum({a}, {b})", "minimum({a}, 0.5 * {b})", "where({a} > {b}, {a}, 2 * {b})",
    "where({a} > 0, {a} ** 2, -{a} ** 2)", "sign({a}) * {b}", "{a} * sign({a})", "round({a}) + {b}", "floor(2 * {a}) * {b}",
    "sort({a}).values", "{a}.max() * {b}", "{a}.median() + {b}", "{a} * {b}.norm()", "sqrt({a} ** 2)", "sqrt(abs({a}) + 1e-3)",
    "F.leaky_relu({a}, 0.25) - {b}", "F.hardtanh({a} + {b})", "F.elu({a})", "F.softshrink({a})", "F.relu6({a}) - {b}", "cummax({a}, 0).values",
    "relu({a}) - relu(-{a})", "abs({a}) ** 3", "{a} % 1.0 + {b}", "frac({a}) + trunc({a})", "cosh(abs({a}))",
    "topk({a}, 2).values.sum() + {b}", "{a}[torch.argmax({b})] * {b}", "torch.dist({a}, {b}) * {b}", "logaddexp({a}, {b})", "atan2({a}, {b})",
    "prod({a}) + {b}", "tanh({a}) * {b}", "{a} * {b}", "{a} + 0.5 * {b}", "exp(-{a} ** 2)", "{a} / (1 + {b} ** 2)", "log1p({a} ** 2)",
    "hypot({a}, {b})", "F.smooth_l1_loss({a}, {b}, reduction='none')", "xlogy({a} ** 2, {a} ** 2)", "cumsum({a}, 0)",
    "renorm({a}[None], 2, 0, 1.0)[0]",
    "logsumexp({a}, 0) + {b}", "amax({a}) - {b}", "{a} ** 3 - {b} ** 2", "F.normalize({a}, dim=0) + {b}", "softmax({a}, 0)", "{a}.std() * {b}",
)  # fmt: skip


@dataclass(frozen=True)
class AskedPoint:
    """One query for `explain`; `title` is its own and stays the same from run to run."""

    title: str
    query: Query


def _sent(value: Tensor | Sequence[Tensor]) -> Any:
    if isinstance(value, Tensor):
        return from_torch(value.resolve_conj().resolve_neg().contiguous())
    return tuple(_sent(member) for member in value)


def _plain(value: Any) -> Any:
    return tuple(_plain(member) for member in value) if isinstance(value, list | tuple) else value


def asked(title: str, inputs: Mapping[str, Any], **fields: Any) -> AskedPoint:
    sent = {name: _sent(value) for name, value in inputs.items()}
    return AskedPoint(title, Query(inputs=sent, want=("explain", "vjp"), seed=0, **fields))


def of_operations(samples: int = SAMPLES) -> Iterator[AskedPoint]:
    """Each differentiable operation at PyTorch's own samples in each dtype, and its first ones altered."""
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        for case in cases(differentiable_page, samples, dtype):
            if isinstance(case, Case):
                title = f"{case.operation} {case.info.variant_test_name} {case.number}"
                yield AskedPoint(f"{title} {name}", sample_query(case))
                if dtype == torch.float64 and case.number < 2:
                    for how, alter in _ALTERED.items():
                        yield AskedPoint(f"{title} {how}", sample_query(case, alter))


def sample_query(case: Case, alter: Callable[[Tensor], Tensor] | None = None) -> Query:
    """PyTorch's sample as a query for `explain` and `vjp`; `alter`: what becomes of its floating tensors."""

    def altered(value: Any) -> Any:
        if isinstance(value, list):
            return [altered(member) for member in value]
        return alter(value) if alter is not None and value.dtype.is_floating_point else value

    inputs = {name: altered(value) for name, value in case.inputs.items()}
    parameters = {name: _plain(value) for name, value in case.parameters.items()}
    return asked("", inputs, operation=case.operation, parameters=parameters).query


def of_pointwise_functions() -> Iterator[AskedPoint]:
    """Each pointwise function at each of `VALUES` alone, and at all of them together; other tensors run through them backwards."""
    for operation in operations().values():
        if (
            operation.order
            and "pointwise" in operation.tags
            and "random" not in operation.tags
            and "view" not in operation.tags
        ):
            yield from _of_pointwise_function(operation)


def _of_pointwise_function(operation: Operation) -> Iterator[AskedPoint]:
    example = operation.example
    # The numbers stand in one row: what the example does along another axis is done along this one.
    parameters = {name: 0 if name == "dim" else _plain(value) for name, value in example.get("parameters", {}).items()}
    kinds = {argument.name: argument.kind for signature in operation.signatures for argument in signature.arguments}
    for numbers in (*((value,) for value in VALUES), VALUES):
        x = torch.tensor(numbers, dtype=torch.float64)
        other = x.flip(0) if len(numbers) > 1 else None
        inputs: dict[str, Any] = {}
        for place, (name, sent) in enumerate(example["inputs"].items()):
            value = x if place == 0 else torch.full_like(x, (0.5, 1.0, 0.0)[place % 3]) if other is None else other
            if kinds[name] == "tensors":
                inputs[name] = [value, value + 1]
            elif isinstance(sent, dict):
                break
            else:
                inputs[name] = value > 0 if torch.tensor(sent).dtype == torch.bool else value
        else:
            yield asked(
                f"{operation.name} {list(numbers) if len(numbers) == 1 else 'all'}",
                inputs,
                operation=operation.name,
                parameters=parameters,
            )


def of_programs(count: int = PROGRAMS) -> Iterator[AskedPoint]:
    """Random programs: of smooth steps at normal points, of steps that bend at points with zeros, ties and whole numbers."""
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        shapes: dict[str, tuple[int, ...]] = {"v": (_SIZE,), "w": (_SIZE,), "m": (_SIZE, _SIZE)}
        leaves = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
        yield asked(f"program {seed}", leaves, program=programs.program(seed).text)
    for seed in range(count):
        yield asked(f"bending program {seed}", bending_leaves(seed), program=bending_program(seed))


def bending_leaves(seed: int) -> dict[str, Tensor]:
    rng = random.Random(seed)
    corners = (0.0, 0.0, 0.5, -0.5, 1.0, -1.0, 2.0)
    return {
        name: torch.tensor(
            [rng.choice(corners) if rng.random() < 0.6 else rng.gauss(0, 1) for _ in range(_SIZE)], dtype=torch.float64
        )
        for name in "xw"
    }


def bending_program(seed: int) -> str:
    """Two to five of the steps, over what was there before, and a sum or a vector of them."""
    rng = random.Random(seed)
    names, lines = ["x", "w"], []
    for k in range(rng.randint(2, 5)):
        a, b = (rng.choice(names[-3:]) for _ in "ab")
        lines.append(f"y{k} = {rng.choice(_BENDING)}".replace("{a}", a).replace("{b}", b))
        names.append(f"y{k}")
    last = names[-1]
    lines.append(
        rng.choice([f"return {last}.sum()", f"return {last}", f"return ({last} ** 2).sum() + x.sum()", f"return {last} * w"])
    )
    return "\n".join(lines)


def every() -> Iterator[AskedPoint]:
    """All of them."""
    yield from of_programs()
    yield from of_pointwise_functions()
    yield from of_operations()
