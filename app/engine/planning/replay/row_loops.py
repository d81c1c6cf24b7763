"""Programs that loop over the rows of an input: which they are, and which steps of what was built are which turn.

A turn of such a loop is straight lines that make every tensor they keep anew, and its number means nothing but a row. So what a turn is
read as hangs on the ranks and dtypes of what the turn before it left; where two turns, one after the other, are alike, all later ones are.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Collection
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, NamedTuple, cast

from torch import fx

from app.engine.planning.replay.registers import form
from app.program.function import Function
from app.program.graph_runner import GraphRunner
from app.program.reading.straight_lines import is_straight
from app.program.resized import Turns

_TEXTS: Final = 1024  # that are remembered: as many as in straight_lines.py
# The third turn is the pattern of more: the first may begin with something else than what a turn leaves, the second is compared with it, and
# what all turns take ends with the last.
_PATTERN: Final = 2
_TURNS: Final = 4
# Of all turns together, and expressions that they evaluate: a quarter and a tenth of what a program may have, so that whoever comes near to
# that is read, and refused in its words.
_STEPS: Final = 500
_EXPRESSIONS: Final = 20_000
_SEVERAL: Final = frozenset({"slogdet", "max", "min"})  # operations that may give more than a tensor


class RowLoop(NamedTuple):
    """The loop of a text.

    Attributes:
        rows: the input that has as many rows as the loop has turns.
        indexed: inputs of which each turn takes the row of its number.
        lines: of its turns.
        expressions: of a turn.
    """

    rows: str
    indexed: frozenset[str]
    lines: range
    expressions: int


@lru_cache(maxsize=_TEXTS)
def row_loop(text: str, tensors: frozenset[str], numbers: frozenset[str]) -> RowLoop | None:
    """The loop of a program; None where it is not plain to see that it is one over rows in straight lines.

    Arguments:
        tensors: names of inputs that are tensors; numbers: of parameters that are numbers.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    loops = [statement for statement in tree.body if isinstance(statement, ast.For)]
    if len(loops) != 1 or not isinstance(loops[0].target, ast.Name) or loops[0].orelse:
        return None
    (loop,), turn, rows = loops, loops[0].target.id, _counted(loops[0].iter)
    taken = [node for line in loop.body for node in ast.walk(line) if isinstance(node, ast.Subscript) and _is_row(node, turn)]
    indexed = frozenset(node.value.id for node in taken if isinstance(node.value, ast.Name))
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    assigned = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    are_inputs = rows in tensors and indexed <= tensors and assigned.isdisjoint({*indexed, rows, "range", "len"})
    is_row_alone = sum(node.id == turn for node in names) == 1 + len(taken)
    lines = range(loop.lineno, (loop.end_lineno or loop.lineno) + 1)
    others = [statement for statement in tree.body if statement is not loop]
    are_apart = all(each.lineno not in lines and (each.end_lineno or 0) not in lines for each in others)
    if not (are_inputs and is_row_alone and are_apart and _keeps_tensors(tree.body, loop, tensors, numbers)):
        return None
    for node in taken:
        node.slice = ast.Constant(0)
    straight = [line for each in tree.body for line in (each.body if each is loop else [each])]
    unrolled = ast.unparse(ast.fix_missing_locations(ast.Module(straight, [])))
    expressions = sum(len(list(ast.walk(line))) for line in loop.body)
    return RowLoop(str(rows), indexed, lines, expressions) if is_straight(unrolled) else None


def _counted(header: ast.expr) -> str | None:
    """`x` of `range(len(x))`, `range(x.shape[0])` and `range(x.size(0))`."""
    match header:
        case ast.Call(
            ast.Name("range"),
            [
                ast.Call(ast.Name("len"), [ast.Name(rows)], [])
                | ast.Subscript(ast.Attribute(ast.Name(rows), "shape"), ast.Constant(0))
                | ast.Call(ast.Attribute(ast.Name(rows), "size"), [ast.Constant(0)], [])
            ],
            [],
        ):
            return rows
    return None


