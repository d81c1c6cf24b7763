"""Mistakes that change a derivative as a whole: shape, order of axes, a sum too many or missing, a shift, the conjugate, a value as a factor."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import torch
from torch import Tensor

from app.engine.check.mistakes.case import Case, Claim, place_of
from app.engine.check.mistakes.scale_factors import batch_sizes, explained, signed, times
from app.engine.check.objective import Curvature
from app.engine.explain.findings import operation_of
from app.engine.stepwise.point import REFUSALS, Ref
from app.engine.stepwise.trace import StepRecord, VjpRule, step_vjp

_AXES: Final = 4  # permutations of more axes are not tried: of four there are 24, of five 120
# Elements that must show it, each to so many digits: of a hundred values one fits three elements to three digits by a chance of 1e-7.
_ELEMENTS: Final = 3
_RELATIVE: Final = 1e-3
_OF_ONE_NUMBER: Final = 1e-5  # one number that all elements are multiplied by is more easily another's by chance
_MOVED: Final = 4096  # elements of a step whose places are followed: some milliseconds
_SHIFTS: Final = (1, -1)  # off by one, either way: the mistake that is made


def shape(case: Case) -> Iterator[Claim]:
    ours, expected = case.ours, case.expected
    if ours.shape != expected.shape and ours.numel() == expected.numel() and case.same(ours, expected.reshape(ours.shape)):
        text = f"The values are right, the shape is not: ours is {list(ours.shape)}, yours {list(expected.shape)}."
        yield Claim("shape", text)
    if expected.numel() < ours.numel() and expected.ndim <= ours.ndim and case.elements(expected) > 1:
        for axis in range(ours.ndim):
            spread = expected.unsqueeze(axis) if expected.ndim < ours.ndim else expected
            wanted = [*ours.shape[:axis], 1, *ours.shape[axis + 1 :]]
            if list(spread.shape) == wanted and case.same(ours, spread.expand_as(ours)):
                text = f"The values are right, but ours has them {ours.shape[axis]} times along axis {axis}: yours is not spread over it."
                yield Claim("shape", text, rank=-1)
                return


def transposed(case: Case) -> Iterator[tuple[Tensor, str]]:
    """Ours with its axes in another order; flat where expected is flat in column-major order."""
    axes = range(case.ours.ndim)
    if case.ours.ndim < 2 or case.ours.ndim > _AXES:
        return
    for order in itertools.permutations(axes):
        turned = case.ours.permute(order)
        if order != tuple(axes) and turned.shape == case.expected.shape and not case.same(case.ours, turned):
            name = "the transpose of ours" if case.ours.ndim == 2 else f"ours with its axes in the order {list(order)}"
            yield turned, f"Yours is {name}"
    flat = case.ours.permute(*reversed(axes)).reshape(-1)
    if case.expected.shape == flat.shape:
        yield flat, "Yours is ours read column by column"


def transpose(case: Case) -> Iterator[Claim]:
    return (Claim("transpose", f"{text}.") for turned, text in transposed(case) if case.same(turned, case.expected))


def missing_sum(case: Case) -> Iterator[Claim]:
    """Theirs has an axis more; summed over it, it is ours."""
    for axis, summed in sums(case.expected, case.ours.shape):
        size = case.expected.shape[axis]
        if case.same(case.ours, summed, terms=size):
            yield Claim(
                "missing_batch_sum",
                f"A sum over {_axis(case, axis, size)} (size {size}) is missing: summed over it, yours is ours. `{case.name}` is shared "
                "along that axis, so its derivative is the sum over it.",
            )
            return


def _is_batch(case: Case, axis: int, size: int) -> bool:
    return axis == 0 and size in batch_sizes(case.trace)


def _axis(case: Case, axis: int, size: int) -> str:
    return "the batch axis" if _is_batch(case, axis, size) else f"axis {axis}"


def extra_sum(case: Case) -> Iterator[Claim]:
    """Theirs is ours summed, or averaged, over an axis that should have stayed, perhaps spread over it again."""
    for axis in range(case.ours.ndim):
        size = case.ours.shape[axis]
        if size < 2:
            continue
        for reduced, word in ((case.ours.sum(axis, keepdim=True), "sum"), (case.ours.mean(axis, keepdim=True), "mean")):
            for wanted in (reduced.squeeze(axis), reduced, reduced.expand(case.ours.shape)):
                if case.fits(wanted) and not (word == "mean" and case.elements(reduced) < 2):
                    done = "summed" if word == "sum" else "averaged"
                    text = f"A {word} over {_axis(case, axis, size)} (size {size}) too many: yours is ours {done} over it."
                    # Of equal elements the sum is a multiple, so that a factor is as likely.
                    alike = case.same(case.ours, case.ours.mean(axis, keepdim=True).expand(case.ours.shape))
                    yield Claim("extra_batch_sum" if _is_batch(case, axis, size) else "extra_sum", text, rank=3 if alike else 0)
                    return


def sums(tensor: Tensor, wanted: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    for axis in range(tensor.ndim):
        if tensor.shape[axis] < 2:
            continue
        for summed in (tensor.sum(axis), tensor.sum(axis, keepdim=True)):
            if summed.shape == tuple(wanted):
                yield axis, summed


def with_factor(case: Case) -> Iterator[Claim]:
    """A transpose or a missing sum, and a known factor besides."""
    turned = [("transpose", text, t, case.expected) for t, text in transposed(case)]
    summed = [
        ("missing_batch_sum", f"Summed over axis {axis}, yours is", case.ours, total)
        for axis, total in sums(case.expected, case.ours.shape)
    ]
    if case.expected.shape != case.ours.shape and case.expected.numel() == case.ours.numel():
        turned.append(("shape", "In our shape, yours is", case.ours, case.expected.reshape(case.ours.shape)))
    for code, text, a, b in (*turned, *summed):
        c = case.factor(a, b)
        if c is None or case.elements(a) < 3:
            continue
        if abs(c + 1) <= 4 * case.blur:
            yield Claim(code, f"{text}{' ours' if code != 'transpose' else ''} with the opposite sign.", -1.0)
        for known in explained(case, c):
            joined = f"{text}, times {c:.6g}" if code == "transpose" else f"{text} {times(c)} ours{signed(c)}"
            yield Claim(code, f"{joined}, {known.meaning}.", c)


def conjugate(case: Case) -> Iterator[Claim]:
    ours, expected = case.ours, case.expected
    if not ours.is_complex() or not expected.is_complex() or ours.shape != expected.shape:
        return
    turned = ours.conj().resolve_conj()
    if case.same(ours, turned):
        return
    convention = "PyTorch's gradient is the conjugate Wirtinger derivative, 2 ∂L/∂z̄ of a real L."
    for c, text in (
        (1.0, "is the conjugate of ours"),
        (0.5, "is half the conjugate of ours, ∂L/∂z"),
        (2.0, "is twice the conjugate of ours"),
    ):
        if case.same(c * turned, expected):
            yield Claim("conjugate", f"Yours {text}: {convention}", None if c == 1 else c)


def shifted(case: Case) -> Iterator[Claim]:
    """Every element one place off along an axis, or the axis backwards."""
    if case.expected.shape != case.ours.shape or case.elements(case.ours) < 2:
        return
    for axis in range(case.ours.ndim):
        size = case.ours.shape[axis]
        for by in _SHIFTS if size > 2 and case.elements(case.ours) > 2 else ():
            rolled = case.ours.roll(by, axis)
            cut = rolled.clone()
            cut.select(axis, 0 if by > 0 else -1).zero_()
            if case.fits(rolled) or case.fits(cut):
                yield Claim("off_by_one", f"Yours is ours moved by one place along axis {axis}: an index is off by one.")
        if size > 1 and case.fits(case.ours.flip(axis)):
            yield Claim("reversed", f"Yours is ours backwards along axis {axis}.")


def wrong_variable(case: Case) -> Iterator[Claim]:
    """The derivative by another input."""
    if isinstance(case.objective, Curvature) or case.objective.combined:
        return
    for other in case.objective.point.floating:
        if other == case.name:
            continue
        try:
            leaf = case.objective.point.leaves[other]
            objective = type(case.objective)(
                case.objective.point, (other,), case.objective.rows, case.objective.lead, case.objective.conjugate
            )
            derivative = objective.derivative()[other].reshape(*objective.lead, *leaf.shape)
        except REFUSALS:
            continue
        if derivative.shape != case.expected.shape or case.elements(derivative) < 2:
            continue
        for by, words in ((1, ""), (-1, " with the opposite sign")):
            if case.fits(by * derivative) and not case.same(-case.ours, case.expected):
                yield Claim("wrong_variable", f"Yours is the derivative by `{other}`{words}, not by `{case.name}`.")


def asymmetric(case: Case) -> Iterator[Claim]:
    """A Hessian that is not symmetric, of which the symmetric part, or twice that, is ours."""
    ours, expected = case.ours, case.expected
    if not isinstance(case.objective, Curvature) or ours.shape != expected.shape or ours.ndim % 2:
        return
    half = ours.ndim // 2
    turned = expected.permute(*range(half, ours.ndim), *range(half))
    if case.same(expected, turned):
        return
    for c, words in ((0.5, "the mean of yours and its transpose"), (1.0, "the sum of yours and its transpose")):
        if case.same(c * (expected + turned), ours):
            yield Claim("not_symmetric", f"Yours is not symmetric, as a Hessian is: ours is {words}.")


def parts(case: Case) -> Iterator[Claim]:
    """A triangle or the diagonal alone, or both triangles added up."""
    ours = case.ours
    if ours.ndim < 2 or ours.shape[-1] != ours.shape[-2] or ours.shape[-1] < 2 or case.expected.shape != ours.shape:
        return
    diagonal = torch.diag_embed(ours.diagonal(dim1=-2, dim2=-1))
    for changed, code, text in (
        (diagonal, "diagonal_only", "Only the diagonal of ours is there: what lies beside it is not zero."),
        (ours.triu(), "triangle_only", "Only the upper triangle of ours is there."),
        (ours.tril(), "triangle_only", "Only the lower triangle of ours is there."),
        (ours + ours.mT - diagonal, "symmetric_convention",
         "Yours is ours plus its transpose, the diagonal once: the derivative by a matrix that is bound to be symmetric. Ours is by one "
         "whose elements are free."),
        ((ours + ours.mT) / 2, "symmetric_convention", "Yours is the symmetric part of ours."),
    ):  # fmt: skip
        if code == "symmetric_convention" and isinstance(case.objective, Curvature):
            continue  # a Hessian is symmetric as it is
        if case.fits(changed) and case.elements(changed - ours) > 1:  # of one element any other mistake may be made
            yield Claim(code, text)


def by_a_value(case: Case) -> Iterator[Claim]:
    """Ours times, or divided by, a value of the program, element by element; ours and a multiple of it."""
    if case.relative > _RELATIVE or case.ours.shape != case.expected.shape or case.ours.is_complex():
        return
    if case.elements(case.ours) < _ELEMENTS or case.expected.is_complex():
        return
    known = list(_values(case))
    for what, value in known:
        for by, word in ((value, "times"), (1 / value, "divided by")):
            if (_varies(value) or case.relative < _OF_ONE_NUMBER) and case.fits(case.ours * by):
                yield Claim("elementwise_factor", f"Yours is ours {word} {what}.")
                return
    apart = case.expected - case.ours
    for what, value in [*known, ("in every element", torch.ones_like(case.ours))]:
        c = _multiple(value, apart)
        is_number = not _varies(value)
        is_ours = case.same(value, case.ours) or case.factor(value, case.ours) is not None  # a factor says it
        if not c or is_ours or is_number != (what == "in every element"):
            continue
        if (is_number or case.elements(value) >= _ELEMENTS) and case.fits(case.ours + c * value):
            size = f"{abs(c):.6g} " if is_number else "" if abs(abs(c) - 1) <= case.blur else f"{abs(c):.6g} times "
            yield Claim("differs_by_term", f"Yours is ours {'plus' if c > 0 else 'minus'} {size}{what}.")
            return


def _values(case: Case) -> Iterator[tuple[str, Tensor]]:
    """What each value is that fits the shape of the derivative, and the value spread over it."""
    names: dict[Ref, str] = {ref: f"`{name}`" for name, ref in case.trace.leaves.items()}
    shape = case.ours.shape
    for ref, value in case.trace.values.items():
        if value.dtype != case.ours.dtype or not bool(torch.isfinite(value).all()):
            continue
        what = names.get(ref) or f"the value of `{operation_of(ref[0])}`{place_of(ref[0])}"
        for spread in (
            value,
            value.reshape(*value.shape, *[1] * (len(shape) - value.ndim)),
        ):  # along the last axes, or the first
            if spread.ndim <= len(shape) and all(n in (1, m) for n, m in zip(spread.shape[::-1], shape[::-1], strict=False)):
                yield what, spread.detach().expand(shape)


def moved(case: Case) -> Iterator[Claim]:
    """Elements that a step moves or copies: not moved back, or moved the same way again; of several copies one alone, or their mean."""
    for record in case.trace.records:
        live = [j for j, parent in enumerate(record.parents) if case.name in case.trace.live[parent]]
        sources = _sources(record, live[0]) if len(live) == 1 else None
        if sources is None:
            continue
        what = f"`{operation_of(record.node)}`"
        for code, text, share in (
            ("not_moved_back", "moves elements{at}: their derivative must be moved back, and yours stays where it is", _unmoved),
            ("not_moved_back", "moves elements{at}: their derivative must be moved back, and yours is moved as they are", _moved_again),
            ("copies_counted_once", "takes an element more than once{at}: yours has its last place alone, where the sum belongs", _last),
            ("copies_counted_once", "takes an element more than once{at}: yours has its first place alone, where the sum belongs", _first),
            ("copies_averaged", "takes an element more than once{at}: yours has the mean of its places, where the sum belongs", _mean),
        ):  # fmt: skip
            if case.fits(case.under({record.node: _of_share(live[0], sources, share)})):
                yield Claim(code, f"{what} {text.format(at=place_of(record.node))}.")
                return


def _sources(record: StepRecord, j: int) -> Tensor | None:
    """Which element of its input each element of a step's first output is, flat, -1 for none; None where one is no copy.

    A derivative of a copy has one entry in its row, a one: it takes numbers to themselves, and their squares to the squares.
    """
    x, y = record.inputs[j], record.outputs[0]
    if not y.requires_grad or max(x.numel(), y.numel()) > _MOVED or y.is_complex():
        return None
    number = torch.arange(1, x.numel() + 1, dtype=x.dtype, device=x.device).reshape(x.shape)
    cotangent = torch.zeros_like(y).requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(y, x, cotangent, create_graph=True, allow_unused=True)
        if gradient is None or not gradient.requires_grad:
            return None
        of = [
            torch.autograd.grad(gradient, cotangent, tangent, retain_graph=True)[0]
            for tangent in (torch.ones_like(x), number.detach(), number.detach() ** 2)
        ]
    sources = (of[1].reshape(-1).round() - 1).long()
    is_copy = torch.equal(of[1].square(), of[2]) and bool(((of[0] == 1) | (of[1] == 0)).all())
    same_order = torch.equal(sources, torch.arange(x.numel(), device=sources.device))
    return sources if is_copy and not same_order else None


def _of_share(j: int, sources: Tensor, share: Callable[[Tensor, Tensor, Tensor], Tensor | None]) -> VjpRule:
    def rule(record: StepRecord, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        gradients, cotangent = list(step_vjp(record, cotangents)), cotangents[0]
        own = gradients[j]
        if cotangent is not None and own is not None:
            other = share(cotangent.reshape(-1), sources, own.reshape(-1))
            gradients[j] = own if other is None else other.reshape(own.shape)
        return gradients

    return rule


def _unmoved(cotangent: Tensor, sources: Tensor, own: Tensor) -> Tensor | None:
    return cotangent if cotangent.shape == own.shape else None


def _moved_again(cotangent: Tensor, sources: Tensor, own: Tensor) -> Tensor | None:
    return cotangent[sources] if cotangent.shape == own.shape and bool((sources >= 0).all()) else None


def _last(cotangent: Tensor, sources: Tensor, own: Tensor) -> Tensor:
    at = {source: index for index, source in enumerate(sources.tolist()) if source >= 0}
    only = torch.zeros_like(own)
    only[list(at)] = cotangent[list(at.values())]
    return only


def _first(cotangent: Tensor, sources: Tensor, own: Tensor) -> Tensor:
    return _last(cotangent.flip(0), sources.flip(0), own)


def _mean(cotangent: Tensor, sources: Tensor, own: Tensor) -> Tensor | None:
    count = torch.bincount(sources[sources >= 0], minlength=own.numel())
    # Of as many copies of each the mean is a factor of the whole, which another hypothesis explains.
    return own / count.clamp(min=1) if bool((count != count[0]).any()) else None


def _varies(value: Tensor) -> bool:
    return bool((value != value.reshape(-1)[0]).any())


def _multiple(value: Tensor, apart: Tensor) -> float:
    """The number that brings its multiple nearest to the difference."""
    size = float(value.abs().max())
    if not size:
        return 0.0
    scaled = value / size
    return float((scaled * apart).sum()) / float((scaled * scaled).sum()) / size
