"""One sample of a batch as a pure function of `wrt`: the form of each kind that vmap can run over all samples at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from app.engine.autodiff.cotangents import Vectors
from app.engine.computation import Computation
from app.engine.tensors import is_differentiable
from app.program.semantics.randomness import seed_generators


class Sample:
    """One sample inside vmap.

    Attributes:
        leaves: of this sample; wrt: those to differentiate with respect to.
        vectors: `cotangent` and `tangent`, where they are wanted: name → tensor, one for this sample.
    """

    def __init__(self, computation: Computation, leaves: Mapping[str, Tensor], vectors: Mapping[str, Vectors]) -> None:
        self.leaves = leaves
        self.wrt = {name: leaves[name] for name in computation.prepared.wrt}
        self.vectors = vectors
        self._function = computation.prepared.function
        self._of = computation.prepared.of
        self._seed = computation.query.seed
        self._method = computation.prepared.plan.method

    def outputs(self, wrt: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self._function.random and self._seed is not None:
            seed_generators(self._seed)
        leaves = {**self.leaves, **wrt}
        values = self._function.call(*(leaves[name] for name in self._function.leaves))
        return dict(zip(self._function.outputs, values, strict=True))

    def differentiable(self, wrt: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in self.outputs(wrt).items() if is_differentiable(value.dtype)}

    def scalar(self, wrt: Mapping[str, Tensor]) -> Tensor:
        """The output that scalar kinds are of."""
        return self.outputs(wrt)[self._of or ""].reshape(())

    def gradient(self) -> Any:
        return torch.func.grad(self.scalar)(self.wrt)

    def vjp(self) -> Any:
        names = tuple(self.vectors["cotangent"])

        def chosen(wrt: Mapping[str, Tensor]) -> dict[str, Tensor]:
            values = self.outputs(wrt)
            return {name: values[name] for name in names}

        return torch.func.vjp(chosen, self.wrt)[1](dict(self.vectors["cotangent"]))[0]

    def jvp(self) -> Any:
        return torch.func.jvp(self.differentiable, (self.wrt,), (dict(self.vectors["tangent"]),))[1]

    def jacobian(self) -> Any:
        transform = torch.func.jacfwd if self._method == "forward" else torch.func.jacrev
        return transform(self.differentiable)(self.wrt)

    def hessian(self) -> Any:
        return torch.func.jacrev(torch.func.grad(self.scalar))(self.wrt)

    def hvp(self) -> Any:
        return torch.func.vjp(torch.func.grad(self.scalar), self.wrt)[1](dict(self.vectors["tangent"]))[0]
