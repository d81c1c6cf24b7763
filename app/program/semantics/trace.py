"""The graph of a program while it grows: every step is added and at once executed on the example tensors.

Knows fx nodes, the bounds on steps and sizes, and what may be handed to PyTorch. Refuses to know the text and the names in it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    UnsupportedOperatorException,
)

from app.catalogue.call import Drawing
from app.errors import PullbackError
from app.program.errors import REFUSALS, refusal, tensors_in
from app.program.function import Step
from app.program.reading.source import Refusal
from app.program.semantics import static

STEP_LIMIT: Final = 2_000
ELEMENT_LIMIT: Final = 1 << 31
_INTEGER_LIMIT: Final = 1 << 63
# Only the values decide these shapes: the caller builds again, on real tensors.
DYNAMIC: Final = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)

Value = Any  # an fx.Node (a tensor), Several (what an operation with several outputs gives), or a plain Python value


@dataclass(frozen=True, slots=True, eq=False)
class Several:
    """What a call with several outputs gave: `max(x, 1)`, `linalg.svd(a)`, `split(x, 2)`.

    Attributes:
        node: the call.
        values: its results on the example tensors.
        fields: PyTorch's names of them (`values`, `indices`), or () where they have none.
        operation: the catalogue name.
    """

    node: fx.Node
    values: tuple[Any, ...]
    fields: tuple[str, ...]
    operation: str


# Adds one step at the place of the text that is being read: (operation, target, args, kwargs) → value.
Emit = Callable[..., Value]


def is_tensor(value: object) -> bool:
    return isinstance(value, fx.Node)


def example(node: fx.Node) -> Tensor:
    """The tensor that `node` had while building."""
    tensor: Tensor = node.meta["val"]
    return tensor


class Trace:
    """One graph. `static` tells whether the examples are fakes, so that no shape in it depends on data."""

    def __init__(self, budget: static.Budget) -> None:
        self.graph = fx.Graph()
        self.budget = budget
        self.drawing: set[fx.Node] = set()
        self.static = True
        self.outputs: tuple[str, ...] = ()
        self._steps = 0
        self._picked: dict[tuple[fx.Node, int], Value] = {}

    def leaf(self, index: int, tensor: Tensor) -> fx.Node:
        """The placeholder of an input. Its name in the graph is ours, so that no client's name gets into it."""
        node = self.graph.placeholder(f"leaf{index}")
        node.meta["val"] = tensor
        if not isinstance(tensor, FakeTensor):
            self.static = False
        return node

    def call(
        self,
        step: Step,
        target: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        random: bool = False,
        usage: Callable[[], str] | None = None,
    ) -> Value:
        """Adds `target(*args, **kwargs)` as a step.

        Arguments:
            random: it may draw random numbers; whether it does, its kernels tell.
            usage: the operation's signatures, for a call with wrong arguments.

        Raises:
            Refusal: an argument that no tensor operation takes, PyTorch's refusal, or a bound.
            DataDependentOutputException, DynamicOutputShapeException: under fakes, where data decides a shape.
        """
        if self._steps >= STEP_LIMIT:
            raise Refusal(
                f"The program has more than {STEP_LIMIT:,} steps after its loops are unrolled.",
                "Use operations on whole tensors in the place of loops (`cumsum`, `einsum`, `conv1d`…).",
                code="too_costly",
            )
        self._steps += 1
        for value in (*args, *(kwargs or {}).values()):
            if isinstance(value, list | tuple):
                self.budget.spend(3 * static.members_in(value))
        taken, named = tuple(lowered(value) for value in args), {name: lowered(value) for name, value in (kwargs or {}).items()}
        examples = _examples(taken), {name: _examples(value) for name, value in named.items()}
        if random:
            with Drawing() as drawing:
                result = self._execute(step, target, *examples, usage)
            random = drawing.seen
        else:
            result = self._execute(step, target, *examples, usage)
        node = self.graph.call_function(target, taken, named)
        node.meta["step"], node.meta["val"] = step, result
        if random:
            self.drawing.add(node)
        return self._wrapped(node, result, step.operation)

    def pick(self, several: Several, index: int) -> Value:
        """One of several outputs; its node carries the step of the call that made it."""
        key = several.node, range(len(several.values))[index]
        if key not in self._picked:
            node = self.graph.call_function(operator.getitem, (several.node, key[1]))
            node.meta["step"], node.meta["val"] = several.node.meta["step"], several.values[index]
            self._picked[key] = self._wrapped(node, several.values[index], several.operation)
        return self._picked[key]

    def finish(self, outputs: dict[str, fx.Node]) -> None:
        """Closes the graph with its named outputs."""
        self.outputs = tuple(outputs)
        self.graph.output(tuple(outputs.values()))

    def _execute(
        self, step: Step, target: Callable[..., Any], args: Any, kwargs: dict[str, Any], usage: Callable[[], str] | None
    ) -> Any:
        given = list(tensors_in([args, kwargs]))
        versions = [tensor._version for tensor in given]
        try:
            result = target(*args, **kwargs)
        except (PullbackError, Refusal, *DYNAMIC):
            raise
        except REFUSALS as error:
            told = refusal(error, step.operation, [*args, *kwargs.values()], usage)
            if isinstance(error, TypeError):  # the call itself is wrong, whatever the tensors hold
                told.code = "bad_program"
            raise told from error
        if [tensor._version for tensor in given] != versions:
            raise Refusal(
                f"`{step.operation}` would change its argument in place, and values here never change.",
                "Leave `inplace` out; with `training=True` give None as running_mean and running_var.",
            )
        return result

    def _wrapped(self, node: fx.Node, result: Any, operation: str) -> Value:
        if isinstance(result, Tensor):
            if result.numel() > ELEMENT_LIMIT:
                raise Refusal(
                    f"`{operation}` would make a tensor of {result.numel():,} elements; the limit is {ELEMENT_LIMIT:,}.",
                    "Use smaller sizes.",
                    code="too_costly",
                    expected=f"at most {ELEMENT_LIMIT:,} elements",
                    given=str(list(result.shape)),
                )
            return node
        if isinstance(result, list | tuple):
            fields = getattr(type(result), "__match_args__", ()) if isinstance(result, tuple) else ()
            return Several(node, tuple(result), tuple(fields)[: len(result)], operation)
        raise Refusal(
            f"`{operation}` gives a plain value that depends on the tensors, and a program cannot use it.", "Keep to tensors."
        )


