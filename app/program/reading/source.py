"""The text of a program as a tree with places: line, column, and the words that stand there."""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from app.errors import PullbackError
from app.program.reading.cleaning import cleaned

TEXT_LIMIT_BYTES: Final = 16 << 10  # of a program: some 400 lines; chosen
DEPTH_LIMIT: Final = (
    100  # of nested expressions: as Python's own parser allows for parentheses (200) with room for what stands between
)
_EXCERPT_LIMIT: Final = 200  # characters of a line that a refusal shows; chosen

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
# Texts that come again with other numbers; a tree takes some 120 bytes for each byte of its text, so all of them take 15 MB at most.
_REMEMBERED: Final = 64
_REMEMBERED_BYTES: Final = 2_000
# Names with underscores that a pasted class or script has, and what of them is read.
# What shows an object: nothing in the language calls it.
_NEVER_READ: Final = ("__repr__", "__str__", "__hash__", "__del__")
# Packages whose names are known, so that all of them can be imported at once.
_STARRED: Final = (
    "torch",
    "numpy",
    "math",
    "functools",
    "itertools",
    "collections",
    "typing",
    "dataclasses",
    "functorch",
    "einops",
)
# What Python asks of objects: methods that operators, `len`, `in`, `with`, loops and conditions call.
_SPECIAL_METHODS: Final = (
    "__init__", "__call__", "__len__", "__getitem__", "__setitem__", "__iter__", "__next__", "__contains__", "__bool__", "__enter__", "__exit__",
    "__post_init__", "__getattr__", "__add__", "__radd__", "__iadd__", "__sub__", "__rsub__", "__isub__", "__mul__", "__rmul__", "__imul__",
    "__truediv__", "__rtruediv__", "__itruediv__", "__floordiv__", "__rfloordiv__", "__mod__", "__rmod__", "__pow__", "__rpow__",
    "__matmul__", "__rmatmul__", "__and__", "__rand__", "__or__", "__ror__", "__xor__", "__rxor__", "__lshift__", "__rshift__", "__neg__",
    "__pos__", "__abs__", "__invert__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__float__", "__int__", "__reversed__",
)  # fmt: skip
_KNOWN_DUNDERS: Final = (*_SPECIAL_METHODS, "__name__", "__class__", "__future__", "__repr__", "__str__", "__hash__")
_ATTRIBUTE_DUNDERS: Final = (*_SPECIAL_METHODS, "__name__")
# What a class asks of itself: `self.__class__(…)`, `self.__dict__.update(kwargs)`.
_OWN_DUNDERS: Final = ("__class__", "__dict__")
_NAME_DUNDERS: Final = ("__name__", "__class__", *_SPECIAL_METHODS)


class Refusal(Exception):  # noqa: N818 (it is no error yet: PullbackError is)
    """A refusal that does not know its place yet; the reader of the tree adds line and column."""

    def __init__(
        self,
        detail: str,
        fix: str | None = None,
        *,
        code: str = "bad_program",
        expected: str | None = None,
        given: Any = None,
        raises: str | None = None,
    ) -> None:
        """`raises`: Python's name of the exception that the same line raises in PyTorch, where it does: an `except` may take it."""
        super().__init__(detail)
        self.detail, self.fix, self.code, self.expected, self.given = detail, fix, code, expected, given
        self.raises = raises


class RaisedError(PullbackError):
    """A refusal of what Python or PyTorch refuses as well, so that the program's own `except` may take it.

    Attributes:
        raises: Python's name of the exception.
        instance: the object of the program that was raised, where it was one of its own.
    """

    raises: str
    instance: Any = None


