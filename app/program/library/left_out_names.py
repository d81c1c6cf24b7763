"""Well-known names that the language leaves out, and what to write in their place."""

from __future__ import annotations

from typing import Final

from app.program.reading.source import Refusal

_INSTEAD: Final[dict[str, str]] = {
    "format": "Return the value.",
    "eval": "Write the expression itself.", "exec": "Write the statements themselves.", "compile": "Write the statements themselves.",
    "open": "Send tensors as inputs.", "grad": 'Write `torch.autograd.grad(y, x)` or `torch.func.grad(f)(x)`.',
    "jacobian": "Write `torch.func.jacrev(f)(x)`.", "hessian": "Write `torch.func.hessian(f)(x)`.",
    "no_grad": "Write `with torch.no_grad():` before the lines.", "backward": "Write `loss.backward()`.",
    "gradcheck": 'Ask for "want": ["check"], and end the program with the call: `F.apply(x)`.',
    "nn.utils.parametrizations.orthogonal": "Write it out: `Q = torch.matrix_exp(A - A.T)`, then `F.linear(x, Q, b)`, with `A` and `b` as inputs.",
    "globals": "Use names.", "locals": "Use names.",
}  # fmt: skip


def refused(name: str) -> Refusal | None:
    """The refusal of a well-known name that the language leaves out."""
    short = name.removeprefix("torch.")
    if short.endswith("gradcheck"):
        short = "gradcheck"
    elif short.startswith(("autograd.", "func.")):
        return Refusal(
            f"`{name}` is not in the language.",
            "There are `torch.autograd.grad(y, x, create_graph=True)` and `torch.func.grad`, `vjp`, `jvp`, `jacrev`, `jacfwd`, `hessian`, `vmap`.",
        )
    if short in _INSTEAD:
        return Refusal(f"`{name}` is not in the language.", _INSTEAD[short])
    return None
