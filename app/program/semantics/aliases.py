"""Which tensors of a program share memory, so that a write into one is seen by all, as in PyTorch.

A graph has no writes: each write makes a new tensor, and what shares its memory is computed again from it when it is next read
(functionalization, as in `torch.func.functionalize`). A tensor's identity is the node that first made it; its `Cell` knows the node
that holds its value now.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import unset_fake_temporarily

from app.catalogue.better.overwriting import lasting, row_major
from app.catalogue.better.tracked import is_differentiated
from app.program.reading.source import Refusal
from app.program.semantics.aside import aside


class _Viewed:
    """Stands in a view's arguments for the tensor that is viewed."""

    def __repr__(self) -> str:
        return "viewed"


VIEWED: Final = _Viewed()


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A call whose result shares memory with one of its arguments.

    Attributes:
        args, kwargs: the call's arguments, `VIEWED` in the place of the tensor.
        pick: index into the call's result, where that is several tensors.
        unversioned: `.data`: PyTorch does not see writes through it.
        detached: no derivative passes it (`detach`, a view made under `no_grad`).
    """

    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    pick: int | None = None
    detached: bool = False
    unversioned: bool = False


class Cell:
    """Where the value of one tensor object is now.

    Attributes:
        node: the node with its value, as of `version` writes into the root.
        root: the cell of the tensor whose memory this is; itself for one that owns it.
        views: how it is seen from the root.
        writes: of a root: writes into its memory so far.
        leaf: the program declared it as a leaf that requires grad (`torch.zeros(3, requires_grad=True)`, `x.detach().requires_grad_()`).
        members: of a root: the cells of what shows its memory.
        copy: what a kernel that writes unseen is given in the place of this tensor.
        unknown: of a root: a kernel wrote into it past its version counter, so that its value is not known any more.
        history: of the identity: (number of the step at which it began, node), for gradients that were taken earlier.
    """

    __slots__ = ("copy", "history", "leaf", "members", "node", "root", "unknown", "version", "views", "writes")

    def __init__(self, node: fx.Node, root: Cell | None = None, views: tuple[View, ...] = ()) -> None:
        self.node = node
        self.root = self if root is None else root
        self.views = views
        self.writes = 0
        self.version = self.root.writes
        self.leaf = False
        self.copy: fx.Node | None = None
        self.unknown = False
        self.members: list[Cell] = []
        self.history: list[tuple[int, fx.Node]] = []


def cell_of(node: fx.Node) -> Cell:
    """The cell of a tensor by its identity; made at the first question."""
    cell: Cell | None = node.meta.get("cell")
    if cell is None:
        cell = node.meta["cell"] = Cell(node)
    return cell


def parted(node: fx.Node, value: fx.Node) -> None:
    """The tensor object leaves its memory, which holds `value`, to all else that shows it: `w.data = other` puts other memory under `w`."""
    cell = cell_of(node)
    root = cell.root
    if root is not cell:
        root.members.remove(cell)
        cell.root, cell.views, cell.node, cell.writes, cell.version = cell, (), value, 0, 0
    elif root.members:
        rest = Cell(value)
        rest.writes = rest.version = root.writes
        rest.members, rest.unknown, root.members = root.members, root.unknown, []
        for member in rest.members:
            member.root = rest


def is_view(part: Any, whole: Any) -> bool:
    """Whether both are tensors that show one memory."""
    return isinstance(part, fx.Node) and isinstance(whole, fx.Node) and cell_of(part).root is cell_of(whole).root


def without_unseen_writes(
    target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], copy: Callable[[fx.Node], fx.Node]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The arguments of a call that writes past version counters, `batch_norm` in training, with copies of its running statistics.

    Their own values are not known from there on. None for every other call.
    """
    if target is not torch.nn.functional.batch_norm or not (args[5] if len(args) > 5 else kwargs.get("training")):
        return None
    buffers = (*args[1:3], kwargs.get("running_mean"), kwargs.get("running_var"))
    cells = {node: cell_of(node) for node in buffers if isinstance(node, fx.Node)}
    for node, cell in cells.items():
        cell.copy = cell.copy or copy(node)
    for cell in cells.values():
        cell.root.unknown = True

    def instead(value: Any) -> Any:
        return cells[value].copy if isinstance(value, fx.Node) and value in cells else value

    return tuple(map(instead, args)), {name: instead(value) for name, value in kwargs.items()}


def check_known(cell: Cell) -> None:
    """Raises a refusal where the memory of a tensor was written into unseen."""
    if cell.root.unknown:
        raise Refusal(
            "`batch_norm` with `training=True` changed these running statistics, and what it left there is not known here.",
            "Use `nn.BatchNorm1d`, `nn.BatchNorm2d`…, whose buffers are followed, or give None as running_mean and running_var.",
        )


def storage(tensor: Tensor) -> int:
    """What two tensors have in common that share memory."""
    pointer: int = tensor.untyped_storage()._cdata
    return pointer


def overlaps(tensor: Tensor) -> bool:
    """Whether several elements are one place in memory, as in what `expand` gives: PyTorch refuses to write there."""
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))


