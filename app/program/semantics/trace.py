"""The graph of a program while it grows: every step is added and at once executed on the example tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    UnsupportedOperatorException,
)

from app.catalogue.call import Drawing
from app.catalogue.kernels.ranks import check_arguments, check_result
from app.errors import PullbackError
from app.program.errors import REFUSALS, argument_tensors, refusal
from app.program.function import Step
from app.program.reading.source import Refusal
from app.program.semantics import aliases, questions, sizes, static
from app.program.semantics.aliases import VIEWED, Cell, View, cell_of
from app.program.semantics.graph_values import (
    MultiOutput,
    Value,
    call_node,
    examples_of,
    held,
    is_floating,
    lowered,
    mapped,
    mapped_call,
    mapped_nodes,
    replaced_viewed,
)
from app.program.semantics.randomness import Randomness

STEP_LIMIT: Final = 2_000  # of a program, unrolled: 0.15 s to build where each is `sin` of a small tensor
# Each write through a view goes through all views below it.
VIEW_LIMIT: Final = 64
# Of one step's results: 16 GiB of float64, more than a worker has; above, sizes overflow PyTorch's own arithmetic.
ELEMENT_LIMIT: Final = 1 << 31
DYNAMIC: Final = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)  # the caller builds again, on real tensors


@dataclass(frozen=True, slots=True, eq=False)
class Overwrite:
    """A write into memory that a node showed.

    Attributes:
        node: what showed it until then.
        value: what was written; None where only a part of the memory was.
        at: after how many steps.
    """

    node: fx.Node
    value: fx.Node | None
    step: Step
    at: int


class Trace:
    """One graph. `static` tells whether the examples are fakes, so that no shape in it depends on data.

    Attributes:
        drawing: the nodes that draw random numbers.
        initialising: those of them that give weights their first values.
        grad_enabled: false inside `torch.no_grad()`: what is computed then carries no derivative.
        has_written: the program wrote into a tensor.
        marks: of every node: in a text of NumPy alone each tensor is an array.
        into_input: the first step that wrote into an input with a derivative to follow.
    """

    def __init__(self, budget: static.Budget) -> None:
        self.graph = fx.Graph()
        self.budget = budget
        self.drawing: set[fx.Node] = set()
        self.randomness = Randomness()
        self.initialising: set[fx.Node] = set()
        self.static = True
        self.grad_enabled = True
        self.outputs: tuple[str, ...] = ()
        self.marks: dict[str, bool] = {}
        self.steps, self.has_written = 0, False
        self.into_input: Step | None = None
        self.has_fakes = detect_fake_mode() is not None  # a program without inputs may be read on real tensors, and is static
        self.overwritten: list[Overwrite] = []
        self._memory: list[tuple[fx.Node, fx.Node]] = []
        self._picked: dict[tuple[fx.Node, int], Value] = {}
        self._detached: dict[fx.Node, fx.Node] = {}
        self._last_leaf: fx.Node | None = None

    def leaf(self, index: int, tensor: Tensor) -> fx.Node:
        """The placeholder of an input. Its name in the graph is ours, so that no client's name gets into it."""
        first = next(iter(self.graph.nodes), self.graph._root)
        with self.graph.inserting_after(self._last_leaf) if self._last_leaf else self.graph.inserting_before(first):
            node = self.graph.placeholder(f"leaf{index}")
        self._last_leaf = node
        node.meta.update(self.marks, val=tensor, live=is_floating(tensor))
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
        initial: bool = False,
        exact: bool = False,
    ) -> Value:
        """Adds `target(*args, **kwargs)` as a step.

        Arguments:
            random: it may draw random numbers; whether it does, its kernels tell.
            usage: the operation's signatures, for a call with wrong arguments.
            initial: it gives weights their first values.
            exact: its tensors are nodes as they stand, not objects that may have been written into since.

        Raises:
            Refusal: an argument that no tensor operation takes, PyTorch's refusal, or a bound.
            DataDependentOutputException, DynamicOutputShapeException: under fakes, where data decides a shape.
        """
        for value in (*args, *(kwargs or {}).values()):
            if isinstance(value, list | tuple):
                self.budget.spend(3 * static.members_in(value))
        arguments = (
            tuple([lowered(value, self.read) for value in args]),
            {name: lowered(value, self.read) for name, value in (kwargs or {}).items()},
        )
        write = lambda node: self._appended(step, torch.Tensor.clone, (self.now(node),), {})  # noqa: E731
        arguments = aliases.without_unseen_writes(target, *arguments, write) or arguments
        taken, named = arguments if exact else mapped_call(arguments, self._taken)
        node = self._appended(step, target, taken, named, random, usage)
        node.meta["arguments"] = arguments
        if initial:
            self.initialising.add(node)
        return self._wrapped(node, node.meta["val"], step.operation, arguments)

    def _appended(
        self,
        step: Step,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        random: bool = False,
        usage: Callable[[], str] | None = None,
    ) -> fx.Node:
        if self.steps >= STEP_LIMIT:
            raise Refusal(
                f"The program has more than {STEP_LIMIT:,} steps after its loops are unrolled.",
                "Use operations on whole tensors in the place of loops (`cumsum`, `einsum`, `conv1d`…).",
                code="too_costly",
            )
        self.steps += 1
        sized = args, kwargs
        args, kwargs = sizes.plain(sized)
        sizes.settle_within(target)
        examples = examples_of(args), {name: examples_of(value) for name, value in kwargs.items()}
        if random and self.static and hasattr(target, "draws"):
            result, random = self._execute(step, target, *examples, usage), target.draws
        elif random:
            with Drawing() as drawing:
                result = self._execute(step, target, *examples, usage)
            random = drawing.seen
        else:
            result = self._execute(step, target, *examples, usage)
        node = call_node(self.graph, target, args, kwargs)
        node.meta.update(self.marks, step=step, val=result)
        if sized[0] is not args or sized[1] is not kwargs:
            node.meta["sized"] = sized
        node.meta["live"] = target is not torch.Tensor.detach and any(used.meta.get("live") for used in node.all_input_nodes)
        if random:
            self.randomness.draw()
            self.drawing.add(node)
        return node

    def now(self, identity: fx.Node) -> fx.Node:
        """The node that holds the value of a tensor now, after the writes into it and into what shares its memory."""
        cell = identity.meta.get("cell")
        if cell is None:
            return identity
        aliases.check_known(cell)
        if cell.version != cell.root.writes:
            node = cell.root.node
            step = identity.meta["step"]
            for view in cell.views:
                args, kwargs = replaced_viewed(view, node)
                node = self._appended(step, view.target, *mapped_nodes((args, kwargs), self.now))
                if view.pick is not None:
                    node = self._member(node, view.pick)
                if view.detached and node.meta["live"]:
                    node = self._appended(step, torch.Tensor.detach, (node,), {})
            cell.node, cell.version = node, cell.root.writes
            cell.history.append((self.steps, node))
        return cell.node  # type: ignore[no-any-return]

    def passed_on(self, identity: fx.Node) -> fx.Node:
        """What later steps read of a tensor: its value now, behind the hooks through which its gradient comes."""
        node = self.now(identity)
        while "hooked" in node.meta:
            node = node.meta["hooked"]
        return node

    def write(self, step: Step, identity: fx.Node, value: fx.Node, *, complete: bool = False) -> None:
        """What was computed as `value` is written into the memory of `identity`: its base and all views of it change.

        `complete`: `value` has the derivatives of the tensor before the write already.
        """
        cell = cell_of(identity)
        old = self.now(identity)
        self.has_written = True
        if questions.asked(old, aliases.overlaps):
            raise aliases.unwritable(
                "this tensor: `expand` shows one place in memory as several elements.",
                "Take a copy first: `x = x.clone()`.",
            )
        plain = not self.grad_enabled or any(view.detached for view in cell.views)
        if not plain and self.is_live(identity) and any(view.pick is not None for view in cell.views):
            views = mapped_nodes((aliases.encoded(cell.views),), lambda node: self.now(node).meta["val"])
            aliases.check_own_steps(cell.root.node.meta["val"], views[0])
        if (cell.leaf and self.grad_enabled) or (cell.root.leaf and not plain):
            raise aliases.unwritable(
                "a leaf that requires grad.", "Write into a copy, `y = x.clone()`, or under `torch.no_grad()`."
            )
        node = self.now(value)
        root = cell.root
        if not plain and root.node.op == "placeholder" and root.node.meta["live"]:
            self.into_input = self.into_input or step
        if not any(view.unversioned for view in cell.views):
            self._overwrite(step, root, cell, node)
        if plain and root.node.meta["live"] and not cell.views and not complete:
            node = self._appended(step, aliases.value_only, (old, node), {})
        if root is not cell:
            viewed = old.meta["val"]
            if viewed.dtype != root.node.meta["val"].dtype:
                raise Refusal("Writing into the real or imaginary part is not in the language.", "Write `complex(real, imag)`.")
            through = mapped_nodes((aliases.encoded(cell.views),), self.now)
            whole = self._appended(step, aliases.written_through, (root.node, node, *through), {})
            if plain and root.node.meta["live"]:
                whole = self._appended(step, aliases.value_only, (root.node, whole), {})
            root.node = whole
            root.history.append((self.steps, whole))
        else:
            root.node = node
        root.writes += 1
        root.version = root.writes
        if root is cell or not plain:
            cell.node, cell.version = node, root.writes
            cell.history.append((self.steps, node))

    def _overwrite(self, step: Step, root: Cell, cell: Cell, value: fx.Node) -> None:
        """Notes what shows the memory that is written into: PyTorch's version counters, which `.data` does not share."""
        for each in (root, *root.members):
            if each.version == root.writes and not any(view.unversioned for view in each.views):
                self.overwritten.append(Overwrite(each.node, value if each is cell else None, step, self.steps))

    def rebind(self, identity: fx.Node, value: fx.Node) -> None:
        """The tensor object becomes what `value` is, memory and all: `x.unsqueeze_(0)`, `x.data = y`."""
        self.has_written = True
        source, cell = cell_of(value), cell_of(identity)
        cell.root, cell.views = source.root, source.views
        cell.node, cell.version = self.now(value), source.root.writes
        cell.history.append((self.steps, cell.node))

    def _taken(self, identity: fx.Node) -> fx.Node:
        """What a step is given for a tensor: its value now, cut off from derivatives under `no_grad`."""
        node = self.passed_on(identity)
        if self.grad_enabled or not node.meta["live"] or not isinstance(node.meta["val"], Tensor):
            return node
        if not is_floating(node.meta["val"]):
            return node
        if node not in self._detached:
            step = Step(*self.place, "no_grad")
            self._detached[node] = self._appended(step, torch.Tensor.detach, (node,), {})
        return self._detached[node]

    def is_live(self, identity: fx.Node) -> bool:
        """Whether a derivative may lead to this tensor."""
        return bool(self.now(identity).meta["live"])

    read: Callable[[Value], Value] = staticmethod(lambda value: value)  # gives the tensor of a weight
    place: tuple[int, int, str] = (1, 1, "")  # line, column and text of the statement that is being read

    def pick(self, outputs: MultiOutput, index: int) -> Value:
        """One of several outputs; its node carries the step of the call that made it."""
        key = outputs.node, range(len(outputs.values))[index]
        if key not in self._picked:
            node = self._member(outputs.node, key[1])
            self._picked[key] = self._wrapped(
                node, outputs.values[index], outputs.operation, outputs.node.meta["arguments"], key[1]
            )
        return self._picked[key]

    def _member(self, node: fx.Node, index: int) -> fx.Node:
        member = self.graph.call_function(operator.getitem, (node, index))
        shared: dict[str, Any] = {name: node.meta[name] for name in ("step", "live", "array") if name in node.meta}
        member.meta.update(shared, val=node.meta["val"][index], arguments=((), {}))
        return member

    def finish(self, outputs: dict[str, fx.Node]) -> None:
        """Closes the graph with its named outputs."""
        self.outputs = tuple(outputs)
        self.graph.output(tuple(self.passed_on(node) for node in outputs.values()))
        if self.has_written:  # then who shares memory with whom has decided what the writes changed
            for node, owner in self._memory:
                questions.asked(node, questions.shares_memory, owner)
            for node in self.graph.nodes:
                if "val" in node.meta:
                    questions.asked(node, questions.single_axes)

    def _execute(
        self, step: Step, target: Callable[..., Any], args: Any, kwargs: dict[str, Any], usage: Callable[[], str] | None
    ) -> Any:
        if self.static and self.has_fakes:
            target = getattr(target, "abstract", target)
        tensors = argument_tensors(args, kwargs)
        versions = [tensor._version for tensor in tensors]
        try:
            check_arguments(step.operation, (*args, *kwargs.values()))
            result = target(*args, **kwargs)
            check_result(result)
        except (PullbackError, Refusal, *DYNAMIC):
            raise
        except REFUSALS as error:
            refused = refusal(error, step.operation, [*args, *kwargs.values()], usage)
            if isinstance(error, TypeError):  # the call itself is wrong, whatever the tensors hold
                refused.code = "bad_program"
            raise refused from error
        if [tensor._version for tensor in tensors] != versions:
            raise Refusal(
                f"`{step.operation}` would change its argument in place, and values here never change.",
                "Leave `inplace` out; in training give None as running_mean and running_var.",
            )
        return result

    def _wrapped(self, node: fx.Node, result: Any, operation: str, arguments: Any, pick: int | None = None) -> Value:
        if isinstance(result, Tensor):
            if result.numel() > ELEMENT_LIMIT:
                raise Refusal(
                    f"`{operation}` would make a tensor of {result.numel():,} elements; the limit is {ELEMENT_LIMIT:,}.",
                    "Use smaller sizes.",
                    code="too_costly",
                    expected=f"at most {ELEMENT_LIMIT:,} elements",
                    given=str(list(result.shape)),
                )
            self._share(node, result, arguments, pick)
            return node
        if isinstance(result, list | tuple):
            fields = getattr(type(result), "__match_args__", ()) if isinstance(result, tuple) else ()
            return MultiOutput(node, tuple(result), tuple(fields)[: len(result)], operation)
        if result is None and pick is not None:
            return None
        raise Refusal(
            f"`{operation}` gives a plain value that depends on the tensors, and a program cannot use it.", "Keep to tensors."
        )

    def _share(self, node: fx.Node, result: Tensor, arguments: Any, pick: int | None) -> None:
        """Notes that `node` shows the memory of one of the tensors that its call was given."""
        memory = aliases.storage(result)
        args, kwargs = arguments
        for owner in (*args, *kwargs.values()):
            if not isinstance(owner, fx.Node) or not isinstance(held(owner).meta["val"], Tensor):
                continue
            self._memory.append((node, held(owner)))
            if aliases.storage(held(owner).meta["val"]) != memory:
                continue
            cell = cell_of(owner)
            target = (node.args[0] if pick is not None else node).target  # type: ignore[union-attr]
            shown = mapped(arguments, fx.Node, lambda n: VIEWED if n is owner else n)  # noqa: B023
            if len(cell.views) >= VIEW_LIMIT:
                raise Refusal(
                    f"Views of views are nested more than {VIEW_LIMIT} deep.",
                    "Take a copy: `x = x.clone()`.",
                    code="too_costly",
                )
            detached = target is torch.Tensor.detach or not self.grad_enabled
            data = node.meta["step"].operation == "data"
            view = View(target, shown[0], shown[1], pick, detached, data)  # type: ignore[arg-type]
            node.meta["cell"] = view_cell = aliases.Cell(node, cell.root, (*cell.views, view))
            view_cell.version = cell.root.writes
            cell.root.members.append(view_cell)
            return
