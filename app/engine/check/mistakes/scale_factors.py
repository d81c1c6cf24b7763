"""What a factor between two derivatives may be equal to: sizes that a program divides by, exponents, constants, bases, degrees."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx

from app.catalogue.facts import operations_with, values
from app.engine.check.mistakes.case import Case, Claim, place_of
from app.engine.explain.findings import operation_of
from app.engine.stepwise.one_sided import random_like
from app.engine.stepwise.point import REFUSALS, Hole, argument_of, name_of
from app.engine.stepwise.trace import StepRecord, StepTrace
from app.engine.tensors import is_differentiable
from app.program.semantics.graph_values import mapped

_SUMS: Final = ("add", "sub", "subtract")  # of which `alpha` multiplies the second operand
# Of these `beta` multiplies the first, `alpha` the product.
_WITH_PRODUCTS: Final = ("addmm", "addmv", "addbmm", "baddbmm", "addr")
_DEGREE: Final = math.pi / 180  # in radians
# Two elements that have a factor to four digits have it by no chance: of two that differ otherwise, one pair in ten thousand would.
_TELLING: Final = 1e-4
_ALIKE: Final = 0.03  # of a factor: nearer ones are the same where numbers hold two digits: four roundings of bfloat16


@dataclass(frozen=True, slots=True)
class Factor:
    """`value` > 0, what it is; `weak`: a size that may be equal by chance, so one element alone does not prove it.

    Attributes:
        node: the step that has it; None where no single one does.
    """

    value: float
    meaning: str
    weak: bool
    node: fx.Node | None = None


def known_factor(case: Case) -> Iterator[Claim]:
    """All that the factor between the two may be."""
    c = case.factor(case.ours, case.expected)
    if c is None:
        return
    proved = max(case.elements(case.ours), case.confirming(c)) > 1
    for known in explained(case, c):
        if proved or not known.weak:
            own = math.copysign(known.value, c)
            text = f"Yours is {times(own)} ours{signed(own)}, {known.meaning}."
            yield Claim("constant_factor", text, own, rank=2 if known.weak else 0)


def any_factor(case: Case) -> Iterator[Claim]:
    c = case.factor(case.ours, case.expected)
    if c is None or abs(c + 1) <= 10 * case.blur:
        return
    if max(case.elements(case.ours), case.confirming(c)) >= (2 if case.blur < _TELLING else 3):
        yield Claim("constant_factor", f"Yours is {times(c)} ours{signed(c)}, everywhere.", c)


def sign(case: Case) -> Iterator[Claim]:
    if case.same(-case.ours, case.expected):
        yield Claim("sign", "Yours has the opposite sign: it is ours times -1.", -1.0)


def explained(case: Case, c: float) -> list[Factor]:
    """The factors that are equal to |c|, the most telling first, each meaning once."""
    if "factors" not in case.memory:
        case.memory["factors"] = factors_of(case.trace, case.name)
    near = [f for f in case.memory["factors"] if abs(abs(c) - f.value) <= min(4 * case.blur, _ALIKE) * f.value]
    # A size that is equal by chance is no explanation beside one that the program has.
    chosen = [factor for factor in near if not factor.weak] or near
    return list({factor.meaning: factor for factor in reversed(chosen)}.values())[::-1]


def times(c: float) -> str:
    c = abs(c)
    if abs(c - 0.5) < 1e-9:
        return "half of"
    if c < 1 and abs(1 / c - round(1 / c)) < 1e-6 / c:
        return f"1/{round(1 / c)} of"
    return f"{float(f'{c:.6g}'):g} times"


def signed(c: float) -> str:
    return " with the opposite sign" if c < 0 else ""


def factors_of(trace: StepTrace, name: str) -> list[Factor]:
    """Factors that a derivation with respect to the input `name` may be off by, the most telling first."""
    # A rule of a derivative has a say where the derivative passes the step.
    passed = [record for record in trace.records if any(name in trace.live[parent] for parent in record.parents)]
    factors = [
        *_averages(trace),
        *_exponents(passed),
        *_twos(passed),
        *_constants(trace),
        *_alphas(passed, trace, name),
        *_bases(passed),
    ]
    factors += [*_corrections(trace), *_totals(trace), *_numbers(trace, name), *_sizes(trace, name)]
    return [factor for factor in factors if factor.value > 0 and factor.value != 1]


def _averages(trace: StepTrace) -> Iterator[Factor]:
    """A mean in the program, taken as a sum."""
    for record in trace.records:
        count = averaged(trace, record)
        if count is not None and count != 1:
            what = _called(trace, record, count)
            yield Factor(count, f"{what}: sum instead of mean", weak=False, node=record.node)
            if _squares(trace.records):
                yield Factor(
                    count / 2,
                    f"half of {what}: sum instead of mean, and the 2 from the derivative of a square is missing",
                    weak=True,
                )


def averaged(trace: StepTrace, record: StepRecord) -> float | None:
    """By how much the step's sum is larger than its mean."""
    name = name_of(record.node)
    if name in operations_with("reduces", "mean") and len(record.outputs) == 1 and record.outputs[0].numel():
        return record.inputs[0].numel() / record.outputs[0].numel()
    if (
        name in operations_with("loss")
        and "mean" in str(argument_of(record.node, "reduction", "mean"))
        and not record.outputs[0].ndim
    ):
        total = _total(trace, record)
        mean = float(record.outputs[0])
        return total / mean if total is not None and mean else None
    return None


