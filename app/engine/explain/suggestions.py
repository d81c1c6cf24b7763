"""What to write instead of a step that cuts, flattens, bends or breaks a derivative: the sentence of the operation's row of facts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from app.catalogue import facts

_HOLE: Final = re.compile(r"\{(x|dim|dims|call|safe_call|condition)\}")

# What happened to a path at a step:
#   integer, boolean: the result is discrete;  detach: taken out on purpose;  shape: only shape and dtype are used;
#   copied: its numbers alone were copied;  taken: it is a gradient without a graph of its own;
#   argument: no derivative with respect to this argument;  formula: PyTorch has none at all;  flat: zero almost everywhere;
#   slope: the same of a gradient;  zero: a derivative of zero although the value moves;
#   own_backward: the `backward` of the program's own Function gives None;
#   phase: of complex vectors; kink, jump, edge, singular, value: at this point;
#   negative: a value or derivative that is not finite, of an argument with negative elements;
#   modulus: a kink of complex numbers;  kink_of_two: of two tensors;  norm_of_sizes: of a sum of absolute values;  other_norm: of one that is neither
#   that nor Euclidean;
#   unselected: 0 · infinity in a branch that is not taken.
# What is not defined on one side is healed like what is not finite; so is a value that is not finite.
_SAME: Final[Mapping[str, tuple[str, ...]]] = {
    "edge": ("singular", "edge"),
    "value": ("singular",),
    "jump": ("jump", "kink"),
    "negative": ("negative", "singular"),
    "kink_of_two": ("kink_of_two", "kink"),
}


def suggestion(
    what: str, function: str, *, x: str = "x", dim: int | None = None, call: str | None = None, **holes: str | None
) -> str | None:
    """A sentence on what to write instead; None where none is known.

    Arguments:
        what: one of those above.
        function: the Python name of the function at the step (`argmax`, `gt`, `truediv`).
        x: what the step works on, as the program calls it.
        call: the step as the program writes it; where it is not known, a sentence that needs it is left out.
        holes: others of the sentence: `safe_call`, the call with `safe` in the place of `x`; `condition`, where `x` is harmless;
            `dims`, the axes of a reduction, those of all of it too.
    """
    for kind in _SAME.get(what, (what,)):
        text = facts.instead(kind, function)
        if text:
            fillings = {"dims": "-1", "condition": "condition", "safe_call": None, **holes}
            fillings |= {"x": x, "call": call, "dim": "-1" if dim is None else str(dim)}
            if all(fillings[hole] is not None for hole in _HOLE.findall(text)):
                return text.format_map(fillings)
    return None