def seen(views: tuple[View, ...], tensor: Tensor) -> Tensor:
    """`tensor` through `views`."""
    for view in views:
        tensor = through(view.target, view.args, view.kwargs, view.pick, tensor)
    return tensor


def through(target: Callable[..., Any], args: Any, kwargs: dict[str, Any], pick: int | None, tensor: Any) -> Any:
    result = target(
        *(tensor if a is VIEWED else a for a in args), **{n: tensor if a is VIEWED else a for n, a in kwargs.items()}
    )
    return result if pick is None else result[pick]


def check_own_steps(base: Tensor, views: tuple[Any, ...]) -> None:
    """Raises PyTorch's refusal to write into what `views` show of `base`, where one step of autograd gave several views.

    Those of `split` are of one step, those of `tensor_split` have one each; which are which PyTorch itself tells.
    """
    with aside(), torch.enable_grad():
        for target, args, kwargs, pick in views:
            shown = through(target, args, dict(kwargs), pick, base.detach().requires_grad_() * 1)
            if pick is not None:
                try:
                    shown.add_(0)
                except RuntimeError:
                    raise unwritable(
                        "one of several views that one call gave (`chunk`, `split`, `unbind`, a loop over rows).",
                        "Write through an index: `y[:, :2] *= 2`, or take a copy: `a = a.clone()`.",
                    ) from None
            base = shown.detach()


def unwritable(what: str, fix: str) -> Refusal:
    """PyTorch's refusal of a write."""
    return Refusal(f"PyTorch refuses to write into {what}", fix, code="operation_failed", raises="RuntimeError")


def encoded(views: tuple[View, ...]) -> tuple[Any, ...]:
    """`views` as an argument of a step: nested tuples, in which nodes are found."""
    return tuple((v.target, v.args, tuple(v.kwargs.items()), v.pick) for v in views)


def written_through(base: Tensor, value: Tensor, views: tuple[Any, ...]) -> Tensor:
    """`base` with the elements that `views` show replaced by `value`, which has the shape of the view.

    The places are found by sending each element's number through the views, so this holds for every view of elements.
    """
    elements = torch.arange(base.numel(), device=base.device).view(base.shape)
    for target, args, kwargs, pick in views:
        elements = through(target, args, dict(kwargs), pick, elements)
    return base.reshape(-1).index_put((elements.reshape(-1),), value.reshape(-1)).view(base.shape)


def _like_base(base: Tensor, value: Tensor, views: tuple[Any, ...]) -> Tensor:
    return torch.empty_like(base)


def _item_checked(tensor: Tensor, index: Any, value: Any) -> Tensor:
    parts = index if isinstance(index, tuple) else (index,)
    checked = torch.empty_like(tensor)
    if any(isinstance(part, Tensor | list | tuple) for part in parts):
        checked[index] = value
        return checked
    with (
        unset_fake_temporarily()
    ):  # one element shown as a whole tensor: its shapes cost no memory, and a tenth of a fake's time
        extents = torch.empty(1, device="cpu").expand(tensor.shape)[index].shape
    sent = list(value.shape) if isinstance(value, Tensor) else []
    while len(sent) > len(extents) and sent[0] == 1:
        del sent[0]
    if len(sent) > len(extents) or any(extent not in (1, extents[-1 - i]) for i, extent in enumerate(reversed(sent))):
        raise RuntimeError(f"shape mismatch: a value of shape {sent} cannot be written into a place of shape {list(extents)}")
    return checked


def item_set(tensor: Tensor, index: Any, value: Any) -> Tensor:
    """`tensor` after `tensor[index] = value`; PyTorch's rules for what may stand there."""
    value = torch.as_tensor(value, dtype=tensor.dtype, device=tensor.device) if not isinstance(value, Tensor) else value
    value = value.to(tensor.dtype)
    if isinstance(index, Tensor) and index.dtype == torch.bool and index.shape == tensor.shape and value.dim() == 0:
        return torch.where(index, value, tensor)
    elements = torch.arange(tensor.numel(), device=tensor.device).view(tensor.shape)[index]
    while value.dim() > elements.dim() and value.shape[0] == 1:
        value = value.squeeze(0)
    value = value.expand(elements.shape)
    if _may_repeat(index) and elements.numel():
        if is_differentiated(value):
            value = lasting(value, elements, tensor.numel())
        elements, value = row_major(elements), row_major(value)
    return tensor.reshape(-1).index_put((elements,), value).view(tensor.shape)


def _may_repeat(index: Any) -> bool:
    """Whether an index can name one place twice: by a list of numbers."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, list) or (isinstance(part, Tensor) and part.dtype != torch.bool) for part in parts)


# What stands for them while a program is read on tensors without values: the shapes, by a tenth of the calls.
written_through.abstract = _like_base  # type: ignore[attr-defined]
item_set.abstract = _item_checked  # type: ignore[attr-defined]


def value_only(old: Tensor, new: Tensor) -> Tensor:
    """The value of `new` with the derivatives of `old`: what a write under `no_grad` leaves behind."""
    return new.detach() + (old - old.detach())
