"""`python -m tests.oracle.hand_sweep`: derivations by hand sent to `check`, right ones and with the mistakes that people make; what it gets wrong."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor

from tests.engine.building import checked
from tests.oracle.hand_densities import DENSITIES
from tests.oracle.hand_derivation import Derivation, Formula
from tests.oracle.hand_dynamics import DYNAMICS
from tests.oracle.hand_functions import FUNCTIONS
from tests.oracle.hand_layers import LAYERS
from tests.oracle.hand_losses import LOSSES
from tests.oracle.hand_matrices import MATRICES
from tests.oracle.hand_rules import RULES
from tests.oracle.written_out import as_dtype

DERIVATIONS: Final[dict[str, Derivation]] = {
    f"{kind}: {title}": one
    for kind, table in (
        ("function", FUNCTIONS),
        ("loss", LOSSES),
        ("layer", LAYERS),
        ("matrix", MATRICES),
        ("density", DENSITIES),
        ("dynamics", DYNAMICS),
        ("rule", RULES),
    )
    for title, one in table.items()
}
DTYPES: Final = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
HALVES: Final = (torch.float16, torch.bfloat16)
# PyTorch has no kernels of these in half precision, or the formulas have none.
_WIDE: Final = (
    "linalg.", "fft.", "det(", "inverse(", "matrix_exp", "quantile", "cdist", "distributions.", "lgamma", "logdet", "bessel",
)  # fmt: skip
_FACTORIES: Final = ("torch.zeros(", "eye(", "ones(")
# Names that say what was computed and found equal: a relation of the two derivatives' numbers, or the derivative of a program with one thing
# changed. They are true wherever they are said, of mistakes too that have no name.
TRUE_BY_ITSELF: Final = frozenset(
    {"differs_by_term", "elementwise_factor", "default_argument", "left_out", "missing_term", "transposed_product"}
    | {"not_moved_back", "copies_counted_once", "copies_averaged"}
)
_LARGE: Final = 0.1  # a mistake that changes the derivative by less of its largest element may be rounding in half precision


def possible(one: Derivation, dtype: torch.dtype) -> bool:
    """Whether PyTorch computes it in this dtype."""
    if dtype != torch.float64 and any(word in one.text for word in _FACTORIES):
        return False  # these programs are built for float64
    is_complex = any(tensor.is_complex() for tensor in one.inputs.values())
    return dtype not in HALVES or not (is_complex or one.kind == "hessian" or any(word in one.text for word in _WIDE))


def verdict(one: Derivation, formula: Formula, dtype: torch.dtype) -> tuple[dict[str, Any], Tensor]:
    """On what the formula gives in float64 of the inputs in this dtype, rounded to it; and that."""
    inputs: dict[str, Any] = {name: as_dtype(tensor, dtype) for name, tensor in one.inputs.items()}
    believed = as_dtype(
        formula(**{name: as_dtype(tensor, torch.float64) for name, tensor in inputs.items()}).contiguous(), dtype
    )
    report: dict[str, Any] = checked(one.text, {one.wrt: believed}, one.kind, None, (one.wrt,), **inputs)[one.wrt]
    return report, believed


def complaint_of_right(one: Derivation, dtype: torch.dtype) -> str:
    """What is wrong with the reply on the right derivation; empty where nothing is."""
    report, _ = verdict(one, one.right, dtype)
    return "" if report["agrees"] is True and "likely" not in report else f"{report['agrees']}: {report['worst'][:1]}"


def complaint_of_steps(one: Derivation, dtype: torch.dtype) -> str:
    """The same where the formula is computed in this dtype from its first step on: it may be beyond telling, but is not wrong."""
    inputs: dict[str, Any] = {name: as_dtype(tensor, dtype) for name, tensor in one.inputs.items()}
    try:
        believed = one.right(**inputs).contiguous()
    except NotImplementedError:
        return ""  # PyTorch lacks some step in this dtype
    if not bool(torch.isfinite(believed.abs()).all()):
        return ""
    report: dict[str, Any] = checked(one.text, {one.wrt: believed}, one.kind, None, (one.wrt,), **inputs)[one.wrt]
    return f"{report['worst'][:1]}" if report["agrees"] is False else ""


def complaint_of_wrong(one: Derivation, mistake: str, dtype: torch.dtype) -> str:
    """The same with this mistake."""
    formula, codes = one.wrong[mistake]
    report, believed = verdict(one, formula, dtype)
    right = one.right(**{name: as_dtype(as_dtype(tensor, dtype), torch.float64) for name, tensor in one.inputs.items()})
    is_small = dtype in HALVES and right.shape == believed.shape
    is_small = is_small and bool((believed.double() - right).abs().max() <= _LARGE * right.abs().max())
    if report["agrees"] is not False:
        return "" if is_small else f"{report['agrees']}: {report['worst'][:1]}"
    name = report.get("likely", {"code": "?"})["code"]
    if "?" in codes.split() and name in TRUE_BY_ITSELF:
        return ""
    return "" if dtype in HALVES or name in codes.split() else f"called {name}, is {codes}"


def complaints(step: int, dtypes: tuple[torch.dtype, ...]) -> Iterator[str]:
    for title, one in list(DERIVATIONS.items())[::step]:
        for dtype in dtypes:
            if possible(one, dtype):
                said = [("right", complaint_of_right(one, dtype))]
                said += [("by steps", complaint_of_steps(one, dtype))] if dtype in HALVES else []
                said += [(mistake, complaint_of_wrong(one, mistake, dtype)) for mistake in one.wrong]
                yield from (f"{title}, {what}, {dtype}: {words}" for what, words in said if words)


def main(arguments: list[str]) -> None:
    """Asks all of them, and prints every wrong reply."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle.hand_sweep", description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="each so many derivations one")
    parser.add_argument("--dtype", choices=[str(dtype).removeprefix("torch.") for dtype in DTYPES], help="in this one alone")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    dtypes = DTYPES if chosen.dtype is None else (getattr(torch, chosen.dtype),)
    for line in complaints(chosen.every, dtypes):
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
