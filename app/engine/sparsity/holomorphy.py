"""Which results are holomorphic functions of which complex inputs, proved operator by operator on one run.

Each tensor is followed with two sets of inputs: those that it depends on by z, and those by z̄. An operator of the table keeps them
(it is a power series in its complex arguments); conjugation swaps them; whatever else puts every input into both, which is sound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from app.catalogue.operator_mode import OperatorMode
from app.engine.sparsity.operator_call import carries
from app.engine.sparsity.rules.table import base_name
from app.program.errors import tensors_in

# Analytic in each complex argument wherever they are differentiable.
_ANALYTIC_NAMES: Final = """
    add sub rsub mul div true_divide reciprocal neg positive square pow float_power sqrt rsqrt exp exp2 expm1 log log2 log10 log1p
    sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh sigmoid sinc silu addcmul addcdiv lerp where masked_fill
    sum mean prod cumsum cumprod logcumsumexp nansum trace
    mm bmm mv dot addmm addmv addr baddbmm addbmm outer ger linear convolution _trilinear
    tanh_backward sigmoid_backward
    linalg_inv_ex _linalg_det _linalg_solve_ex linalg_matrix_exp linalg_solve_triangular
    _fft_c2c
    clone _to_copy contiguous copy lift lift_fresh alias detach resolve_conj resolve_neg
    cat stack index _unsafe_index index_select gather take roll flip constant_pad_nd reflection_pad1d reflection_pad2d
    replication_pad1d replication_pad2d tril triu repeat scatter scatter_add masked_scatter select_scatter slice_scatter
    diagonal_scatter diag_embed diag im2col col2im index_put index_add index_copy index_fill select_backward slice_backward
    diagonal_backward repeat_interleave masked_select embedding block_diag _index_put_impl _unsafe_view unfold_backward
    fill zero zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty new_empty_strided
"""
ANALYTIC: Final = frozenset(_ANALYTIC_NAMES.split())
CONJUGATING: Final = frozenset({"conj_physical"})
# Conjugates its first argument.
_VDOT: Final = "vdot"


@dataclass(slots=True)
class _Known:
    reference: StorageWeakRef
    plain: int
    conjugate: int


class _Follower(OperatorMode):
    """Sets of inputs are bits; a storage's are those of its tensors without the conjugate bit."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else each step pays 40 µs so that torch.compile, which we do not use, leaves this method alone

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, _Known] = {}

    def sets(self, tensor: Tensor) -> tuple[int, int]:
        """(inputs by z, inputs by z̄)."""
        known = self._known.get(tensor.untyped_storage()._cdata)
        if known is None or not carries(tensor):
            return 0, 0
        if not tensor.dtype.is_complex:
            both = known.plain | known.conjugate
            return both, both
        return (known.conjugate, known.plain) if tensor.is_conj() else (known.plain, known.conjugate)

    def write(self, tensor: Tensor, plain: int, conjugate: int) -> None:
        """What was there before stays there too: a write may be of a part."""
        if not tensor.dtype.is_complex:
            plain = conjugate = plain | conjugate
        elif tensor.is_conj():
            plain, conjugate = conjugate, plain
        storage = tensor.untyped_storage()
        known = self._known.get(storage._cdata)
        if known is None:
            reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
            known = self._known[storage._cdata] = _Known(reference, 0, 0)
        known.plain |= plain
        known.conjugate |= conjugate

    def dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensors = [*tensors_in(args), *tensors_in(list(kwargs.values()))]
        sets = [self.sets(tensor) for tensor in tensors]
        result = func(*args, **kwargs)
        name = base_name(func)
        if name == _VDOT and sets:
            sets[0] = sets[0][::-1]
        plain, conjugate = 0, 0
        for by_z, by_conjugate in sets:
            plain |= by_z
            conjugate |= by_conjugate
        if name in CONJUGATING:
            plain, conjugate = conjugate, plain
        elif name not in ANALYTIC and name != _VDOT and not func.is_view:
            plain = conjugate = plain | conjugate
        for output in tensors_in(result):
            if func.is_view and output.untyped_storage()._cdata in self._known:
                continue  # it shares what is known of its memory
            if plain or conjugate:
                self.write(output, plain, conjugate)
        if func._schema.is_mutable:
            for tensor in tensors:
                self.write(tensor, plain, conjugate)
        return result


def holomorphic(run: Callable[[], Sequence[Tensor]], inputs: Sequence[Tensor]) -> list[list[bool]]:
    """For each result of `run()` and each of `inputs`, whether it is proved to depend on that input without its conjugate."""
    follower = _Follower()
    for number, tensor in enumerate(inputs):
        follower.write(tensor, 1 << number, 0)
    with torch.no_grad(), follower:
        results = run()
    answers = []
    for result in results:
        _, conjugate = follower.sets(result)
        answers.append([not conjugate >> number & 1 for number in range(len(inputs))])
    return answers