@dataclass(frozen=True, slots=True)
class Source:
    """A text that was read.

    Attributes:
        tree: its statements.
        lines: its lines, without common indentation.
        margins: for each line, the columns that were taken off before it.
        ignored: line → what was left out there before Python's grammar read it.
        problems: what is not in the language, in the order of the text.
        unreadable: the innermost statements that hold it, by `id`.
        waits: it has an `except`, which may take what is refused.
    """

    tree: ast.Module
    lines: tuple[str, ...]
    margins: tuple[int, ...]
    ignored: dict[int, str]
    problems: list[PullbackError] = field(default_factory=list)
    unreadable: set[int] = field(default_factory=set)
    waits: bool = False

    def place(self, node: ast.AST) -> tuple[int, int]:
        """Line and column of `node`, from 1, as an editor counts them."""
        line = getattr(node, "lineno", 1)
        offset = getattr(node, "col_offset", 0)
        text = self.lines[line - 1] if line <= len(self.lines) else ""
        column = offset if text.isascii() else len(text.encode()[:offset].decode(errors="replace"))
        return line, column + 1 + (self.margins[line - 1] if line <= len(self.margins) else 0)

    def excerpt(self, node: ast.stmt | ast.expr) -> str:
        """The words of `node` on one line, shortened; of a `for` or `if` its head."""
        first, last = node.lineno, node.end_lineno or node.lineno
        if isinstance(node, ast.For | ast.If | ast.While | ast.With | ast.FunctionDef | ast.ClassDef):
            last, end = first, None
        else:
            end = node.end_col_offset
        lines = [line.encode() for line in self.lines[first - 1 : last]]
        lines[-1] = lines[-1][:end]
        lines[0] = lines[0][node.col_offset :]
        text = " ".join(b" ".join(lines).decode(errors="replace").split())
        return text if len(text) <= _EXCERPT_LIMIT else text[: _EXCERPT_LIMIT - 1] + "…"

    def refused(self, refusal: Refusal, node: ast.AST) -> PullbackError:
        """`refusal` with its place."""
        line, column = self.place(node)
        kind = PullbackError if refusal.raises is None else RaisedError
        error = kind(
            refusal.code,
            f"Line {line}, column {column}: {refusal.detail}",
            at=f"{line}:{column}",
            expected=refusal.expected,
            given=refusal.given,
            fix=refusal.fix,
        )
        if isinstance(error, RaisedError) and refusal.raises is not None:
            error.raises = refusal.raises
        return error


def read(text: str) -> Source:
    """`text` as a checked tree.

    Raises:
        PullbackError: `bad_program` with line and column; too long, too deep, not Python, or not in the language.
    """
    size = len(text.encode(errors="surrogatepass"))
    if size > TEXT_LIMIT_BYTES:
        raise PullbackError(
            "bad_program",
            f"The program has {size:,} bytes; the limit is {TEXT_LIMIT_BYTES:,}.",
            at="1:1",
            expected=f"at most {TEXT_LIMIT_BYTES:,} bytes",
            given=f"{size:,} bytes",
            fix="Send numbers as inputs, and write repeated steps as a `for` loop.",
        )
    if size <= _REMEMBERED_BYTES:
        source = _remembered(text)
        if not source.problems:  # those are raised, and so belong to one reading
            return source
    return _read(text)


@lru_cache(maxsize=_REMEMBERED)
def _remembered(text: str) -> Source:
    return _read(text)


def _read(text: str) -> Source:
    clean = cleaned(text)
    tree = _parse(clean.text, clean.margins)
    waits = any(isinstance(node, ast.ExceptHandler) for node in ast.walk(tree))
    source = Source(tree, tuple(clean.text.split("\n")), clean.margins, clean.ignored, waits=waits)
    _check(source)
    return source


def _parse(text: str, margins: tuple[int, ...]) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser warns of odd literals
            return ast.parse(text)
    except SyntaxError as error:
        line = error.lineno or 1
        column = max(error.offset or 1, 1) + (margins[line - 1] if line <= len(margins) else 0)
        what = (error.msg or "invalid syntax").split(" (<unknown>")[0]
        raise PullbackError("bad_program", f"Line {line}, column {column}: {what}.", at=f"{line}:{column}") from error
    except (RecursionError, MemoryError) as error:
        raise _too_deep("1:1") from error
    except ValueError as error:  # null bytes, lone surrogates, integers of thousands of digits
        raise PullbackError(
            "bad_program", "The text cannot be read as a program.", at="1:1", fix="Send plain text without null bytes."
        ) from error


def _too_deep(at: str) -> PullbackError:
    return PullbackError(
        "bad_program",
        f"The program is nested more than {DEPTH_LIMIT} levels deep.",
        at=at,
        expected=f"at most {DEPTH_LIMIT} levels",
        fix="Give names to the parts of the expression.",
    )


def wrapper(tree: ast.Module) -> ast.FunctionDef | None:
    """The one `def` that holds a stored function; a docstring may stand before it."""
    *before, last = tree.body or [ast.Pass()]
    texts = all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in before)
    return last if isinstance(last, ast.FunctionDef) and texts else None