def lowered(value: Value) -> Any:
    """`value` as a graph takes it: nodes and plain values; refused where no tensor operation could take it.

    The caller has counted the members of `value` (`static.members_in`).
    """
    if isinstance(value, fx.Node | torch.dtype | str | float | complex | bool) or value is None or value is Ellipsis:
        return value
    if isinstance(value, int):
        if not -_INTEGER_LIMIT <= value < _INTEGER_LIMIT:
            raise Refusal("An integer of more than 64 bits cannot meet a tensor.", "Write a floating-point number.")
        return value
    if isinstance(value, range):
        static.check_length(static.length(value))
        return list(value)
    if isinstance(value, list | tuple):
        members = [lowered(member) for member in value]
        return tuple(members) if isinstance(value, tuple) else members
    if isinstance(value, slice):
        return slice(*(lowered(part) for part in (value.start, value.stop, value.step)))
    if isinstance(value, Several):
        names = " and ".join(f"`.{name}`" for name in value.fields) or "its members by [0], [1]…"
        raise Refusal(f"`{value.operation}` gives several tensors, and one is needed here.", f"Take {names}.")
    raise Refusal(f"{static.named(value).capitalize()} cannot be given to an operation.")


def _examples(value: Any) -> Any:
    if isinstance(value, fx.Node):
        return value.meta["val"]
    if isinstance(value, tuple):
        return tuple(_examples(member) for member in value)
    if isinstance(value, list):
        return [_examples(member) for member in value]
    if isinstance(value, slice):
        return slice(_examples(value.start), _examples(value.stop), _examples(value.step))
    return value


def item_of(owner: list[Value] | tuple[Value, ...] | range, index: Value) -> Value:
    """`owner[index]` of a plain list."""
    parts = (index.start, index.stop, index.step) if isinstance(index, slice) else (index,)
    if any(is_tensor(part) for part in parts):
        raise Refusal("A list cannot be indexed by a tensor.", "Make a tensor of it: `stack(list)[i]`.")
    if not isinstance(index, int | slice):
        raise Refusal(f"A list cannot be indexed by {static.named(index)}.")
    try:
        return owner[index]
    except IndexError as error:
        raise Refusal(f"The index {index} is out of range: the list has {static.length(owner)} members.") from error
    except (TypeError, ValueError) as error:
        raise Refusal(f"This slice does not work on a list: {error}.") from error
