"""What operators, `len`, `in`, loops and conditions mean for objects of the program's own classes: Python's special methods."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final

from app.program.reading.source import RaisedError, Refusal
from app.program.semantics import static
from app.program.semantics.graph_values import Value
from app.program.semantics.values import ClassValue, Instance, special

Invoke = Callable[[Value, tuple[Value, ...]], Value]
# Of each operator: the method of the object on its left, and that of the one on its right.
_BINARY: Final = {
    "+": "add", "-": "sub", "*": "mul", "/": "truediv", "//": "floordiv", "%": "mod", "**": "pow", "@": "matmul", "&": "and", "|": "or",
    "^": "xor", "<<": "lshift", ">>": "rshift",
}  # fmt: skip
_COMPARED: Final = {
    "<": ("lt", "gt"),
    "<=": ("le", "ge"),
    ">": ("gt", "lt"),
    ">=": ("ge", "le"),
    "==": ("eq", "eq"),
    "!=": ("ne", "ne"),
}
_UNARY: Final = {"-": "__neg__", "+": "__pos__", "~": "__invert__"}


def is_object(value: object) -> bool:
    """Whether `value` is an object of a class of the program."""
    return isinstance(value, Instance) and isinstance(value.kind, ClassValue)


def binary(invoke: Invoke, symbol: str, left: Value, right: Value, *, written: bool = False) -> Value:
    """`left symbol right`, one of them an object; `written`: `left symbol= right`. Raises a refusal where neither class has a method."""
    if symbol in _COMPARED:
        return _compared(invoke, symbol, left, right)
    name = _BINARY[symbol]
    tried = [(f"__i{name}__", left, right)] if written else []
    for method, owner, other in (*tried, (f"__{name}__", left, right), (f"__r{name}__", right, left)):
        function = special(owner, method)
        if function is not None:
            return invoke(function, (other,))
    owner = left if is_object(left) else right
    raise Refusal(
        f"`{symbol}` does not work here: the class `{owner.kind.name}` has no `__{name}__`.",
        f"Give the class `def __{name}__(self, other): …`.",
        raises="TypeError",
    )


def _compared(invoke: Invoke, symbol: str, left: Value, right: Value) -> Value:
    name, mirrored = _COMPARED[symbol]
    for method, owner, other in ((f"__{name}__", left, right), (f"__{mirrored}__", right, left)):
        function = special(owner, method)
        if function is not None:
            return invoke(function, (other,))
    if symbol == "!=" and (special(left, "__eq__") or special(right, "__eq__")):
        return not _compared(invoke, "==", left, right)
    if _is_ordered(left, right) and symbol not in ("==", "!="):
        return _by_fields(invoke, symbol, left, right) if left.kind.fields is not None else _by_one(invoke, symbol, left, right)
    if symbol in ("==", "!="):
        return (_same_fields(invoke, left, right) if _is_data(left, right) else left is right) == (symbol == "==")
    raise Refusal(
        f"`{symbol}` does not work on objects without `__{name}__`.", f"Give the class `def __{name}__(self, other): …`."
    )


def _is_ordered(left: Value, right: Value) -> bool:
    return is_object(left) and is_object(right) and left.kind is right.kind and left.kind.ordered


def _by_fields(invoke: Invoke, symbol: str, left: Instance, right: Instance) -> Value:
    """Under `@dataclass(order=True)` two objects are in the order of the first field in which they differ."""
    for name in left.kind.fields or ():  # type: ignore[union-attr]
        a, b = left.own[name], right.own[name]
        if a is not b and not plain_equal(invoke, a, b):
            both = is_object(a) or is_object(b)
            return _compared(invoke, symbol, a, b) if both else static.binary(symbol, a, b)
    return symbol in ("<=", ">=")


def _by_one(invoke: Invoke, symbol: str, left: Instance, right: Instance) -> Value:
    """Under `@total_ordering` the one method of four that the class has stands for the others: of `a <= b` that is `not b < a`."""
    opposite = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}[symbol]
    name, mirrored = _COMPARED[opposite]
    if special(left, f"__{name}__") is None and special(right, f"__{mirrored}__") is None:
        raise Refusal("`@total_ordering` needs `__lt__`, `__le__`, `__gt__` or `__ge__`.", raises="ValueError")
    return not _compared(invoke, opposite, left, right)


def _is_data(left: Value, right: Value) -> bool:
    return is_object(left) and is_object(right) and left.kind is right.kind and left.kind.fields is not None


def _same_fields(invoke: Invoke, left: Instance, right: Instance) -> bool:
    """Dataclasses are equal where their fields are."""
    return all(bool(plain_equal(invoke, left.own[name], right.own[name])) for name in left.kind.fields or ())  # type: ignore[union-attr]


def plain_equal(invoke: Invoke, left: Value, right: Value) -> bool:
    """`left == right` of plain values and objects. Raises a refusal for tensors."""
    if is_object(left) or is_object(right):
        return bool(_compared(invoke, "==", left, right))
    if hasattr(left, "meta") or hasattr(right, "meta"):
        raise Refusal("Objects that hold tensors are not compared.", "Compare the tensors: `torch.equal(a, b)`.")
    return bool(left == right)


def compared(
    invoke: Invoke,
    operation: ast.cmpop,
    left: Value,
    right: Value,
    members: Callable[[], Any],
    holds: Callable[[Value], bool],
) -> Value | None:
    """`in`, `not in`, `is` and `is not`, where one side is an object; None where the comparison is another.

    Arguments:
        members: what a loop over `right` goes through.
        holds: whether a condition on a value holds, as what `__contains__` gives is one.
    """
    if isinstance(operation, ast.Is | ast.IsNot) and is_object(left) and is_object(right):
        return (left is right) == isinstance(operation, ast.Is)
    if not isinstance(operation, ast.In | ast.NotIn) or not (is_object(right) or is_object(left)):
        return None
    function = special(right, "__contains__")
    if function is not None:
        return holds(invoke(function, (left,))) == isinstance(operation, ast.In)
    return any(plain_equal(invoke, left, member) for member in members()) == isinstance(operation, ast.In)


def unary(invoke: Invoke, symbol: str, value: Instance) -> Value:
    """`-value`."""
    function = special(value, _UNARY[symbol])
    if function is None:
        raise Refusal(f"`{symbol}` does not work on an object without `{_UNARY[symbol]}`.", raises="TypeError")
    return invoke(function, ())


def truth(invoke: Invoke, value: Instance) -> Value:
    """What a condition on an object hangs on: its `__bool__`, else its length, else that it is there."""
    for name in ("__bool__", "__len__"):
        function = special(value, name)
        if function is not None:
            return invoke(function, ())
    return True


def members(invoke: Invoke, value: Instance, trying: Callable[[int], Any]) -> Any:
    """What a loop over an object goes through, one at a time: by `__iter__`, or `__getitem__` from 0 on; None where it has neither.

    `trying(1)` and `trying(-1)` stand around what may raise `StopIteration`.
    """
    function = special(value, "__iter__")
    if function is not None:
        begun = invoke(function, ())
        if special(begun, "__next__") is None:
            return begun
        return _until_raised(lambda _: invoke(special(begun, "__next__"), ()), ("StopIteration",), trying)
    if special(value, "__getitem__") is None:
        return None
    length = special(value, "__len__")
    if length is not None:
        return (invoke(special(value, "__getitem__"), (index,)) for index in range(invoke(length, ())))
    ends = ("IndexError", "StopIteration")
    return _until_raised(lambda index: invoke(special(value, "__getitem__"), (index,)), ends, trying)


def _until_raised(member: Callable[[int], Value], ends: tuple[str, ...], trying: Callable[[int], Any]) -> Iterator[Value]:
    """`member(0)`, `member(1)`… until one raises an exception named in `ends`."""
    for index in itertools.count():
        trying(1)
        try:
            value = member(index)
        except RaisedError as error:
            if error.raises in ends:
                return
            raise
        finally:
            trying(-1)
        yield value