def _total(trace: StepTrace, record: StepRecord) -> float | None:
    """The loss of a step with its reduction set to a sum."""
    at = {parent: tensor.detach() for parent, tensor in zip(record.parents, record.inputs, strict=True)}
    own_args, kwargs = mapped(trace.arguments[record.node], Hole, lambda hole: at[hole.ref])
    args, kwargs = list(own_args), dict(kwargs)
    reduction = argument_of(record.node, "reduction", None)
    place = next((i for i, a in enumerate(args) if isinstance(a, str) and a == reduction), None)
    if place is not None:
        args[place] = "sum"
    else:
        kwargs["reduction"] = "sum"
    try:
        with trace.point.ready(), torch.no_grad():
            return float(trace.point.call(record.node, args, kwargs, record.state))
    except REFUSALS:
        return None


def _called(trace: StepTrace, record: StepRecord, count: float) -> str:
    """What the number of averaged things is to a person."""
    batch = count in batch_sizes(trace)
    everything = count == record.inputs[0].numel()
    if batch and everything:
        return "the number of elements, which is the batch size"
    return "the batch size" if batch else "the number of elements" if everything else "the number of elements averaged"


def batch_sizes(trace: StepTrace) -> set[int]:
    """Sizes of leading axes that are a batch: samples that do not mix until a sum or mean takes them together.

    Such an axis belongs to two inputs (samples and their targets), or to one that is multiplied from the right by a matrix that all samples
    share. The rows of a lone matrix do not mix either, and are no batch.
    """
    sizes: set[int] = set()
    for record in trace.records:
        if not record.inputs or name_of(record.node) not in _REDUCERS:
            continue
        tensor = record.inputs[0]
        reduced = tensor.ndim > record.outputs[0].ndim and tensor.shape[0] > 1
        if reduced and tensor.shape[0] not in sizes and _samples(trace, record):
            sizes.add(tensor.shape[0])
    return sizes


_REDUCERS: Final = (
    frozenset(values("reduces")) | frozenset(values("loss")) | {"getitem", "index", "logsumexp", "amax", "nll_loss"}
)


def _samples(trace: StepTrace, record: StepRecord) -> bool:
    """Whether the leading axis of what a step reduces is one of samples."""
    ref, tensor = record.parents[0], record.inputs[0]
    n = tensor.shape[0]
    alike = [name for name, leaf in trace.leaves.items() if trace.values[leaf].ndim and trace.values[leaf].shape[0] == n]
    if not trace.depends.get(ref) or not alike:
        return False
    first = torch.zeros_like(tensor)
    first[0] = random_like(tensor, 3)[0]
    try:
        reached = trace.backward({ref: first})
    except REFUSALS:
        return False
    own, shared = 0, False
    for name, leaf in trace.leaves.items():
        gradient, value = reached.get(leaf), trace.values[leaf]
        if (name in alike and not is_differentiable(value.dtype)) or (
            gradient is not None and name in alike and not bool((gradient[1:] != 0).any())
        ):
            own += 1
        elif gradient is not None and value.ndim > 1 and tensor.ndim > 1:
            shared = True
    return own > 1 or (own == 1 and shared)


