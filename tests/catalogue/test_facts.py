"""Facts of single operations: every name is one of the catalogue or a sign, every value and sentence one of those that are known."""

from __future__ import annotations

import ast
import importlib
import itertools
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, linalg
from torch.nn import functional
from torch.testing._internal.opinfo.core import OpInfo

from app.catalogue.facts import OPERATORS, instead, kinds_of_fact, operations_with, rows, sentence, short, values
from app.catalogue.introspect.opinfos import opinfos
from app.catalogue.kernels.guard import install
from app.catalogue.read import find, operations
from app.errors import PullbackError
from app.program.library.distributions import ANSWERS, DRAWN
from app.query import DTYPE_BYTES
from tests.op_db import SEED, tensors
from tests.test_floors import Module, modules

KNOWN = {short(name) for operation in operations().values() for name in (operation.name, *operation.aliases)}
SENTENCES = sorted({key for row in rows().values() for key in row.get("instead", {}).values() if key})


def test_every_name_is_in_the_catalogue_or_a_sign() -> None:
    assert not set(rows()) - KNOWN - set(OPERATORS.values()) - set(DRAWN)


def _is_known(name: str) -> bool:
    """Whether the catalogue, PyTorch's operators or its primitives have it."""
    spaces = (torch.ops.aten, torch.ops.prims, torch.Tensor, operator)
    return name in KNOWN or any(hasattr(space, name.partition(".")[0]) for space in spaces)


@pytest.mark.parametrize(("name", "place"), values("breaks_at").items())
def test_where_a_step_breaks(name: str, place: int) -> None:
    """At 0 or -1 of this argument some argument has no finite derivative, and at 2 of it each has one."""
    function = getattr(torch, name, None) or getattr(torch.special, name, None) or getattr(operator, name)

    def is_finite(at: float) -> bool:
        args = [torch.tensor(0.5, dtype=torch.float64, requires_grad=True) for _ in range(max(2, place + 1))]
        args[place] = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        return all(bool(torch.isfinite(g)) for g in torch.autograd.grad(function(*args), args))

    assert is_finite(2.0)
    assert not all(is_finite(at) for at in (0.0, -1.0))


@pytest.mark.parametrize(
    ("fact", "defined"),
    [
        ("exponent", lambda x, exponent: x**exponent),
        ("logarithm_to", lambda x, base: x.log() / math.log(base)),
        ("power_of", lambda x, base: base**x),
    ],
)
def test_exponents_and_bases_are_those_of_the_table(fact: str, defined: Callable[[Tensor, float], Tensor]) -> None:
    x = torch.tensor([0.3, 1.0, 7.5], dtype=torch.float64)
    for name, number in values(fact).items():
        torch.testing.assert_close(getattr(torch, name)(x), defined(x, number))


def tables_of_operations(module: Module) -> dict[str, list[str]]:
    """Constant → its strings, of a module's tables by operation: most of them are names of operations."""
    values_of = vars(importlib.import_module(module.name))
    tables = {}
    for node in module.tree.body:
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if isinstance(node, ast.Assign) else None
        value = values_of.get(target.id) if isinstance(target, ast.Name) else None
        names = [name for name in value if isinstance(name, str)] if isinstance(value, frozenset | tuple | dict) else []
        if isinstance(target, ast.Name) and len(names) > 2 and sum(map(_is_known, names)) > 0.6 * len(names):
            tables[target.id] = names
    return tables


def test_tables_of_rules_name_only_what_there_is() -> None:
    """Rules by operation (costs, patterns, exact arithmetic) stand in tables of their rooms; a name that nothing has would never be used."""
    tables = {name: tables_of_operations(module) for name, module in modules().items() if name.startswith("app.engine.")}
    assert sum(map(len, tables.values())) > 30
    bad = [
        f"{name}: {table}: {entry}"
        for name, own in tables.items()
        for table, entries in own.items()
        for entry in entries
        if not _is_known(entry)
    ]
    assert not bad, "\n".join(bad)
    assert not _is_known("sofmax")


