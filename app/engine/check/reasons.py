"""Why `check` cannot tell whether a derivative is right: every reason that it gives (docs/contract.md, section 4)."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The sentence that stands in `reason` where `agrees` is null."""

    UNSETTLED = (
        "Finite differences do not settle at this point: rounding, or a change faster than any step, leaves more doubt than the "
        "derivative itself is large, and no exact arithmetic is at hand for these steps. Nothing contradicts PyTorch's "
        "derivative, and nothing confirms it."
    )
    NO_DIGITS = (
        "The steps lose every digit of a derivative here in the arithmetic of these numbers, by rounding alone: neither PyTorch's "
        "number nor one computed otherwise is right or wrong here."
    )
    ROUNDING = (
        "Rounding alone may change some elements of the derivative by more than their third digit in the arithmetic of your numbers. "
        "Yours are off by no more than that, but are neither the derivative rounded to that arithmetic nor what PyTorch gives in it, "
        "so whether they are right cannot be told. In float64 it could."
    )
    NO_DERIVATIVE = (
        "Your numbers are those of PyTorch, but differences show no derivative at some of these elements: the function jumps, "
        "ends or is infinite there, and the numbers are those of the pieces beside it."
    )
    TWO_AGAINST_ONE = (
        "Your numbers are those of PyTorch. Finite differences settle at others, but not as surely as to prove both wrong: "
        "rounding in the steps is large here."
    )
    NO_NUMBER = (
        "The function is not a finite number at this point, or a one-sided derivative is infinite at some of these elements while the "
        "other is not the same: it has no derivative there that yours could be compared with."
    )
    CORNERS = (
        "Every element is within the range of its own kink; whether they are one subgradient together could not be settled."
    )
    BENEATH = (
        "The derivative is so small beside the function here that finite differences leave nothing of it but noise, and yours is "
        "no more than that noise. Whether it was computed so or is another number cannot be told."
    )
    AS_DIFFERENCES = (
        "Your numbers differ from the derivative by no more than good finite differences of this function would, for its values "
        "are large beside its derivative or lose digits on their way. Whether they were made so or are wrong by this little "
        "cannot be told."
    )
    COARSE = (
        "Your numbers are written with one or two digits. They agree as far as these go, which is not enough to prove a "
        "derivative."
    )
    SHORT = (
        "Your numbers are short decimals that half precision holds. If they were computed in it they agree as far as its digits go; if "
        "not, they are wrong. Send them with their `dtype`, or in more digits."
    )
    WHOLE = (
        "Your numbers are whole. They agree as far as a rounding to whole numbers goes, which is not enough to prove a "
        "derivative."
    )
    ZEROS = (
        "Your numbers are all zero. The derivative is not, but six decimals print it as zero, or float32 gives zero for it, so "
        "whether yours is zero or was rounded to it cannot be told."
    )
