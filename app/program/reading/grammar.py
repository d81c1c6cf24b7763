"""What of Python's grammar is in the language: tables of kinds of nodes, and what to write in the place of what is not."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, Final

# What is said of what is refused, and what to write instead.
Words = tuple[str, str | None]

_SYNTAX: Final[tuple[type[ast.AST], ...]] = (
    ast.Module, ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return, ast.For, ast.While, ast.If, ast.Pass, ast.Break,
    ast.Continue, ast.Import, ast.ImportFrom, ast.alias, ast.FunctionDef, ast.ClassDef, ast.arguments, ast.arg, ast.With, ast.withitem,
    ast.Assert, ast.Raise, ast.Delete, ast.Global, ast.Nonlocal, ast.Lambda, ast.NamedExpr, ast.JoinedStr, ast.FormattedValue,
    ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.IfExp, ast.Dict, ast.ListComp, ast.GeneratorExp, ast.DictComp, ast.comprehension,
    ast.Compare, ast.Call, ast.keyword, ast.Constant, ast.Attribute, ast.Subscript, ast.Starred, ast.Name, ast.List, ast.Tuple,
    ast.Yield, ast.YieldFrom, ast.Set, ast.SetComp, ast.Try, ast.ExceptHandler, ast.Match, ast.match_case, ast.pattern,
    ast.Slice, ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip
# What is not in the language, and what to write instead.
_INSTEAD: Final[dict[type[ast.AST], tuple[str, str]]] = {
    ast.AsyncFunctionDef: ("`async def`", "Write `def`."),
    ast.AsyncWith: ("`async with`", "Leave it out."),
    ast.AsyncFor: ("`async for`", "Use `for`."),
    ast.Await: ("`await`", "Leave it out."),
}  # fmt: skip
# Fields that are never read: type hints and plain values; and those of words, operators and whether a name is written to, which are known.
_HINTS: Final[dict[type[ast.AST], tuple[str, ...]]] = {
    ast.AnnAssign: ("annotation",), ast.arg: ("annotation",), ast.FunctionDef: ("returns",), ast.Constant: ("value",),
}  # fmt: skip
_WORDS: Final = ("ctx", "op", "ops", "id", "attr", "arg", "name", "kind", "type_comment", "conversion", "simple")
# Kind of node that is read → its fields that may hold others.
_FIELDS: Final[dict[type[ast.AST], tuple[str, ...]]] = {
    kind: tuple(name for name in kind._fields if name not in _WORDS and name not in _HINTS.get(kind, ()))
    for syntax in _SYNTAX
    for kind in (syntax, *syntax.__subclasses__())
}
# Methods that show an object: nothing in the language calls them.
_NEVER_READ: Final = ("__repr__", "__str__", "__hash__", "__del__")
# Packages whose names are known, so that all of them can be imported at once.
_STARRED: Final = (
    "torch", "numpy", "math", "functools", "itertools", "collections", "typing", "dataclasses", "functorch", "einops",
)  # fmt: skip
# What Python asks of objects: methods that operators, `len`, `in`, `with`, loops and conditions call.
_SPECIAL_METHODS: Final = (
    "__init__", "__call__", "__len__", "__getitem__", "__setitem__", "__iter__", "__next__", "__contains__", "__bool__", "__enter__", "__exit__",
    "__post_init__", "__getattr__", "__add__", "__radd__", "__iadd__", "__sub__", "__rsub__", "__isub__", "__mul__", "__rmul__", "__imul__",
    "__truediv__", "__rtruediv__", "__itruediv__", "__floordiv__", "__rfloordiv__", "__mod__", "__rmod__", "__pow__", "__rpow__",
    "__matmul__", "__rmatmul__", "__and__", "__rand__", "__or__", "__ror__", "__xor__", "__rxor__", "__lshift__", "__rshift__", "__neg__",
    "__pos__", "__abs__", "__invert__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__float__", "__int__", "__reversed__",
)  # fmt: skip
# Names with underscores that may be written: as that of a `def`, behind a dot, by themselves.
_KNOWN_DUNDERS: Final = (*_SPECIAL_METHODS, "__name__", "__class__", "__future__", "__repr__", "__str__", "__hash__")
_ATTRIBUTE_DUNDERS: Final = (*_SPECIAL_METHODS, "__name__", "__dict__")
_NAME_DUNDERS: Final = ("__name__", "__class__", *_SPECIAL_METHODS, "__slots__", "__all__", "__version__", "__author__")
# What a class asks of itself: `self.__class__(…)`.
_OWN_DUNDERS: Final = ("__class__",)


def children(node: ast.AST) -> list[ast.AST]:
    """What stands below a node that is read, and is read too, in the order of the text."""
    if isinstance(node, ast.FunctionDef) and node.name in _NEVER_READ:
        return []
    if isinstance(node, ast.Attribute) and node.attr == "__name__" and _is_class_of(node.value):
        node = node.value  # `m.__class__.__name__`
    below: list[ast.AST] = []
    for name in _FIELDS[type(node)]:
        value = getattr(node, name, None)
        if type(value) is list:
            below += [member for member in value if isinstance(member, ast.AST)]
        elif isinstance(value, ast.AST):
            below.append(value)
    return below


def _is_class_of(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "__class__"


def refused_of(node: ast.AST) -> Words | None:
    """What of the node itself is not in the language; None where all of it is."""
    kind = type(node)
    look = _LOOKS.get(kind)
    if look is not None:
        return look(node)
    if kind not in _FIELDS:
        what, fix = _INSTEAD.get(kind, (f"`{kind.__name__}`", "Use assignments, operators and calls of operations."))
        return f"{what} is not in the language.", fix
    return None


def _bytes(node: Any) -> Words | None:
    return ("Bytes are not in the language.", "Use numbers or a string.") if isinstance(node.value, bytes) else None


def _import(node: Any) -> Words | None:
    return next((words for alias in node.names if (words := _not_importable(alias.name))), None)


def _import_from(node: Any) -> Words | None:
    if node.level or (node.names[0].name == "*" and (node.module or "").partition(".")[0] not in _STARRED):
        return "The names that this line brings are not known here.", "Delete the line, or import them by name."
    return _not_importable(node.module or "") or next(
        (words for alias in node.names if (words := _not_importable(f"{node.module}.{alias.name}"))), None
    )


def _not_importable(module: str) -> Words | None:
    if (
        module == "__future__"
        or module.startswith("__future__.")
        or not any(part.startswith("_") for part in module.split("."))
    ):
        return None
    return (
        f"`{module[:60]}` is not in the language: no name that is imported starts with an underscore.",
        "Delete the line, and write what was used of it with operations.",
    )


# What reaches into Python or PyTorch by names that start with underscores.


def _attribute(node: Any) -> Words | None:
    """`_x` of a class of the program's own is decided where it is read."""
    if not node.attr.startswith("__") or node.attr in _ATTRIBUTE_DUNDERS:
        return None
    if node.attr in _OWN_DUNDERS and isinstance(node.value, ast.Name) and node.value.id in ("self", "other"):
        return None
    instead = "Write `type(x)`." if node.attr == "__class__" else None
    return f"`.{node.attr}` is not in the language: no attribute starts with an underscore.", instead