def _is_row(node: ast.AST, turn: str) -> bool:
    """Whether it is `x[t]`, read."""
    match node:
        case ast.Subscript(ast.Name(), ast.Name(number), ast.Load()):
            return number == turn
    return False


def _keeps_tensors(body: list[ast.stmt], loop: ast.For, tensors: Collection[str], numbers: Collection[str]) -> bool:
    """Whether each line of a turn binds tensors that it makes: a number that a turn leaves might be another for each.

    Of tensors and numbers alone: a list might be long, and a program may take only so many members in all.
    """
    known, plain = set(tensors), set(numbers)
    for statement in body[: body.index(loop)]:
        if isinstance(statement, ast.Assign):
            names = _targets(statement)
            is_tensor, is_number = _is_tensor(statement.value, known), _is_number(statement.value, plain)
            known = known.union(names) if is_tensor else known.difference(names)
            plain = plain.union(names) if is_number else plain.difference(names)
    for statement in loop.body:
        if not isinstance(statement, ast.Assign) or isinstance(statement.value, ast.Name):
            return False
        called = {id(_root(node.func)) for node in ast.walk(statement) if isinstance(node, ast.Call)}
        read = [node for node in ast.walk(statement.value) if isinstance(node, ast.Name) and id(node) not in called]
        kinds = {*known, *plain, *_targets(loop)}
        if not _is_tensor(statement.value, known) or any(node.id not in kinds for node in read) or _has_lists(statement):
            return False
        known.update(_targets(statement))
        plain.difference_update(_targets(statement))
    return True


def _root(called: ast.expr) -> ast.expr:
    """`torch` of `torch.linalg.norm`."""
    while isinstance(called, ast.Attribute):
        called = called.value
    return called


def _has_lists(statement: ast.stmt) -> bool:
    """Whether a list or tuple stands in it other than as an index or an argument as it is."""
    operands = [side for node in ast.walk(statement) if isinstance(node, ast.BinOp) for side in (node.left, node.right)]
    return any(isinstance(side, ast.List | ast.Tuple | ast.Constant) and not _is_number(side, ()) for side in operands)


def _is_number(value: ast.expr, known: Collection[str]) -> bool:
    match value:
        case ast.Constant(number):
            return isinstance(number, int | float)
        case ast.Name(name):
            return name in known
        case ast.UnaryOp(_, operand):
            return _is_number(operand, known)
        case ast.BinOp(left, _, right):
            return _is_number(left, known) and _is_number(right, known)
    return False


def _targets(statement: ast.Assign | ast.For) -> list[str]:
    targets = [statement.target] if isinstance(statement, ast.For) else statement.targets
    return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]


def _is_tensor(value: ast.expr, known: Collection[str]) -> bool:
    """Whether an expression of a straight line gives one tensor, where names that are `known` do."""
    match value:
        case ast.Name(name):
            return name in known
        case ast.Subscript(owner) | ast.UnaryOp(_, owner) | ast.Attribute(owner, "T" | "mT"):
            return _is_tensor(owner, known)
        case ast.BinOp(left, _, right):
            return _is_tensor(left, known) or _is_tensor(right, known)
        case ast.Call(ast.Attribute(owner, name), arguments):
            first = [owner, *arguments[:1]]
            return name not in _SEVERAL and any(_is_tensor(each, known) for each in first)
        case ast.Call(ast.Name(name), arguments):
            return name not in _SEVERAL and any(_is_tensor(each, known) for each in arguments[:1])
    return False


class Loop(NamedTuple):
    """The turns of a loop in a Function that was built.

    Attributes:
        rows: the placeholder of the input whose rows are counted; counted: its number among the inputs; indexed: the numbers of those of
            which rows are taken.
        length: how many turns it has.
        before: the turn before the pattern of more; `turns`: that pattern.
        position: of its first call among all calls.
        steps: of the Function; expressions: of a turn.
    """

    rows: fx.Node
    counted: int
    indexed: tuple[int, ...]
    length: int
    before: tuple[fx.Node, ...]
    turns: Turns
    position: int
    steps: int
    expressions: int

    def may_have(self, more: int) -> bool:
        """Whether it is far from what a program may have with so many turns more."""
        steps = self.steps + more * len(self.turns.nodes)
        return steps <= _STEPS and (self.length + more) * self.expressions <= _EXPRESSIONS


