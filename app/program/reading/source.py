"""The text of a program as a tree with places: line, column, and the words that stand there."""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final
from weakref import WeakKeyDictionary

from app.errors import PullbackError
from app.program.reading.bound_names import bound_names
from app.program.reading.cleaning import cleaned
from app.program.reading.grammar import children, refused_of

TEXT_LIMIT_BYTES: Final = 16 << 10  # of a program, some 400 lines: twice the longest of 768 pasted ones (8.3 kB; 99%: 3.2)
# Of nested expressions: as Python's own parser allows for parentheses (200) with room for what stands between.
DEPTH_LIMIT: Final = 100
_EXCERPT_LIMIT: Final = 200  # characters of a line that a refusal shows: of 99% of pasted programs the longest has 143

# Texts that come again with other numbers; a tree takes some 120 bytes for each byte of its text, so all of them take 15 MB at most.
_REMEMBERED: Final = 64
_REMEMBERED_BYTES: Final = 2_000


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
        arguments: tuple[Any, ...] | None = None,
    ) -> None:
        """`raises`: Python's name of the exception that the same line raises in PyTorch, where it does: an `except` may take it.

        `arguments`: those that it has there, where they are known.
        """
        super().__init__(detail)
        self.detail, self.fix, self.code, self.expected, self.given = detail, fix, code, expected, given
        self.raises, self.arguments = raises, arguments


class RaisedError(PullbackError):
    """A refusal of what Python or PyTorch refuses as well, so that the program's own `except` may take it.

    Attributes:
        raises: Python's name of the exception.
        instance: the object of the program that was raised, where it was one of its own.
        arguments: what Python's own exception has as its `args`; None where that is not known.
    """

    raises: str
    instance: Any = None
    arguments: tuple[Any, ...] | None = None


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
        waits: it has an `except`, or a `with` of its own, which may take what is refused.
    """

    tree: ast.Module
    lines: tuple[str, ...]
    margins: tuple[int, ...]
    ignored: dict[int, str]
    problems: list[PullbackError] = field(default_factory=list)
    unreadable: set[int] = field(default_factory=set)
    waits: bool = False
    _excerpts: dict[tuple[Any, ...], str] = field(default_factory=dict)
    _own_names: dict[ast.AST, frozenset[str]] = field(default_factory=dict)
    _yields: WeakKeyDictionary[ast.AST, bool] = field(default_factory=WeakKeyDictionary)  # some nodes are made for one call

    def place(self, node: ast.AST) -> tuple[int, int]:
        """Line and column of `node`, from 1, as an editor counts them."""
        line = getattr(node, "lineno", 1)
        offset = getattr(node, "col_offset", 0)
        text = self.lines[line - 1] if line <= len(self.lines) else ""
        column = offset if text.isascii() else len(text.encode()[:offset].decode(errors="replace"))
        return line, column + 1 + (self.margins[line - 1] if line <= len(self.margins) else 0)

    def own_names(self, function: ast.FunctionDef | ast.Lambda) -> frozenset[str]:
        """The names that the lines of a function bind."""
        if function not in self._own_names:  # each call of it asks
            body = function.body if isinstance(function, ast.FunctionDef) else []
            self._own_names[function] = bound_names(body)
        return self._own_names[function]

    def yields(self, node: ast.AST) -> bool:
        """Whether a function is a generator, or a statement belongs to one."""
        known = self._yields.get(node)  # each call of it asks, and looking was two fifths of a recursive one
        if known is None:
            known = self._yields[node] = _yields(node)
        return known

    def excerpt(self, node: ast.stmt | ast.expr) -> str:
        """The words of `node` on one line, shortened; of a `for` or `if` its head."""
        key = type(node), node.lineno, node.col_offset, node.end_lineno, node.end_col_offset
        known = self._excerpts.get(key)  # each step of a statement asks for it
        if known is None:
            known = self._excerpts[key] = self._excerpt(node)
        return known

    def _excerpt(self, node: ast.stmt | ast.expr) -> str:
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
            error.raises, error.arguments = refusal.raises, refusal.arguments
        return error


def drops_errors(statement: ast.Try) -> bool:
    """Whether a `return`, `break` or `continue` may leave its `finally`, so that an error goes no further."""
    stack: list[ast.AST] = list(statement.finalbody)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Return | ast.Break | ast.Continue):
            return True
        if not isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            stack += ast.iter_child_nodes(node)
    return False


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
    waits = "except" in clean.text and any(isinstance(node, ast.ExceptHandler) for node in ast.walk(tree))
    waits = waits or (
        "finally" in clean.text and any(isinstance(node, ast.Try) and drops_errors(node) for node in ast.walk(tree))
    )
    waits = waits or "__exit__" in clean.text or "suppress" in clean.text
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
        refused = refused_of(node)
        if refused:
            source.problems.append(source.refused(Refusal(*refused), near))
            source.unreadable.add(id(statement))
            continue
        stack += [(child, depth + 1, near, statement) for child in reversed(children(node))]


def _yields(node: Any) -> bool:
    """Whether a `yield` stands in a function or statement, that of functions within it aside."""
    below = node.body if isinstance(node, ast.FunctionDef | ast.Lambda) else [node]
    stack: list[ast.AST] = list(below) if isinstance(below, list) else [below]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            stack += ast.iter_child_nodes(node)
    return False
