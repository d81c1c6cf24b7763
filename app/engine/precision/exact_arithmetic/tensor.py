"""Tensors that carry their exact values: every ATen call on them is made twice, in float64 and in numbers of 60 digits.

The exact numbers follow the autograd graph of the run itself, so that they are a derivative of the same function at the same branch:
comparisons, indices and shapes are those of the float64 run. What has no rule is taken apart by PyTorch's own decompositions, and
what cannot be taken apart goes on from the float64 result and is named in `Ledger.unproved`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from app.engine.precision.exact_arithmetic.numbers import Carrier, Numbers, numbers_of, on_cpu, plain
from app.engine.precision.exact_arithmetic.rules import ATEN, INPLACE, PRIMS

# Each element of their results is a sum of as many products as the inner dimension has.
_PRODUCTS: Final = frozenset({"mm", "bmm", "mv", "dot", "addmm", "baddbmm", "addmv"})

_SCALED: Final = frozenset({"add", "sub", "mul", "div"})  # by plain numbers, which may be constants of a formula


class TooLongError(Exception):
    """The exact run has used up its budget of numbers."""


@dataclass
class Ledger:
    """What one exact run may cost and what it could not do.

    Attributes:
        left: numbers that may still be made.
        unproved: ATen calls that went on from their float64 result.
        decomposed: ATen calls that were taken apart by formulas whose constants (1/n) are rounded to float64.
        constant: what a plain number stands for: itself, or the exact constant of which it is the float64; None: always itself.
    """

    left: int
    unproved: set[str] = field(default_factory=set)
    decomposed: set[str] = field(default_factory=set)
    constant: Callable[[float], Any] | None = None

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise TooLongError


class ExactTensor(Carrier):
    """A floating tensor in float64 whose every call computes its exact values too."""

    ledger: Ledger

    @staticmethod
    def __new__(cls, value: Tensor, numbers: Numbers, ledger: Ledger) -> ExactTensor:
        tensor: ExactTensor = Tensor._make_wrapper_subclass(
            cls,
            value.shape,
            strides=value.stride(),
            storage_offset=value.storage_offset(),
            dtype=value.dtype,
            device=value.device,
        )
        tensor.value, tensor.numbers, tensor.ledger = value, numbers, ledger
        ledger.spend(numbers.size)
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _dispatch(func, args, dict(kwargs or {}))


def exact(value: Tensor, ledger: Ledger) -> ExactTensor:
    """`value`, a float64 tensor, taken to be exact."""
    if value.numel() > ledger.left:
        raise TooLongError  # before a million numbers are made in vain
    return ExactTensor(value, numbers_of(value), ledger)


def _dispatch(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    ledger = next(a.ledger for a in tree_flatten((args, kwargs))[0] if isinstance(a, ExactTensor))
    name = func.overloadpacket.__name__
    inplace = INPLACE.get(name) or _functional(func, args)
    if inplace is not None:
        return _write(args[0], _dispatch(inplace, args, kwargs))
    plain_args, plain_kwargs = tree_map(plain, (args, kwargs))
    result = func(*plain_args, **plain_kwargs)
    leaves, shape = tree_flatten(result)
    if any(isinstance(leaf, Tensor) and leaf.dtype.is_complex for leaf in leaves):
        ledger.unproved.add(name)  # what a complex tensor leads to carries nothing
        return result
    if not any(_is_floating(leaf) for leaf in leaves):
        return result
    if name in _PRODUCTS:
        ledger.spend(result.numel() * int(args[-1].shape[0 if args[-1].dim() < 2 else -2]))
    elif name.startswith(("linalg_", "_linalg_")):
        ledger.spend(sum(leaf.numel() * int(leaf.shape[-1]) for leaf in leaves if _is_floating(leaf) and leaf.dim()))
    if (
        name in _SCALED and ledger.constant is not None
    ):  # PyTorch's own: the root of 1/2 in ndtr, of 2/pi in the derivative of erf
        args = tuple(ledger.constant(arg) if isinstance(arg, float) else arg for arg in args)
    rule = ATEN.get(name) if func.namespace == "aten" else PRIMS.get(name)
    if rule is None and func in decomposition_table:
        ledger.decomposed.add(name)
        return decomposition_table[func](*args, **kwargs)
    if rule is None:
        ledger.unproved.add(name)
        rows: Sequence[Numbers | None] = [None] * len(leaves)
    else:
        if any(isinstance(leaf, Tensor) and not leaf.is_cpu for leaf in leaves):  # exact numbers stand in the CPU's memory
            args, kwargs = tree_map(on_cpu, (args, kwargs))
        answer = rule(func, result, *args, **kwargs)
        rows = answer if isinstance(answer, tuple) else (answer,)
    wrapped = [
        _wrapped(leaf, rows[i] if i < len(rows) else None, ledger) if _is_floating(leaf) else leaf
        for i, leaf in enumerate(leaves)
    ]
    return tree_unflatten(wrapped, shape)


def _functional(func: Any, args: tuple[Any, ...]) -> Any:
    """The functional call of one that writes the whole memory of its first argument; None of any other."""
    name, target = func.overloadpacket.__name__, args[0] if args else None
    if not (func.namespace == "aten" and name.endswith("_") and func._schema.is_mutable and isinstance(target, ExactTensor)):
        return None
    whole = target.value.untyped_storage().nbytes() == target.value.numel() * target.value.element_size()
    functional = getattr(torch.ops.aten, name[:-1], None) if whole else None
    return getattr(functional, func._overloadname, None)


def _wrapped(value: Tensor, numbers: Numbers | None, ledger: Ledger) -> ExactTensor:
    if numbers is None:
        return exact(value, ledger)
    return ExactTensor(value, np.broadcast_to(numbers, tuple(value.shape)), ledger)


def _write(target: Any, result: ExactTensor) -> Any:
    """What an in-place call leaves in its target. Nothing else sees that target's memory: the steps are functional."""
    target.value.copy_(result.value)
    target.numbers = result.numbers
    return target


def _is_floating(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype.is_floating_point