# Module or room → why names of operations stand there and not in the table of facts.
BY_OPERATION: dict[str, str] = {
    "app.catalogue.introspect": "how the catalogue itself is made",
    "app.catalogue.kernels.guard": "kernels of PyTorch's dispatcher, each with its check",
    "app.engine.joint.operators": "ATen operators that a recording may hold",
    "app.engine.planning": "costs and sizes by ATen operator, and functions of PyTorch that the catalogue has not all",
    "app.engine.precision.exact_arithmetic": "rules by ATen operator",
    "app.engine.precision.patterns": "calls of a whole tensor, as its patterns write them",
    "app.engine.precision.random_rounding": "ATen operators that round nothing",
    "app.engine.sparsity": "rules by ATen operator",
    "app.engine.check.mistakes.scale_factors": "of the facts those that one hypothesis leaves out",
    "app.engine.explain.disconnections": "methods of the language that write over a tensor",
    "app.program.packages.numpy_arrays": "methods of arrays that mean something else than PyTorch's",
    "app.program.reading.straight_lines": "what the language's own reading asks of a call",
    **dict.fromkeys(
        (f"app.program.library.{name}" for name in ("attributes", "calls", "inplace", "lookup", "plain")),
        "words of the language that are no operations: methods in place, makers, NumPy's",
    ),
}


def _literal_tables(module: Module) -> Iterator[str]:
    literal = {
        ast.unparse(node.target if isinstance(node, ast.AnnAssign) else node.targets[0])
        for node in module.tree.body
        if isinstance(node, ast.AnnAssign | ast.Assign) and node.value is not None
        if sum(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in ast.walk(node.value)) > 2
    }
    values_of = vars(importlib.import_module(module.name))
    known = {
        name: names
        for name, names in tables_of_operations(module).items()
        if name in literal and not isinstance(values_of[name], dict)  # of functions: rules
    }
    yield from (name for name, names in known.items() if sum(entry in KNOWN for entry in names) > 0.6 * len(names))


def test_facts_of_operations_stand_in_one_table() -> None:
    offenders = [
        f"{module.name}.{table}: a fact of operations belongs into facts.json"
        for module in modules().values()
        if module.name.startswith(("app.engine.", "app.program.", "app.catalogue."))
        and not module.name.startswith(tuple(BY_OPERATION))
        for table in _literal_tables(module)
    ]
    assert not offenders, "\n".join(offenders)


def test_every_row_says_something_of_a_known_kind() -> None:
    for name, row in rows().items():
        assert row, name
        assert set(row) <= set(kinds_of_fact()), name


def test_every_kind_of_fact_has_a_meaning_and_a_source() -> None:
    for kind, about in kinds_of_fact().items():
        assert about["meaning"], kind
        assert len(about["source"]) > 10, kind
        assert values(kind), f"nothing has {kind}"


@pytest.mark.parametrize("kind", [k for k, about in kinds_of_fact().items() if isinstance(about["values"], list)])
def test_values_are_those_of_their_kind(kind: str) -> None:
    allowed = kinds_of_fact()[kind]["values"]
    for name, value in values(kind).items():
        assert all(member in allowed for member in (value if isinstance(value, list) else [value])), name
    assert all(operations_with(kind, value) for value in allowed)


def test_casts_and_conventions_lead_somewhere() -> None:
    assert set(values("casts_to").values()) <= set(DTYPE_BYTES)
    assert all(sentence(key) for kind in ("convention", "degenerate") for key in values(kind).values())


def test_an_unknown_fact_is_no_empty_set() -> None:
    with pytest.raises(KeyError):
        values("smoooth")


@pytest.mark.parametrize("key", SENTENCES)
def test_a_sentence_calls_only_what_the_language_has(key: str) -> None:
    """Each piece of code in it is an expression or an assignment, and its functions are in the catalogue."""
    text = (
        sentence(key)
        .replace("{x}", "x")
        .replace("{dim}", "0")
        .replace("{call}", "sqrt(x)")
        .replace("{safe_call}", "sqrt(safe)")
    )
    for code in (quoted for quoted in re.findall(r"`([^`]*)`", text) if "(" in quoted and not quoted.startswith("GET")):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Call):
                name = _called(node.func)
                try:
                    find(name)
                except PullbackError:
                    assert name in ("eye", *ANSWERS), f"{code}: {name}"  # a factory of the language, a distribution's method


def _called(function: ast.expr) -> str:
    """The name of a method without what it is called on, of a function as it stands."""
    name = ast.unparse(function)
    is_function = isinstance(function, ast.Name) or name.startswith(("torch.", "nn.", "linalg."))
    return name if is_function or not isinstance(function, ast.Attribute) else function.attr


def test_where_nothing_is_known_nothing_is_said() -> None:
    assert instead("kink", "sqrt") is None
    assert instead("boolean", "isnan") is None
    assert instead("integer", "argmax") != instead("integer", "argmin")


