"""The derivatives agree with each other, over the whole catalogue: vjp with jvp, jacobian with both, hessian with hvp."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from app.catalogue.entry import Operation
from app.catalogue.read import operations
from app.engine.planning.build import leaves_of
from app.errors import PullbackError
from app.limits import Limits
from app.protocols.native import bodies
from app.query import Query, TensorData
from tests.engine.asking import ENGINE, Array, array, data

# Casts to a narrower dtype: their results are too coarse to compare.
COARSE = ("bfloat16", "half", "float", "cfloat", "type_as", "chalf")
# Where PyTorch's reverse and forward modes answer two different questions.
GAUGE = "eigenvectors and singular vectors are determined up to a phase; only losses that do not see it have a derivative"
TRIANGLE = "only one triangle of the matrix is read, and the derivative is that of the symmetric matrix it stands for"
APART = {
    "linalg.eig": GAUGE, "linalg.eigh": GAUGE, "linalg.svd": GAUGE, "svd": GAUGE, "cholesky": TRIANGLE, "linalg.cholesky": TRIANGLE,
    "linalg.cholesky_ex": TRIANGLE, "triangular_solve": TRIANGLE,
    "nn.functional.ctc_loss": "its backward is of log_softmax and the loss together (it takes log_probs to be normalised)",
    "polar": "its reverse mode takes the absolute value to be positive, and the example has a negative one",
    "histogramdd": "no forward mode and no second derivative",
}  # fmt: skip
DIFFERENTIABLE = [
    operation for operation in operations().values() if operation.order >= 1 and operation.name not in (*COARSE, *APART)
]
TWICE = [operation for operation in DIFFERENTIABLE if operation.order >= 2]


def example(operation: Operation) -> Query:
    """The operation's own example, as the engine gets it."""
    return bodies.read(memoryview(json.dumps(operation.example).encode()), None, None, Limits())


def _vector(rng: np.random.Generator, like: TensorData) -> TensorData:
    values = rng.standard_normal(like.shape)
    if like.dtype.startswith("complex"):
        values = values + 1j * rng.standard_normal(like.shape)
    return data(values.astype(like.dtype))


def _pairing(left: dict[str, Array], right: dict[str, Array]) -> float:
    """The real inner product over all members: Re Σ conj(a)·b."""
    return float(sum(np.sum(np.conj(left[name]) * right[name]).real for name in left))


def _answer(query: Query, **changes: Any) -> Any:
    fields = {name: getattr(query, name) for name in Query.__slots__} | changes
    return ENGINE.answer(Query(**fields))


def _arrays(tree: dict[str, TensorData]) -> dict[str, Array]:
    return {name: array(value) for name, value in tree.items()}


@pytest.mark.parametrize("operation", DIFFERENTIABLE, ids=lambda operation: operation.name)
def test_vjp_jvp_and_jacobian_agree(operation: Operation) -> None:
    """⟨u, J·v⟩ = ⟨Jᵗ·u, v⟩, and the Jacobian's rows and columns give both."""
    query = example(operation)
    rng = np.random.default_rng(7)
    plain = _answer(query, want=("vjp", "jvp"), cotangent={}, tangent={})
    tangent = {name: _vector(rng, value) for name, value in plain.results["vjp"].items()}
    cotangent = {name: _vector(rng, value) for name, value in plain.results["jvp"].items()}
    answered = _answer(query, want=("vjp", "jvp", "jacobian"), cotangent=cotangent, tangent=tangent).results
    u, v = _arrays(cotangent), _arrays(tangent)
    step_vjp, pushed = _arrays(answered["vjp"]), _arrays(answered["jvp"])
    forward, backward = _pairing(u, pushed), _pairing(step_vjp, v)
    scale = 1 + sum(float(np.abs(x).sum()) for x in (*step_vjp.values(), *pushed.values()))
    single = any(t.dtype == "float32" for _, t in leaves_of(query.inputs))
    assert abs(forward - backward) <= (1e-6 if single else 1e-9) * scale, (forward, backward)
    if any(np.iscomplexobj(a) for a in (*u.values(), *v.values())):
        return  # ∂f/∂z says it all only of holomorphic functions; tests/engine/test_complex.py has those
    for output, blocks in answered["jacobian"].items():
        product = sum(
            np.tensordot(array(block), v[name], axes=v[name].ndim) if v[name].ndim else array(block) * v[name]
            for name, block in blocks.items()
        )
        np.testing.assert_allclose(
            product, pushed[output], rtol=1e-5 if single else 1e-8, atol=(1e-6 if single else 1e-9) * scale
        )