def loop_of(function: Function, loop: RowLoop) -> Loop | None:
    """The turns of a Function of a program; None where they are not alike from the second on."""
    needed = cast(GraphRunner, function.call).steps
    nodes = list(function.graph.nodes)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    calls = [node for node in nodes if node.op == "call_function"]
    if function.random or function.initial is not None or function.notes or function.remarks or function.printed is not None:
        return None
    within = [node for node in calls if node.meta["step"].line in loop.lines]
    counted = function.leaves.index(loop.rows)
    count = placeholders[counted].meta["val"].shape[0]
    if count < _TURNS or not within or len(within) % count:
        return None
    start, length = calls.index(within[0]), len(within) // count
    if calls[start : start + len(within)] != within:
        return None
    turns = [tuple(within[number * length : (number + 1) * length]) for number in range(count)]
    last = set(within) - set(turns[-1])
    if any(not last.isdisjoint(node.all_input_nodes) for node in (*calls[start + len(within) :], nodes[-1])):
        return None
    indexed = tuple(function.leaves.index(name) for name in sorted(loop.indexed))
    rows = [_rows(turn, number, {placeholders[each] for each in indexed}) for number, turn in enumerate(turns)]
    described = [
        _described(turns[number], turns[number - 1], set(rows[number]), within, needed if number <= _PATTERN else ())
        for number in range(1, count)
    ]
    are_alike = all(one[0] == other[0] for one, other in pairwise(described)) and described[0] == described[1]
    if not are_alike or any("asked" in node.meta or "sized" in node.meta for node in within):
        return None
    before, pattern = turns[_PATTERN - 1], turns[_PATTERN]
    taken = {source for node in pattern for source in node.all_input_nodes}
    handed_on = {one: other for one, other in zip(before, pattern, strict=True) if one in taken}
    return Loop(
        placeholders[counted],
        counted,
        indexed,
        count,
        before,
        Turns(pattern, handed_on, tuple(rows[_PATTERN:])),
        start + _PATTERN * length,
        len(calls),
        loop.expressions,
    )


def _rows(turn: tuple[fx.Node, ...], number: int, inputs: Collection[fx.Node]) -> tuple[fx.Node, ...]:
    """The calls of a turn that take the row of its number."""
    return tuple(
        node
        for node in turn
        if node.target is operator.getitem and node.args[0] in inputs and type(node.args[1]) is int and node.args[1] == number
    )


def _described(
    turn: tuple[fx.Node, ...],
    before: tuple[fx.Node, ...],
    rows: Collection[fx.Node],
    others: Collection[fx.Node],
    needed: Collection[fx.Node],
) -> tuple[Any, Any]:
    """What a turn is, so that it is equal to what another is where they are alike; and which of its steps are `needed`."""
    own = {node: ("own", position) for position, node in enumerate(turn)}
    known = {node: ("before", position) for position, node in enumerate(before)} | own

    def part(value: Any) -> Any:
        if isinstance(value, fx.Node):
            return known.get(value, ("far", value) if value in others else ("always", value))
        if isinstance(value, tuple | list):
            return type(value).__name__, *map(part, value)
        if isinstance(value, slice):
            return slice, part(value.start), part(value.stop), part(value.step)
        if isinstance(value, dict):
            return dict, *[(name, part(member)) for name, member in value.items()]
        return type(value), repr(value)

    steps = [
        (node.target, part(node.args[:1] if node in rows else node.args), node in rows, part(node.kwargs), *_marks(node))
        for node in turn
    ]
    return steps, [node in needed for node in turn]


def _marks(node: fx.Node) -> tuple[Any, ...]:
    return node.meta["step"], node.meta["live"], form(node.meta["val"])