def _forward_mode(info: OpInfo, sample: Any) -> str:
    """`missing` where forward mode refuses, `wrong` where ⟨v, Jᵗu⟩ ≠ ⟨Jv, u⟩, else `right`."""
    arguments = [sample.input, *sample.args]
    places = [k for k, a in enumerate(arguments) if isinstance(a, Tensor) and a.is_floating_point()]
    primals = tuple(arguments[k].detach() for k in places)

    def function(*floating: Tensor) -> tuple[Tensor, ...]:
        full = list(arguments)
        for k, value in zip(places, floating, strict=True):
            full[k] = value
        return tuple(t for t in tensors(info.op(*full, **sample.kwargs)) if t.is_floating_point())

    generator = torch.Generator().manual_seed(SEED)
    v = tuple(torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in primals)
    try:
        results, product = torch.func.jvp(function, primals, v)  # type: ignore[misc]
    except (NotImplementedError, RuntimeError):
        return "missing"
    u = tuple(torch.randn(o.shape, dtype=o.dtype, generator=generator) for o in results)
    back = torch.func.vjp(function, *primals)[1](u)
    left = sum((a * b).sum() for a, b in zip(v, back, strict=True))
    right = sum((a * b).sum() for a, b in zip(product, u, strict=True))
    return "right" if torch.allclose(torch.as_tensor(left), torch.as_tensor(right), rtol=1e-6, atol=1e-9) else "wrong"


