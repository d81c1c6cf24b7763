"""What to write instead of a step that cuts, flattens, bends or breaks a derivative: the sentence of the operation's row of facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.catalogue import facts

# What happened to a path at a step:
#   integer, boolean: the result is discrete;  detach: taken out on purpose;  shape: only shape and dtype are used;
#   copied: its numbers alone were copied;  taken: it is a gradient without a graph of its own;
#   argument: no derivative with respect to this argument;  formula: PyTorch has none at all;  flat: zero almost everywhere;
#   zero: a derivative of zero although the value moves;
#   phase: of complex vectors; kink, jump, edge, singular, value: at this point;
#   negative: a value or derivative that is not finite, of an argument with negative elements;
#   unselected: 0 · infinity in a branch that is not taken.
# What is not defined on one side is healed like what is not finite; so is a value that is not finite.
_SAME: Final[Mapping[str, tuple[str, ...]]] = {
    "edge": ("singular", "edge"),
    "value": ("singular",),
    "jump": ("jump", "kink"),
    "negative": ("negative", "singular"),
}


def suggestion(
    what: str, function: str, *, x: str = "x", dim: int | None = None, call: str | None = None, safe_call: str | None = None
) -> str | None:
    """A sentence on what to write instead; None where none is known.

    Arguments:
        what: one of those above.
        function: the Python name of the function at the step (`argmax`, `gt`, `truediv`).
        x: what the step works on, as the program calls it.
        call: the step as the program writes it; where it is not known, a sentence that needs it is left out.
        safe_call: the same with `safe` in the place of `x`.
    """
    for kind in _SAME.get(what, (what,)):
        text = facts.instead(kind, function)
        if text:
            if ("{call}" in text and call is None) or ("{safe_call}" in text and safe_call is None):
                continue
            axis = "-1" if dim is None else str(dim)
            text = text.replace("{call}", call or "").replace("{safe_call}", safe_call or "")
            return text.replace("{x}", x).replace("{dim}", axis)
    return None