def _totals(trace: StepTrace) -> Iterator[Factor]:
    """A sum in the program, taken as a mean."""
    for record in trace.records:
        function = name_of(record.node)
        is_sum = function in operations_with("reduces", "sum") or (
            function in operations_with("loss") and argument_of(record.node, "reduction", "") == "sum"
        )
        if not is_sum or not record.inputs or not record.outputs[0].numel():
            continue
        count = record.inputs[0].numel() / record.outputs[0].numel()
        for size in sorted({count, *batch_sizes(trace)}, key=lambda size: size != count):
            if size > 1 and float(size).is_integer():
                what = _called(trace, record, size)
                yield Factor(1 / size, f"one over {what}: mean instead of sum", weak=size != count, node=record.node)


def _exponents(records: Sequence[StepRecord]) -> Iterator[Factor]:
    """The n of n·xⁿ⁻¹."""
    for record in records:
        n = exponent_of(record)
        if n is not None and n not in (0, 1, 2):
            yield Factor(
                1 / abs(n),
                f"the exponent {n:g} that the power rule multiplies by is missing{place_of(record.node)}",
                False,
                record.node,
            )


def exponent_of(record: StepRecord) -> float | None:
    """The exponent of a power, where it is a plain number."""
    name = name_of(record.node)
    if name == "pow":
        n = record.node.args[1] if len(record.node.args) > 1 else record.node.kwargs.get("exponent")
        return float(n) if isinstance(n, int | float) and not isinstance(n, bool) else None
    exponent = values("exponent").get(name)
    return None if exponent is None else float(exponent)


def _alphas(passed: Sequence[StepRecord], trace: StepTrace, name: str) -> Iterator[Factor]:
    """What multiplies the second operand of a sum, where the derivative passes that one alone."""
    for record in passed:
        step, is_first = name_of(record.node), name in trace.live[record.parents[0]]
        key = "beta" if is_first and step in _WITH_PRODUCTS else "alpha"
        by = record.node.kwargs.get(key)
        if step not in (*_SUMS, *_WITH_PRODUCTS) or len(record.parents) < 2 or not isinstance(by, int | float) or not by:
            continue
        if is_first and any(name in trace.live[parent] for parent in record.parents[1:]):
            continue
        place = place_of(record.node)
        if is_first and step in _SUMS:
            text = f"the factor `alpha` of {by:g}, which belongs to the second operand of `{operation_of(record.node)}`{place}"
            yield Factor(abs(by), text, weak=False, node=record.node)
        else:
            yield Factor(1 / abs(by), f"the factor `{key}` of {by:g} is missing{place}", weak=False, node=record.node)


def _constants(trace: StepTrace) -> Iterator[Factor]:
    """Numbers that the text multiplies or divides by."""
    for record in trace.records:
        name = name_of(record.node)
        if name not in ("mul", "truediv", "div", "multiply", "divide"):
            continue
        for c in record.node.args:
            if isinstance(c, int | float) and not isinstance(c, bool) and c not in (0, 1, -1):
                by = abs(float(c)) if name in ("mul", "multiply") or c is record.node.args[0] else 1 / abs(float(c))
                word = "the factor" if name in ("mul", "multiply") or c is record.node.args[0] else "the division by"
                yield Factor(1 / by, f"{word} {abs(c):g} is missing{place_of(record.node)}", False, record.node)
                yield Factor(by, f"{word} {abs(c):g} is there twice{place_of(record.node)}", True)
                other = "a division by it" if word == "the factor" else "a factor"
                yield Factor(1 / by**2, f"{word} {abs(c):g} is taken as {other}{place_of(record.node)}", True)