@pytest.mark.parametrize("operation", TWICE, ids=lambda operation: operation.name)
def test_hessian_is_symmetric_and_agrees_with_hvp(operation: Operation) -> None:
    """Of Σ c·f(x), written as a program around the operation's example, c fixed and generic."""
    query = example(operation)
    outputs = _answer(query, want=("outputs",)).results["outputs"]
    outputs_jvp = _answer(query, want=("jvp",), tangent={}).results["jvp"]
    name, value = next(((n, o) for n, o in outputs_jvp.items() if o.dtype == "float64"), (None, None))
    if name is None or value is None:
        pytest.skip("no output in float64: rounding or complex numbers would blur the comparison")
    scalar = _weighted(operation, query, name, tuple(outputs), value)
    if scalar is None:
        pytest.skip("the operation's arguments cannot be written as one call")
    rng = np.random.default_rng(11)
    try:
        first = ENGINE.answer(Query(**scalar, want=("gradient",)))
    except PullbackError as error:
        if error.code == "bad_program" and "missing" in error.detail:
            pytest.skip("the public function has arguments without a default that the example leaves out")
        raise
    tangent = {leaf: _vector(rng, g) for leaf, g in first.results["gradient"].items()}
    answered = ENGINE.answer(Query(**scalar, want=("hessian", "hvp"), tangent=tangent)).results
    hessian, product = answered["hessian"], _arrays(answered["hvp"])
    v = _arrays(tangent)
    for row, blocks in hessian.items():
        size = v[row].size
        matrix = {column: array(block).reshape(size, -1) for column, block in blocks.items()}
        total = sum(matrix[column] @ v[column].ravel() for column in matrix)
        scale = 1 + max(float(np.abs(m).max(initial=0)) for m in matrix.values())
        np.testing.assert_allclose(total, product[row].ravel(), rtol=1e-7, atol=1e-8 * scale)
        for column, block in matrix.items():
            mirrored = array(hessian[column][row]).reshape(-1, size)
            np.testing.assert_allclose(block, mirrored.T, rtol=1e-6, atol=1e-8 * scale)


def _weighted(
    operation: Operation, query: Query, output: str, names: tuple[str, ...], value: TensorData
) -> dict[str, Any] | None:
    """A program `(c * operation(…)).sum()` with the example's arguments by keyword."""
    inputs: dict[str, TensorData] = {}
    words = []
    for index, (name, sent) in enumerate(query.inputs.items()):
        if isinstance(sent, TensorData):
            inputs[f"in_{name}"] = sent
            words.append(f"in_{name}" if index == 0 else f"{name}=in_{name}")
        else:
            inputs |= {f"in_{name}_{k}": member for k, member in enumerate(sent)}
            words.append(f"{name}=[{', '.join(f'in_{name}_{k}' for k in range(len(sent)))}]")
    words += [f"{name}={_literal(parameter)}" for name, parameter in query.parameters.items()]
    first = next(iter(query.inputs))
    if operation.call in ("variadic", "equation") or all(s.arguments[0].name != first for s in operation.signatures):
        return None
    pick = f"[{names.index(output)}]" if len(names) > 1 or "." in output else ""
    if any(t.dtype.startswith("complex") for t in inputs.values()):
        return None
    weights = np.random.default_rng(3).standard_normal(value.shape)
    text = f"y = {operation.name}({', '.join(words)}){pick}\nreturn (c * y).sum()"
    named = {f"in_{name}" for name in query.wrt or ()}
    wrt = tuple(name for name, tensor in inputs.items() if tensor.dtype.startswith("float") and (not named or name in named))
    return {"program": text, "inputs": {**inputs, "c": data(weights)}, "wrt": wrt, "seed": query.seed}


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_literal(v) for v in value)}]"
    return repr(value)


def test_an_operation_that_is_not_differentiable_is_refused() -> None:
    """Every operation of order 0 with a floating input refuses a vjp, and says so."""
    refused = 0
    for operation in operations().values():
        if operation.order == 0:
            query = example(operation)
            with pytest.raises(PullbackError) as caught:
                _answer(query, want=("vjp",), wrt=None, cotangent={})
            assert caught.value.code == "not_differentiable", (operation.name, caught.value)
            refused += 1
    assert refused >= 20