def _name(node: Any) -> Words | None:
    if not node.id.startswith("__") or node.id in _NAME_DUNDERS:
        return None
    return f"`{node.id}` is not in the language: no name starts with two underscores.", None


def _definition(node: Any) -> Words | None:
    never_read = _NEVER_READ if isinstance(node, ast.FunctionDef) else ()
    if not node.name.startswith("__") or node.name in _KNOWN_DUNDERS or node.name in never_read:
        return None
    return f"`{node.name}` is not in the language.", "Give the method a name without underscores."


def _argument(node: Any) -> Words | None:
    if not node.arg.startswith("__"):
        return None
    return f"The argument `{node.arg}` is not in the language: no name starts with two underscores.", None


def _keyword(node: Any) -> Words | None:
    if not (node.arg and node.arg.startswith("_")):
        return None
    return f"The argument `{node.arg}` is not in the language: no argument starts with an underscore.", None


# Kind of node → what may be refused of it.
_LOOKS: Final[dict[type[ast.AST], Callable[[Any], Words | None]]] = {
    ast.Constant: _bytes,
    ast.Import: _import,
    ast.ImportFrom: _import_from,
    ast.Attribute: _attribute,
    ast.Name: _name,
    ast.FunctionDef: _definition,
    ast.ClassDef: _definition,
    ast.arg: _argument,
    ast.keyword: _keyword,
}