def _bases(records: Sequence[StepRecord]) -> Iterator[Factor]:
    """Bases of logarithms and powers, and degrees."""
    for record in records:
        name, place = name_of(record.node), place_of(record.node)
        if (own := values("logarithm_to").get(name)) is not None:
            yield Factor(math.log(own), f"the 1/ln {own} from the derivative of `{name}` is missing{place}", False, record.node)
        elif (own := values("power_of").get(name)) is not None:
            text = f"the ln {own} from the derivative of `{name}` is missing{place}"
            yield Factor(1 / math.log(own), text, False, record.node)
        elif name == "pow" and isinstance(base := record.node.args[0], int | float) and base > 0 and base != 1:
            text = f"the ln {base:g} from the derivative of {base:g}ˣ is missing{place}"
            yield Factor(1 / abs(math.log(base)), text, False, record.node)
        elif name == "scaled_dot_product_attention" and argument_of(record.node, "scale", None) is None:
            yield Factor(math.sqrt(record.inputs[0].shape[-1]), f"the division by √d is missing{place}", False, record.node)
            yield Factor(1 / math.sqrt(record.inputs[0].shape[-1]), f"the division by √d is there twice{place}", True)
        elif name == "log":
            for base in (2, 10):
                yield Factor(1 / math.log(base), f"a logarithm to the base {base} instead of the natural one{place}", True)
        elif name in ("deg2rad", "rad2deg"):
            by = _DEGREE if name == "deg2rad" else 1 / _DEGREE
            yield Factor(1 / by, f"the factor of `{name}` is missing{place}", False, record.node)
        elif name in values("angle"):
            yield Factor(_DEGREE, f"π/180: degrees instead of radians{place}", False)
            yield Factor(1 / _DEGREE, f"180/π: degrees instead of radians{place}", False)


def _corrections(trace: StepTrace) -> Iterator[Factor]:
    """n or n - 1 in a variance."""
    for record in trace.records:
        if name_of(record.node) not in ("var", "std") or not record.inputs or not record.outputs[0].numel():
            continue
        n = record.inputs[0].numel() / record.outputs[0].numel()
        if n > 1:
            power = 1.0 if name_of(record.node) == "var" else 0.5
            for by, text in ((n / (n - 1), "n - 1 instead of n"), ((n - 1) / n, "n instead of n - 1")):
                yield Factor(by**power, f"{text} in `{name_of(record.node)}`", False)
                yield Factor(by, f"{text} in the derivative of `{name_of(record.node)}`", False, record.node)


def _twos(records: Sequence[StepRecord]) -> Iterator[Factor]:
    square = _squares(records)
    yield Factor(
        0.5, "the 2 from the derivative of a square is missing" if square else "a factor of 2 is missing", weak=not square
    )
    yield Factor(2.0, "one factor of 2 too many", weak=True)


def _squares(records: Sequence[StepRecord]) -> bool:
    others = operations_with("squares") - {"pow"}
    return any(name_of(r.node) in others or exponent_of(r) in (2.0, 0.5, -0.5) for r in records)


def _numbers(trace: StepTrace, name: str) -> Iterator[Factor]:
    """Inputs that are one number: a temperature, a learning rate."""
    for other, ref in trace.leaves.items():
        value = trace.values[ref]
        if other != name and value.numel() == 1 and value.dtype.is_floating_point and float(value) != 0:
            size = abs(float(value))
            yield Factor(1 / size, f"a factor `{other}` is missing", True)
            yield Factor(size, f"a factor `{other}` too many", True)


def _sizes(trace: StepTrace, name: str) -> Iterator[Factor]:
    leaf = trace.values[trace.leaves[name]]
    sizes: dict[float, str] = {}
    for batch in sorted(batch_sizes(trace)):
        sizes.setdefault(batch, "the batch size")
    sizes.setdefault(leaf.numel(), f"the number of elements of `{name}`")
    for other, ref in trace.leaves.items():
        value: Any = trace.values[ref]
        if is_differentiable(value.dtype):
            for axis, size in enumerate(value.shape):
                sizes.setdefault(size, f"the size of axis {axis} of `{other}`")
    for length, meaning in sizes.items():
        if length > 1:
            yield Factor(float(length), meaning, weak=True)
            yield Factor(1 / length, f"one over {meaning}", weak=True)