@pytest.mark.parametrize("name", sorted(values("forward")))
def test_forward_mode_is_missing_or_wrong_where_the_table_says_so(name: str) -> None:
    """Of PyTorch's own samples at least one shows it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = {
            _forward_mode(info, sample)
            for info in opinfos()
            if short(info.name).lstrip("_") == name
            for sample in itertools.islice(info.sample_inputs("cpu", torch.float64, requires_grad=False), 40)
        }
    assert values("forward")[name] in seen


EYE, NAN = torch.eye(2, dtype=torch.float64), torch.full((2, 2), float("nan"), dtype=torch.float64)
ZEROS, COLUMN, GRID = torch.zeros_like(EYE), torch.ones(2, 1, dtype=torch.float64), torch.rand(3, 3, dtype=torch.float64)
WIDE, WIDE_NAN = torch.eye(40, dtype=torch.float64), torch.full((40, 40), float("nan"), dtype=torch.float64)
PLACES, OUTSIDE = torch.tensor([0, 1]), torch.tensor([0, 99])
PIVOTS, WRONG_PIVOTS = torch.tensor([1, 2], dtype=torch.int32), torch.tensor([1, 9], dtype=torch.int32)
LOG_PROBABILITIES = GRID[:, None].log_softmax(-1)
WINDOW = torch.ones(4, dtype=torch.float64)
SPECTRUM = torch.stft(torch.ones(16, dtype=torch.float64), 4, window=WINDOW, return_complex=True)
POLYNOMIALS = ["hermite_polynomial_h", "hermite_polynomial_he", "laguerre_polynomial_l", "legendre_polynomial_p"] + [
    f"{shifted}chebyshev_polynomial_{kind}" for shifted in ("", "shifted_") for kind in "tuvw"
]
# Operation → the call, arguments that it takes, and others of the same shapes that it refuses.
REFUSED: dict[str, tuple[Callable[..., Any], Any, Any]] = {
    "cholesky": (linalg.cholesky, EYE, -EYE),
    **{name: (getattr(torch, name), EYE, ZEROS) for name in ("cholesky_inverse", "inverse")},
    **{name: (getattr(linalg, name), EYE, ZEROS) for name in ("inv", "lu_factor", "ldl_factor")},
    **{name: (getattr(linalg, name), EYE, NAN) for name in ("eig", "svd", "svdvals", "pinv", "matrix_rank", "cond")},
    **{name: (getattr(linalg, name), WIDE, WIDE_NAN) for name in ("eigvals", "eigvalsh")},
    "solve": (lambda a: linalg.solve(a, COLUMN), EYE, ZEROS),
    "tensorinv": (lambda a: linalg.tensorinv(a, ind=1), EYE, ZEROS),
    "tensorsolve": (lambda a: linalg.tensorsolve(a, COLUMN[:, 0]), EYE, ZEROS),
    "lstsq": (lambda a: linalg.lstsq(a, COLUMN), EYE, NAN),
    "lu_solve": (lambda pivots: linalg.lu_solve(EYE, pivots, COLUMN), PIVOTS, WRONG_PIVOTS),
    "ldl_solve": (lambda pivots: linalg.ldl_solve(EYE, pivots, COLUMN), PIVOTS, WRONG_PIVOTS),
    "one_hot": (lambda i: functional.one_hot(i, 2), PLACES, OUTSIDE),
    "embedding": (lambda i: functional.embedding(i, GRID), PLACES, OUTSIDE),
    "embedding_bag": (lambda i: functional.embedding_bag(i[None], GRID), PLACES, OUTSIDE),
    "gather": (lambda i: GRID.gather(1, i[None]), PLACES, OUTSIDE),
    "take": (GRID.take, PLACES, OUTSIDE),
    "take_along_dim": (GRID.take_along_dim, PLACES, OUTSIDE),
    "index_select": (lambda i: GRID.index_select(0, i), PLACES, OUTSIDE),
    "index_add": (lambda i: GRID.index_add(0, i, GRID[:2]), PLACES, OUTSIDE),
    "index_copy": (lambda i: GRID.index_copy(0, i, GRID[:2]), PLACES, OUTSIDE),
    "index_fill": (lambda i: GRID.index_fill(0, i, 1.0), PLACES, OUTSIDE),
    "index_put": (lambda i: GRID.index_put((i,), GRID[0, 0]), PLACES, OUTSIDE),
    "scatter": (lambda i: GRID.scatter(1, i[None], 1.0), PLACES, OUTSIDE),
    "scatter_add": (lambda i: GRID.scatter_add(1, i[None], GRID[:1]), PLACES, OUTSIDE),
    "scatter_reduce": (lambda i: GRID.scatter_reduce(1, i[None], GRID[:1], "sum"), PLACES, OUTSIDE),
    "bincount": (torch.bincount, PLACES, -OUTSIDE),
    "repeat_interleave": (torch.repeat_interleave, PLACES, -OUTSIDE),
    "multinomial": (lambda p: torch.multinomial(p, 1), GRID + 0.1, -GRID - 0.1),
    "bernoulli": (torch.bernoulli, GRID, GRID + 5),
    "normal": (lambda std: torch.normal(GRID, std), GRID, -GRID - 0.1),
    "cross_entropy": (lambda i: functional.cross_entropy(GRID[:2], i), PLACES, OUTSIDE),
    "nll_loss": (lambda i: functional.nll_loss(GRID[:2], i), PLACES, OUTSIDE),
    "multi_margin_loss": (lambda i: functional.multi_margin_loss(GRID[:2], i), PLACES, OUTSIDE),
    "binary_cross_entropy": (lambda p: functional.binary_cross_entropy(p, GRID), GRID, GRID + 5),
    "ctc_loss": (lambda n: functional.ctc_loss(LOG_PROBABILITIES, PLACES[None], n, torch.tensor([2])), torch.tensor([3]), torch.tensor([9])),
    **{name: (getattr(torch, name), EYE, NAN) for name in ("pinverse", "svd_lowrank", "pca_lowrank", "histc")},
    "histogram": (lambda x: torch.histogram(x, 3), EYE, NAN),
    "histogramdd": (lambda x: torch.histogramdd(x, [3, 3]), EYE, NAN),
    "matrix_norm": (lambda a: linalg.matrix_norm(a, "nuc"), EYE, NAN),
    "matrix_power": (lambda a: linalg.matrix_power(a, -1), EYE, ZEROS),
    "cholesky_ex": (lambda a: linalg.cholesky_ex(a, check_errors=True), EYE, -EYE),
    "inv_ex": (lambda a: linalg.inv_ex(a, check_errors=True), EYE, ZEROS),
    "lu_factor_ex": (lambda a: linalg.lu_factor_ex(a, check_errors=True), EYE, ZEROS),
    "ldl_factor_ex": (lambda a: linalg.ldl_factor_ex(a, check_errors=True), EYE, ZEROS),
    "solve_ex": (lambda a: linalg.solve_ex(a, COLUMN, check_errors=True), EYE, ZEROS),
    "lu_unpack": (lambda pivots: torch.lu_unpack(EYE, pivots), PIVOTS, WRONG_PIVOTS),
    "quantile": (lambda q: torch.quantile(GRID, q), GRID[0], GRID[0] + 5),
    "nanquantile": (lambda q: torch.nanquantile(GRID, q), GRID[0], GRID[0] + 5),
    "poisson": (torch.poisson, GRID, -GRID - 0.1),
    "binomial": (lambda n: torch.binomial(n, EYE), EYE, NAN),
    "cov": (lambda weights: GRID[:, :2].cov(fweights=weights), PLACES + 1, -PLACES - 1),
    "index_reduce": (lambda i: GRID.index_reduce(0, i, GRID[:2], "mean"), PLACES, OUTSIDE),
    "put": (lambda i: GRID.put(i, GRID[0, :2]), PLACES, OUTSIDE),
    "narrow": (lambda start: GRID.narrow(0, start, 1), PLACES[0], OUTSIDE[1]),
    "tensor_split": (GRID.tensor_split, PLACES[1], PLACES[0]),
    "searchsorted": (lambda i: torch.searchsorted(GRID[0, :2], GRID[0], sorter=i), PLACES, OUTSIDE),
    "masked_scatter": (lambda mask: GRID.masked_scatter(mask, GRID[0]), GRID > 2, GRID < 2),
    "multilabel_margin_loss": (lambda i: functional.multilabel_margin_loss(GRID[:1, :2], i[None]), PLACES, OUTSIDE),
    "linear_cross_entropy": (lambda i: functional.linear_cross_entropy(GRID[:2], GRID, i), PLACES, OUTSIDE),
    "gaussian_nll_loss": (lambda var: functional.gaussian_nll_loss(GRID, GRID, var), GRID + 0.1, -GRID - 0.1),
    "max_unpool1d": (lambda i: functional.max_unpool1d(GRID[:1, :2], i[None], (2,)), PLACES, OUTSIDE),
    "max_unpool2d": (lambda i: functional.max_unpool2d(GRID[None, :1, :2], i[None, None], (1, 2)), PLACES, OUTSIDE),
    "max_unpool3d": (lambda i: functional.max_unpool3d(GRID[None, None, :1, :2], i[None, None, None], (1, 1, 2)), PLACES, OUTSIDE),
    "fractional_max_pool2d": (
        lambda u: functional.fractional_max_pool2d(GRID[None, None], 2, output_size=2, _random_samples=u[None, None]), EYE[0] / 2, EYE[0] * 5,
    ),
    "fractional_max_pool3d": (
        lambda u: functional.fractional_max_pool3d(WIDE.view(1, 25, 4, 4, 4), 2, output_size=2, _random_samples=u.expand(1, 25, 3)),
        GRID[0] / 2, GRID[0] + 5,
    ),
    "grid_sample": (lambda places: functional.grid_sample(GRID[None, None], places[None, None], align_corners=False), EYE, NAN),
    "segment_reduce": (lambda n: torch.segment_reduce(GRID, "sum", lengths=n), PLACES + 1, OUTSIDE),
    "istft": (lambda window: torch.istft(SPECTRUM, 4, window=window), WINDOW, 0 * WINDOW),
    "polygamma": (lambda x: torch.polygamma(3, x), EYE + 1, -1e12 * EYE - 0.5),
    **{name: (partial(getattr(torch.special, name), EYE), EYE, 1e12 * (EYE + 1)) for name in POLYNOMIALS},
    "lcm": (lambda i: torch.lcm(i, i), PLACES, PLACES - 2**63),
    "div": (lambda i: torch.div(PLACES, i, rounding_mode="floor"), PLACES + 1, PLACES),
    **{name: (partial(getattr(torch, name), PLACES), PLACES + 1, PLACES) for name in ("floor_divide", "fmod", "remainder")},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:index_reduce:UserWarning")
@pytest.mark.parametrize("name", sorted(set(values("refuses_values")) - {"eigh"}))
def test_some_values_are_refused_where_the_table_says_so(name: str) -> None:
    install()
    call, good, bad = REFUSED[name]
    call(good)
    with pytest.raises((RuntimeError, IndexError, ValueError, PullbackError)):
        call(bad)


# How those are called that take more than a tensor.
CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "view": lambda x: x.view(-1), "reshape": lambda x: x.reshape(-1), "T": lambda x: x.T, "transpose": lambda x: x.transpose(0, 1),
    "permute": lambda x: x.permute(1, 0), "unsqueeze": lambda x: x.unsqueeze(0), "expand": lambda x: x.expand(2, *x.shape),
    "stack": lambda x: torch.stack([x, x]), "cat": lambda x: torch.cat([x, x]), "to": lambda x: x.to(torch.float32),
}  # fmt: skip


@pytest.mark.parametrize("name", [*sorted(operations_with("saves_nothing") - {"detach"}), "exp"])
def test_a_second_backward_finds_what_it_needs_where_the_table_says_so(name: str) -> None:
    x = torch.rand(3, 3, dtype=torch.float64, requires_grad=True)
    y = CALLS[name](x) if name in CALLS else getattr(x, name)()
    ones = torch.ones_like(y)
    y.backward(ones)
    if name == "exp":
        with pytest.raises(RuntimeError, match="second time"):
            y.backward(ones)
    else:
        y.backward(ones)
