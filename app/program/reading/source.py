"""The text of a program as a tree with places: line, column, and the words that stand there.

Knows the bounds on text and nesting, and what is not in the language with what to write instead. Refuses to know PyTorch and what
any name means.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from dataclasses import dataclass
from typing import Any, Final

from app.errors import PullbackError

TEXT_LIMIT_BYTES: Final = 16 << 10
DEPTH_LIMIT: Final = 100
_EXCERPT_LIMIT: Final = 200

_SYNTAX: Final[tuple[type[ast.AST], ...]] = (
    ast.Module, ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return, ast.For, ast.If, ast.Pass, ast.Break, ast.Continue,
    ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.IfExp, ast.Dict, ast.ListComp, ast.GeneratorExp, ast.comprehension, ast.Compare, ast.Call,
    ast.keyword, ast.Constant, ast.Attribute, ast.Subscript, ast.Starred, ast.Name, ast.List, ast.Tuple, ast.Slice,
    ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip
_IMPORTS: Final = "Leave the line out: every operation is there by its name (`relu`, `torch.relu` and `F.relu` all work)."
_DIFFERENTIATE: Final = 'Ask for derivatives with the query\'s "want".'
# What is not in the language, and what to write instead.
_INSTEAD: Final[dict[type[ast.AST], tuple[str, str]]] = {
    ast.Import: ("`import`", _IMPORTS),
    ast.ImportFrom: ("`import`", _IMPORTS),
    ast.While: ("`while`", "Use `for i in range(n)` with a known n; steps must be known before tensors are run."),
    ast.Lambda: ("`lambda`", "Write the expression where it is needed."),
    ast.FunctionDef: ("an inner `def`", "Write its lines out; only one `def` that wraps the whole program is read."),
    ast.AsyncFunctionDef: ("`async def`", "Write plain statements."),
    ast.ClassDef: ("`class`", "Write plain statements; layers are functions here (`linear(x, weight, bias)`)."),
    ast.With: ("`with`", "Leave it out: gradients are asked for in the query, and `detach(x)` stops one."),
    ast.AsyncWith: ("`async with`", "Leave it out."),
    ast.AsyncFor: ("`async for`", "Use `for`."),
    ast.Try: ("`try`", "Leave it out: an error is reported with its line."),
    ast.Raise: ("`raise`", "Leave it out."),
    ast.Assert: ("`assert`", "Leave it out: shapes are checked by the operations."),
    ast.Delete: ("`del`", "Leave it out: memory is freed by itself."),
    ast.Global: ("`global`", "Names are inputs, parameters and your own assignments."),
    ast.Nonlocal: ("`nonlocal`", "Names are inputs, parameters and your own assignments."),
    ast.NamedExpr: ("`:=`", "Assign on a line of its own."),
    ast.JoinedStr: ("an f-string", "Strings are only names of modes (`reduction=\"sum\"`) and keys of the returned dict."),
    ast.Set: ("a set", "Use a list or a tuple."),
    ast.SetComp: ("a set comprehension", "Use a list comprehension."),
    ast.DictComp: ("a dict comprehension", "Write the dict out."),
    ast.Yield: ("`yield`", "Append to a list."),
    ast.YieldFrom: ("`yield`", "Append to a list."),
    ast.Await: ("`await`", "Leave it out."),
    ast.Match: ("`match`", "Use `if` / `elif` on known values."),
}  # fmt: skip


class Refusal(Exception):  # noqa: N818 (it is no error yet: PullbackError is)
    """A refusal that does not know its place yet; the reader of the tree adds line and column."""

    def __init__(
        self, detail: str, fix: str | None = None, *, code: str = "bad_program", expected: str | None = None, given: Any = None
    ) -> None:
        super().__init__(detail)
        self.detail, self.fix, self.code, self.expected, self.given = detail, fix, code, expected, given


@dataclass(frozen=True, slots=True)
class Source:
    """A text that was read.

    Attributes:
        tree: its statements.
        lines: its lines, without common indentation.
        margin: the columns of indentation that were taken off.
    """

    tree: ast.Module
    lines: tuple[str, ...]
    margin: int

    def place(self, node: ast.AST) -> tuple[int, int]:
        """Line and column of `node`, from 1, as an editor counts them."""
        line = getattr(node, "lineno", 1)
        offset = getattr(node, "col_offset", 0)
        text = self.lines[line - 1] if line <= len(self.lines) else ""
        column = offset if text.isascii() else len(text.encode()[:offset].decode(errors="replace"))
        return line, column + 1 + self.margin

    def excerpt(self, node: ast.stmt | ast.expr) -> str:
        """The words of `node` on one line, shortened; of a `for` or `if` its head."""
        first, last = node.lineno, node.end_lineno or node.lineno
        if isinstance(node, ast.For | ast.If):
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
        return PullbackError(
            refusal.code,
            f"Line {line}, column {column}: {refusal.detail}",
            at=f"{line}:{column}",
            expected=refusal.expected,
            given=refusal.given,
            fix=refusal.fix,
        )


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
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    flush = textwrap.dedent(plain)
    first = re.search(r"^[ \t]*\S", plain, re.M)
    after = re.search(r"^[ \t]*\S", flush, re.M)
    margin = (len(first.group()) - len(after.group())) if first and after else 0
    source = Source(_parse(flush, margin), tuple(flush.split("\n")), margin)
    _check(source)
    return source


def _parse(text: str, margin: int) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser warns of odd literals
            return ast.parse(text)
    except SyntaxError as error:
        line, column = error.lineno or 1, max(error.offset or 1, 1) + margin
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
    """The one `def` that holds the whole program; a docstring may stand before it."""
    *before, last = tree.body or [ast.Pass()]
    texts = all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in before)
    return last if isinstance(last, ast.FunctionDef) and texts else None


def _check(source: Source) -> None:
    """Refuse whatever the language lacks, before anything is built."""
    top = source.tree.body
    whole = wrapper(source.tree)
    stack: list[tuple[ast.AST, int, ast.AST]] = [(node, 1, node) for node in top]
    while stack:
        node, depth, near = stack.pop()
        near = node if hasattr(node, "lineno") else near
        if depth > DEPTH_LIMIT:
            line, column = source.place(near)
            raise _too_deep(f"{line}:{column}")
        if whole is not None and node is whole:
            _check_wrapper(source, whole)
            stack += [(child, depth, child) for child in whole.body]
            continue
        refusal = _not_in_language(node)
        if refusal:
            raise source.refused(refusal, near)
        stack += [(child, depth + 1, near) for child in ast.iter_child_nodes(node)]


def _not_in_language(node: ast.AST) -> Refusal | None:
    if not isinstance(node, _SYNTAX):
        what, fix = _INSTEAD.get(
            type(node), (f"`{type(node).__name__}`", "Use assignments, operators and calls of operations.")
        )
        return Refusal(f"{what} is not in the language.", fix)
    if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
        return Refusal("Bytes are not in the language.", "Use numbers or a string.")
    if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
        return Refusal(f"`.{node.attr}` is not in the language: no attribute starts with an underscore.")
    if isinstance(node, ast.Name) and node.id.startswith("__"):
        return Refusal(f"`{node.id}` is not in the language: no name starts with two underscores.")
    if isinstance(node, ast.keyword) and node.arg is None:
        return Refusal("`**` in a call is not in the language.", "Write the keyword arguments out.")
    if isinstance(node, ast.keyword) and node.arg and node.arg.startswith("_"):
        return Refusal(f"The argument `{node.arg}` is not in the language: no argument starts with an underscore.")
    if isinstance(node, ast.Dict) and None in node.keys:
        return Refusal("`**` in a dict is not in the language.", "Write the entries out.")
    if isinstance(node, ast.For) and node.orelse:
        return Refusal("`else` after a loop is not in the language.", "Write those lines after the loop.")
    return _starred(node)


def _starred(node: ast.AST) -> Refusal | None:
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.For | ast.comprehension):
        targets = [node.target]
    for target in targets:
        if any(isinstance(part, ast.Starred) for part in ast.walk(target)):
            return Refusal(
                "`*` in an assignment is not in the language.", "Name each part, or slice: `first, rest = x[0], x[1:]`."
            )
    return None


def _check_wrapper(source: Source, function: ast.FunctionDef) -> None:
    arguments = function.args
    if function.decorator_list:
        raise source.refused(Refusal("Decorators are not in the language.", "Leave it out."), function.decorator_list[0])
    if arguments.vararg or arguments.kwarg:
        raise source.refused(Refusal("`*args` and `**kwargs` are not in the language.", "Name each argument."), function)
    for node in ast.walk(ast.Module(function.body, [])):
        if isinstance(node, ast.Name) and node.id == function.name:
            raise source.refused(
                Refusal(f"`{function.name}` calls itself, and the language has no recursion.", "Use a `for` loop."), node
            )
