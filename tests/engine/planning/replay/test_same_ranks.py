"""What was built for other shapes of the same ranks gives the same plan as what is built anew, or is not used."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial, reduce
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, fx

from app.catalogue.read import operations
from app.engine.planning.build import Built, Real, build, leaves_of
from app.engine.planning.prepare import results
from app.engine.planning.replay.same_ranks import SameRanks
from app.engine.planning.replay.steps import Steps
from app.engine.tensors import from_torch, to_torch
from app.errors import PullbackError
from app.program.functions import load
from app.protocols.native import native_query
from app.query import Query
from tests.engine.planning.test_bounded_counter import longer
from tests.pastes.paste import Paste, tensors
from tests.pastes.test_pastes import PASTES
from tests.share import is_whole, share

FUNCTIONS = load(None)


def parts(query: Query) -> tuple[Mapping[str, tuple[int, ...]], Real]:
    leaves = dict(leaves_of(query.inputs))
    shapes = {name: data.shape for name, data in leaves.items()}
    return shapes, lambda dtypes: {name: to_torch(data, "cpu").to(dtypes[name]) for name, data in leaves.items()}


def anew(query: Query) -> Built | None:
    shapes, real = parts(query)
    try:
        return build(query, FUNCTIONS, shapes, real)
    except PullbackError:
        return None


def used(known: SameRanks, query: Query) -> Built | None:
    return known.built(query, *parts(query))


def assert_the_same(known: SameRanks, query: Query) -> bool:
    """True where what is known was used."""
    again, fresh = used(known, query), anew(query)
    if again is None or fresh is None:
        assert again is None or fresh is not None
        return False
    assert (again.cost, again.leaves, results(again)) == (fresh.cost, fresh.leaves, results(fresh))
    assert again.function.outputs == fresh.function.outputs
    assert described(again.function.graph) == described(fresh.function.graph)
    assert again.function.notes == fresh.function.notes
    values = list(parts(query)[1]({leaf.name: leaf.dtype for leaf in fresh.leaves}).values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's deprecations
        torch.manual_seed(0)
        again_outputs = again.function.call(*values)
        torch.manual_seed(0)
        wanted = fresh.function.call(*values)
    for one, other in zip(again_outputs, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    return True


@pytest.mark.parametrize("part", range(3))
def test_operations_are_the_same_for_other_shapes(part: int) -> None:
    count, sizes = 0, (1, 3)
    for turn, operation in enumerate(list(operations().values())[part::3]):
        known = SameRanks()
        example = {**operation.example, "want": ["outputs"], "cotangent": {}, "seed": 0}
        query = native_query.query(example)
        built = anew(query)
        if built is None:
            continue
        known.learn(query, parts(query)[0], built)
        for by in sizes if is_whole() else sizes[turn % 2 :][:1]:
            inputs = {name: longer(value, by) for name, value in operation.example["inputs"].items()}
            count += assert_the_same(known, native_query.query({**example, "inputs": inputs}))
    assert count > (120 if is_whole() else 60)


STRAIGHT = [
    "return (x @ x.T).tanh().sum()", "p = softmax(x, dim=-1)\nreturn -(p * log(p + 2)).sum()",
    "y = x[1:] - x[:-1] ** 2\nreturn 100 * (y * y).mean(dim=0)",
    "h = F.relu(x @ x.mT - 1.5)\nreturn nn.functional.mse_loss(h, h.mean(dim=0, keepdim=True) + h * 0)",
    "torch.logsumexp(x[..., 0], 0) + torch.max(x)",
    "a = x.unsqueeze(0)\nb = a.transpose(0, 1).squeeze()\nreturn b.norm() + torch.einsum('ij,ij->', x, x)",
    "return torch.where(x > 0, x, x.exp()).flatten()",
]  # fmt: skip


@pytest.mark.parametrize("text", STRAIGHT)
def test_programs_in_straight_lines_are_the_same_for_other_shapes(text: str) -> None:
    def query(rows: int, columns: int) -> Query:
        value = torch.linspace(-1, 1, rows * columns).reshape(rows, columns).tolist()
        return native_query.query({"program": text, "inputs": {"x": value}})

    known = SameRanks()
    first = anew(query(2, 3))
    assert first is not None
    known.learn(query(2, 3), parts(query(2, 3))[0], first)
    count = sum(assert_the_same(known, query(rows, columns)) for rows in (2, 3, 5) for columns in (2, 4, 7))
    assert count >= 6


def described(value: Any, index: Mapping[fx.Node, int] = MappingProxyType({})) -> Any:
    """What a graph holds, in words that two readings of one text have in common."""
    if isinstance(value, fx.Graph):
        index = {node: k for k, node in enumerate(value.nodes)}
        return [(*described(node, index), described(node.args, index), described(node.kwargs, index)) for node in value.nodes]
    if isinstance(value, fx.Node):
        return value.op, index[value], value.target if isinstance(value.target, str) else repr(value.target)[:60]
    if isinstance(value, dict):
        return {key: described(member, index) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [described(member, index) for member in value]
    return (*described(value.func, index), described(value.args, index)) if isinstance(value, partial) else (repr(value)[:40],)


def bent(inputs: Mapping[str, Tensor], old: int, new: int) -> dict[str, Tensor]:
    """The inputs with `new` members along every axis that had `old`, the first ones again behind them."""

    def axis(value: Tensor, number: int) -> Tensor:
        return value.index_select(number, torch.arange(new) % old) if value.shape[number] == old else value

    return {name: reduce(axis, range(value.dim()), value) for name, value in inputs.items()}


def of_paste(paste: Paste, inputs: Mapping[str, Tensor]) -> Query:
    sent = {name: from_torch(value) for name, value in inputs.items()}
    return Query(program=paste.text, inputs=sent, parameters=paste.parameters, seed=paste.seed or 0, want=("outputs",))


@pytest.mark.parametrize("part", range(3))
def test_pastes_are_read_alike_for_other_shapes(part: int) -> None:
    """Loops, modules, branches by sizes, writes: what is used again is what reading the text again gives."""
    count = 0
    for paste in share(PASTES[part::3], 15):  # each is read some ten times
        known, inputs = SameRanks(), tensors(paste)
        query = of_paste(paste, inputs)
        first = anew(query)
        if first is None:
            continue
        known.learn(query, parts(query)[0], first)
        extents = {extent for value in inputs.values() for extent in value.shape}
        for old, new in [(extent, other) for extent in extents - {0} for other in (1, extent + 1)]:
            count += assert_the_same(known, of_paste(paste, bent(inputs, old, new)))
    assert count > 7


# Each with shapes of x for which it is read as for [4, 3], and shapes for which it is not.
READINGS = {
    "h = x\nfor i in range(3):\n    h = h * x\nreturn h": ([(5, 3), (4, 7), (1, 1)], []),
    "y = x\nfor i in range(x.shape[0]):\n    y = y * x[i]\nreturn y": ([(4, 5), (4, 1), (5, 3)], [(3, 3)]),
    "return [row.sum() for row in x][0]": ([(4, 9)], [(5, 3)]),
    "return sum(x)": ([(4, 9), (5, 3)], []),
    "a, b = x.chunk(2)\nreturn a": ([(6, 3), (3, 3)], [(1, 3)]),
    "if x.shape[1] > 2:\n    y = x\nelse:\n    y = -x\nreturn y": ([(7, 3)], [(4, 2)]),
    "i, y = 0, x\nwhile i < 5:\n    y = y - 0.1 * y ** 3\n    i += 1\nreturn y": ([(7, 3), (2, 9)], []),
    "i, y = 0, x\nwhile i < len(x):\n    y = y * 0.5\n    i += 1\nreturn y": ([(4, 9)], [(5, 3)]),
    "def f(z):\n    def g(u):\n        return u.sin() * u\n    return g(z) + g(z + 1)\nreturn f(x)": ([(7, 3), (2, 9)], []),
    "return nn.Linear(3, 2)(x).sum()": ([(7, 3), (1, 3)], []),
    "m = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))\nreturn m(x).mean()": ([(9, 3)], []),
    "w = nn.Parameter(torch.zeros_like(x))\nreturn (w + x).sum()": ([], [(4, 2), (5, 3)]),
    "return vmap(lambda r: (r * r).sum())(x)": ([(4, 9)], [(5, 3)]),
    "g = torch.func.grad(lambda z: (z ** 3).sum())\nreturn g(x)": ([(7, 3), (2, 9)], []),
    "y = x.clone()\ny += 1\nreturn y": ([(7, 3), (2, 9)], [(1, 3)]),
    "y = x.reshape(-1)\nz = x * 1\nz[0] = y[:3].sum()\nreturn z": ([(7, 3)], [(1, 3)]),
    "y = x.T.clone()\nz = y.T.reshape(-1)\nz += 1\nreturn y": ([(7, 3)], [(1, 3), (4, 1)]),
    "y = x * 1\ny.mul_(2)\nreturn y": ([(7, 3)], []),
    "if (x.shape == (4, 3)):\n    return x\nreturn x * 2": ([], [(4, 2), (5, 3)]),
    "return x * 2 if x[0].numel() == 3 else x": ([(9, 3)], [(4, 4)]),
    "return x * 2 if x.dim() == 2 and x.dtype == torch.float64 else x": ([(9, 3), (1, 1)], []),
    "return (lambda y: y * len(y))(x)": ([(4, 9), (5, 3)], []),
    "assert x.shape[0] > 3\nreturn x * 2": ([(4, 9), (5, 3)], [(3, 3)]),
    "return x / x.shape[0] + math.sqrt(x.size(-1)) - 1 / len(x) ** 0.5": ([(5, 3), (4, 7), (1, 1)], []),
    "n, m = x.shape\nreturn x.reshape(1, n, -1).expand(2, n, m) + torch.zeros(n, m)": ([(5, 3), (4, 7), (1, 1)], []),
    "n = x.numel()\nreturn x.view(-1)[: n // 2] * torch.arange(n // 2)": ([(5, 4), (2, 7)], []),
    "return x * 2 if x.shape[0] % 2 == 0 else x * 3": ([(6, 3), (2, 3)], [(5, 3)]),
    "n = len(x)\na = 1 / (n - 3)\nb = (n - 3) ** -0.5\nreturn x": ([(5, 3)], [(3, 3), (2, 3)]),
    "n = (len(x) - 3) ** 0.5\nreturn x": ([(5, 3), (3, 3)], [(2, 3)]),
    "return x * max(len(x), 3)": ([(5, 3), (3, 3)], [(2, 3)]),
    "return x * (x.shape[0] - 2) ** 0.5": ([(5, 3), (2, 3)], [(1, 3)]),
    "return x / (x.shape[0] - 2)": ([(5, 3), (1, 3), (2, 3)], []),
    "y = [x * k for k in range(x.shape[1])]\nreturn sum(y) / x.shape[0]": ([(5, 3)], [(4, 2)]),
    "y = x.clone()\ny[: x.shape[0] // 2] *= x.shape[1]\nreturn y": ([(5, 3), (7, 4)], [(1, 3)]),
    "def f(z):\n    return (z * x.shape[0]).sum()\nreturn torch.func.grad(f)(x)": ([(4, 7)], [(5, 3)]),
    "y = (x * len(x)).sum()\ny.backward()\nreturn x.grad": ([(4, 7)], [(5, 3)]),
    "d = {x.shape[0]: x}\nreturn d[x.shape[0]]": ([(4, 7)], [(5, 3)]),
    "return torch.eye(len(x), dtype=x.dtype).roll(x.shape[1], 0) @ x": ([(5, 3), (4, 7)], []),
    "m = nn.Linear(x.shape[1], 2)\nB, C = x.shape\nreturn m(x).view(B, 1, -1)": ([(5, 3)], [(4, 2)]),
    "return x[x.shape[0] - 3]": ([(5, 3), (2, 3)], [(1, 3)]),
    "return x.unsqueeze(0).repeat(*x.shape, 1)": ([(5, 3), (2, 2)], []),
    "return x @ torch.ones(3, 3) + f'{x.shape[0]}'.count('4')": ([], [(5, 3)]),
    "d = torch.utils.data.TensorDataset(x)\nreturn sum(b[0].sum() for b in torch.utils.data.DataLoader(d, batch_size=3))": (
        [(4, 9)], [(7, 3)],
    ),
    "y = x[3:, 2:] ** 2\n(g,) = torch.autograd.grad(y, x)\nreturn g": ([], [(5, 3), (4, 4)]),
    "y = (x[3:] @ x[3:].T) ** 2\n(g,) = torch.autograd.grad(y, x, create_graph=True)\nreturn g": ([(4, 5)], [(5, 3)]),
    "def f(z):\n    return torch.autograd.grad(z[3:, 2:] ** 2, z, create_graph=True)[0].sum()\nreturn torch.func.grad(f)(x)": (
        [], [(5, 3)],
    ),
    "y = x[3:, 2:] ** 2\ny.backward()\nreturn x.grad": ([], [(5, 3)]),
}  # fmt: skip


@pytest.mark.parametrize("text", READINGS)
def test_a_program_is_read_again_where_it_asked_for_a_size(text: str) -> None:
    def query(*shape: int) -> Query:
        value = torch.linspace(-1, 1, shape[0] * shape[1]).reshape(shape).tolist()
        return native_query.query({"program": text, "inputs": {"x": value}, "seed": 0})

    alike, others = READINGS[text]
    known, learnt = SameRanks(), query(4, 3)
    first = anew(learnt)
    if first is not None:
        known.learn(learnt, parts(learnt)[0], first)
    assert [shape for shape in (*alike, *others) if assert_the_same(known, query(*shape))] == alike


def test_each_length_of_a_loop_is_known_beside_the_others() -> None:
    text = "y = x\nfor i in range(x.shape[0]):\n    y = y * x[i]\nreturn y"
    queries = [native_query.query({"program": text, "inputs": {"x": [[0.5, 2.0]] * rows}}) for rows in (2, 3, 4)]
    known = SameRanks()
    for query in queries:
        built = anew(query)
        assert built is not None
        known.learn(query, parts(query)[0], built)
    for rows in (4, 2, 3):
        assert assert_the_same(known, native_query.query({"program": text, "inputs": {"x": [[0.5, 2.0, 3.0]] * rows}}))


def test_how_it_is_run_again_is_drawn_up_while_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_up = 0
    make = Steps.__init__

    def counted(*arguments: Any, **options: Any) -> None:
        nonlocal drawn_up
        drawn_up += 1
        make(*arguments, **options)

    monkeypatch.setattr(Steps, "__init__", counted)
    known = SameRanks()

    def of_shape(number: int, *shape: int) -> Query:
        text = f"y = x[0] * {number}\nfor t in range(len(x)):\n    y = torch.tanh(y + x[t])\nreturn y"
        return native_query.query({"program": text, "inputs": {"x": torch.ones(shape).tolist()}})

    for number in range(12):  # more than are remembered for that
        query = of_shape(number, 4, 3)
        first = anew(query)
        assert first is not None
        known.learn(query, parts(query)[0], first)
    while known.improve():
        pass
    assert drawn_up == 8
    assert not known.improve()
    for shape in ((4, 7), (6, 3)):
        assert assert_the_same(known, of_shape(11, *shape))
    assert drawn_up == 8


def test_a_reading_that_cannot_be_run_for_some_sizes_is_kept_once() -> None:
    def query(rows: int) -> Query:
        return native_query.query({"program": "return (x.unsqueeze(1) * x).sum()", "inputs": {"x": [0.5] * rows}})

    known = SameRanks()
    for rows in (3, 2000, 4, 2100):  # of a large table fakes make the plan
        built = used(known, query(rows))
        assert (built is None) == (rows in (3, 2000, 2100))
        fresh = anew(query(rows))
        assert fresh is not None
        known.learn(query(rows), parts(query(rows))[0], fresh)
    assert [len(readings) for readings in known._known.values()] == [1]


def test_a_program_that_reads_values_is_read_for_each() -> None:
    known = SameRanks()
    for text in ("return x.item()", "if x.sum() > 0:\n    y = x\nelse:\n    y = -x\nreturn y", "return x.tolist()[0] * x"):
        query = native_query.query({"program": text, "inputs": {"x": [2.0]}})
        built = anew(query)
        assert built is not None
        known.learn(query, parts(query)[0], built)
        assert used(known, query) is None


@pytest.mark.parametrize(
    "text", ["return F.dropout(x[2:], 0.5).sum() + x.sum()", "return F.dropout(x.tensor_split([2])[1], 0.5).sum()"]
)
def test_what_draws_nothing_of_an_empty_tensor_is_read_again(text: str) -> None:
    few, more = (native_query.query({"program": text, "inputs": {"x": value}}) for value in ([1.0, 2.0], [1.0, 2.0, 3.0, 4.0]))
    known, built = SameRanks(), anew(few)
    assert built is not None
    known.learn(few, parts(few)[0], built)
    assert anew(more) is None, "it needs a seed"
    assert used(known, more) is None


WHOLE = "if x.is_floating_point():\n    if x.shape[0] > 3:\n        return torch.gcd(x, x)\n    return x / 2\nreturn x * 3"


def test_dtypes_that_a_failure_decided_are_found_again() -> None:
    long, short = (native_query.query({"program": WHOLE, "inputs": {"x": value}}) for value in ([1, 2, 3, 4], [1, 2]))
    known, built = SameRanks(), anew(long)
    assert built is not None
    known.learn(long, parts(long)[0], built)
    assert used(known, short) is None


def test_a_stored_function_is_held_to_its_annotations() -> None:
    def query(rows: int, hidden: int, bias: int) -> Query:
        inputs = {
            "x": [[0.5, 1.0]] * rows, "target": [[1.0]] * rows, "w1": [[0.1] * hidden] * 2, "b1": [0.0] * bias,
            "w2": [[1.0]] * hidden, "b2": [0.5],
        }  # fmt: skip
        return native_query.query({"function": "mlp_loss", "inputs": inputs})

    known = SameRanks()
    first = anew(query(4, 3, 3))
    assert first is not None
    known.learn(query(4, 3, 3), parts(query(4, 3, 3))[0], first)
    assert assert_the_same(known, query(6, 5, 5))
    assert used(known, query(6, 5, 1)) is None
    assert anew(query(6, 5, 1)) is None


def test_other_parameters_dtypes_and_ranks_are_others() -> None:
    def query(value: Any, dim: int) -> Query:
        return native_query.query({"operation": "softmax", "inputs": {"input": value}, "parameters": {"dim": dim}})

    known = SameRanks()
    first = query([1.0, 2.0], 0)
    built = anew(first)
    assert built is not None
    known.learn(first, parts(first)[0], built)
    assert used(known, query([1.0, 2.0, 3.0], 0)) is not None
    for other in (query([1.0, 2.0], -1), query([[1.0, 2.0]], 0), query([1, 2], 0), query([0.5] * 5000, 0)):
        assert used(known, other) is None
