"""The signs of operators, and comparisons that are not arithmetic: `is`, `in`, and `==` with None or a dtype."""

from __future__ import annotations

import ast
from collections.abc import Callable, KeysView
from typing import Final

import torch

from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.aliases import is_view
from app.program.semantics.graph_values import Value, is_tensor
from app.program.semantics.sets import Distinct
from app.program.semantics.static import named
from app.program.semantics.values import VIEWS, ClassValue, Iterator, Named

SYMBOLS: Final[dict[type[ast.AST], str]] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**", ast.MatMult: "@",
    ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<", ast.RShift: ">>", ast.USub: "-", ast.UAdd: "+", ast.Invert: "~",
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip

# What is the same where it is one object.
_OF_ONE: Final = (Named, ClassValue, torch.dtype)
# Values that a name holds, and nothing makes anew of themselves.
_OF_PROGRAM: Final = ("FunctionValue", "Instance", "LayerValue", "Iterator", "Distinct")


def compared(
    operate: Callable[[str, Value, Value], Value],
    operation: ast.cmpop,
    left: Value,
    right: Value,
    spend: Callable[[int], None] = lambda amount: None,
) -> Value:
    """`left operation right`; `operate` does those that tensors know too. `spend`: counts what looking through a list costs."""
    if isinstance(operation, ast.Is | ast.IsNot | ast.Eq | ast.NotEq) and (_is_type(left) or _is_type(right)):
        return _is_same_type(left, right) == isinstance(operation, ast.Is | ast.Eq)
    if isinstance(operation, ast.In | ast.NotIn) and isinstance(left, _OF_ONE) and isinstance(right, list | tuple):
        return any(_is_same_type(left, kind) for kind in right) == isinstance(operation, ast.In)
    if isinstance(operation, ast.Is | ast.IsNot):
        known = [value is None or isinstance(value, bool | torch.dtype | list | dict) for value in (left, right)]
        held = [is_tensor(value) or type(value).__name__ in _OF_PROGRAM for value in (left, right)]
        if not any(known) and not any(held):
            raise Refusal("`is` compares tensors, objects, lists, dicts, types, dtypes and None only.", "Write `==`.")
        return _is_one(left, right) == isinstance(operation, ast.Is)
    if isinstance(operation, ast.In | ast.NotIn):
        if isinstance(left, str) and isinstance(right, str):
            return (left in right) == isinstance(operation, ast.In)
        if isinstance(right, Iterator):  # it is gone through until the value comes
            return any(_is_in(left, member) for member in right) == isinstance(operation, ast.In)
        if isinstance(right, dict | Distinct | KeysView) and _is_hashable(left):
            return (static.key(left, spend) in right) == isinstance(operation, ast.In)
        if isinstance(right, VIEWS):
            right = list(right)
        if not isinstance(right, list | tuple | range | dict):
            raise Refusal("`in` looks into plain lists only.", "Write `(x == y).any()` for tensors.")
        static.plain([left, list(right) if isinstance(right, dict) else right])
        spend(1 if isinstance(right, range) else 1 + len(right) // 8)
        holds = _is_in_range(left, right) if isinstance(right, range) else left in right
        return holds == isinstance(operation, ast.In)
    symbol = SYMBOLS[type(operation)]
    if any(value is None or isinstance(value, torch.dtype) for value in (left, right)):
        if symbol not in ("==", "!="):
            raises = "TypeError" if static.is_python(left) and static.is_python(right) else None
            raise Refusal(f"`{symbol}` does not work on {named(left)} and {named(right)}.", raises=raises)
        return (left is right) == (symbol == "==")
    return operate(symbol, left, right)


def _is_one(left: Value, right: Value) -> bool:
    """Whether both are one object. Raises a refusal where both show one memory in one shape, and PyTorch alone decides (`x.flatten()`)."""
    if left is right or not is_view(left, right) or left.meta["val"].shape != right.meta["val"].shape:
        return left is right
    raise Refusal("Whether these are one tensor or two that share memory is not known here.", "Compare the names themselves.")


def _is_in_range(left: Value, right: range) -> bool:
    """Python goes through a range for what is no integer; only whole numbers are in one."""
    if isinstance(left, float | complex):
        real = complex(left).real
        return real.is_integer() and left == real and int(real) in right
    return isinstance(left, int) and left in right


def _is_in(left: Value, member: Value) -> bool:
    static.plain([left, member])
    return bool(left == member)


def _is_type(value: Value) -> bool:
    """Whether a value is the name of a type or a class, as `type(x)` gives it."""
    return isinstance(value, Named | ClassValue)


def _is_hashable(value: Value) -> bool:
    return value is None or isinstance(value, str | int | float | complex | tuple | torch.dtype) or is_tensor(value)


def _is_same_type(left: Value, right: Value) -> bool:
    if isinstance(left, Named) and isinstance(right, Named):
        return left.path.removeprefix("torch.") == right.path.removeprefix("torch.")
    return left is right