def _check(source: Source) -> None:
    """Finds whatever the language lacks, before anything is built."""
    stack: list[tuple[ast.AST, int, ast.AST, ast.AST]] = [(node, 1, node, node) for node in reversed(source.tree.body)]
    while stack:
        node, depth, near, statement = stack.pop()
        near = node if hasattr(node, "lineno") else near
        statement = node if isinstance(node, ast.stmt) else statement
        if depth > DEPTH_LIMIT:
            line, column = source.place(near)
            raise _too_deep(f"{line}:{column}")
        if isinstance(node, ast.FunctionDef) and node.name in _NEVER_READ:
            continue
        refusal = _not_in_language(node)
        if refusal:
            source.problems.append(source.refused(refusal, near))
            source.unreadable.add(id(statement))
            continue
        if isinstance(node, ast.Attribute) and node.attr == "__name__" and _is_class_of(node.value):
            node = node.value  # `m.__class__.__name__`
        below = reversed(list(ast.iter_child_nodes(node)))
        stack += [(child, depth + 1, near, statement) for child in below if not _is_hint(node, child)]


def _is_class_of(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "__class__"


def _is_hint(node: ast.AST, child: ast.AST) -> bool:
    """Whether `child` is a type hint: it is never read."""
    return (isinstance(node, ast.AnnAssign | ast.arg) and child is node.annotation) or (
        isinstance(node, ast.FunctionDef) and child is node.returns
    )


def _not_in_language(node: ast.AST) -> Refusal | None:
    if not isinstance(node, _SYNTAX):
        what, fix = _INSTEAD.get(
            type(node), (f"`{type(node).__name__}`", "Use assignments, operators and calls of operations.")
        )
        return Refusal(f"{what} is not in the language.", fix)
    if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
        return Refusal("Bytes are not in the language.", "Use numbers or a string.")
    if isinstance(node, ast.Import):
        return next((refusal for alias in node.names if (refusal := _not_importable(alias.name))), None)
    if isinstance(node, ast.ImportFrom):
        if node.level or (node.names[0].name == "*" and (node.module or "").partition(".")[0] not in _STARRED):
            return Refusal("The names that this line brings are not known here.", "Delete the line, or import them by name.")
        return _not_importable(node.module or "") or next(
            (refusal for alias in node.names if (refusal := _not_importable(f"{node.module}.{alias.name}"))), None
        )
    return _underscored(node)


def _not_importable(module: str) -> Refusal | None:
    if (
        module == "__future__"
        or module.startswith("__future__.")
        or not any(part.startswith("_") for part in module.split("."))
    ):
        return None
    return Refusal(
        f"`{module[:60]}` is not in the language: no name that is imported starts with an underscore.",
        "Delete the line, and write what was used of it with operations.",
    )


def _underscored(node: ast.AST) -> Refusal | None:
    """What reaches into Python or PyTorch by names that start with underscores."""
    if isinstance(node, ast.Attribute) and _is_private(node.attr, _ATTRIBUTE_DUNDERS):
        if node.attr in _OWN_DUNDERS and isinstance(node.value, ast.Name) and node.value.id in ("self", "other"):
            return None
        instead = "Write `type(x)`." if node.attr == "__class__" else None
        return Refusal(f"`.{node.attr}` is not in the language: no attribute starts with an underscore.", instead)
    if isinstance(node, ast.Name) and node.id.startswith("__") and node.id not in _NAME_DUNDERS:
        return Refusal(f"`{node.id}` is not in the language: no name starts with two underscores.")
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.startswith("__") and node.name not in _KNOWN_DUNDERS:
        return Refusal(f"`{node.name}` is not in the language.", "Give the method a name without underscores.")
    if isinstance(node, ast.arg) and node.arg.startswith("__"):
        return Refusal(f"The argument `{node.arg}` is not in the language: no name starts with two underscores.")
    if isinstance(node, ast.keyword) and node.arg and node.arg.startswith("_"):
        return Refusal(f"The argument `{node.arg}` is not in the language: no argument starts with an underscore.")
    return None


def _is_private(name: str, known: tuple[str, ...]) -> bool:
    """`_x` of a class of the program's own is decided where it is read."""
    return name.startswith("__") and name not in known
