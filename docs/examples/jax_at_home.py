"""A remote operation at home in JAX: through tesseract-jax, and as a `jax.custom_vjp` whose two halves are queries to Pullback.

    python docs/examples/jax_at_home.py http://127.0.0.1:8000

Needs `pip install jax tesseract-jax`. Trains the same small network three times, under `jit`, and prints the losses at every step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
from tesseract_core import Tesseract
from tesseract_jax import apply_tesseract

jax.config.update("jax_enable_x64", True)

Activation = Callable[[jax.Array], jax.Array]


def through_tesseract_jax(url: str) -> Activation:
    """Differentiable as it is: tesseract-jax asks for products with the Jacobian when JAX needs them."""
    remote = Tesseract.from_url(f"{url}/tesseract/nn.functional.softplus")
    return lambda x: apply_tesseract(remote, {"input": x})["output"]


def through_custom_vjp(url: str) -> Activation:
    """`jax.custom_vjp` by hand: the forward half is one query, the backward half another."""
    remote = Tesseract.from_url(f"{url}/tesseract/nn.functional.softplus")

    def values(x: jax.Array) -> jax.Array:
        return jax.pure_callback(lambda x: remote.apply({"input": x})["output"], jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    def product(x: jax.Array, g: jax.Array) -> jax.Array:
        def ask(x: jax.Array, g: jax.Array) -> jax.Array:
            return remote.vector_jacobian_product({"input": x}, ["input"], ["output"], {"output": g})["input"]

        return jax.pure_callback(ask, jax.ShapeDtypeStruct(x.shape, x.dtype), x, g)

    softplus = jax.custom_vjp(values)
    softplus.defvjp(lambda x: (values(x), x), lambda x, g: (product(x, g),))
    return softplus


def losses(activation: Activation, steps: int = 5) -> list[float]:
    """Of a two-layer regression, at every step of gradient descent."""
    keys = jax.random.split(jax.random.PRNGKey(0), 4)
    x, y = jax.random.normal(keys[0], (16, 3)), jax.random.normal(keys[1], (16,))
    weights = (jax.random.normal(keys[2], (3, 8)), jax.random.normal(keys[3], (8,)))

    @jax.jit
    def step(weights: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        def loss(weights: tuple[jax.Array, jax.Array]) -> jax.Array:
            return jnp.mean((activation(x @ weights[0]) @ weights[1] - y) ** 2)

        value, gradient = jax.value_and_grad(loss)(weights)
        return value, jax.tree.map(lambda w, g: w - 0.02 * g, weights, gradient)

    seen = []
    for _ in range(steps):
        value, weights = step(weights)
        seen.append(float(value))
    return seen


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    runs = [losses(how) for how in (jax.nn.softplus, through_tesseract_jax(url), through_custom_vjp(url))]
    for step, (home, tesseract, custom) in enumerate(zip(*runs, strict=True)):
        print(f"step {step}: in process {home:.12f}, tesseract-jax {tesseract:.12f}, custom_vjp {custom:.12f}")
    # Two libraries' softplus agree to the last digits, not to the last bit.
    assert all(abs(home - other) < 1e-9 for home, *others in zip(*runs, strict=True) for other in others)
    print("the same")


if __name__ == "__main__":
    main()
