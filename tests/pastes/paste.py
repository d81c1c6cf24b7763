"""One paste, and its reference: the same lines run by Python over PyTorch in float64."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Paste:
    """Lines and what they are sent with.

    Attributes:
        text: as it was copied.
        inputs: name → shape of a normal tensor, a range `("int", low, high, *shape)`, `("pos", *shape)`, or a tensor.
        gives: what it computes, as an expression over its names after it has run.
        model: names of modules whose weights are inputs.
        seed: the query's; random numbers are the same then.
        leaves: the inputs are leaves that require grad themselves (the text asks for their `.grad`).
        plain: Python's own spelling of the text, where the text is not Python as it stands (prompts, typographic signs).
    """

    name: str
    text: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    gives: str = "output"
    model: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    leaves: bool = False
    plain: str | None = None


@dataclass(frozen=True)
class Reference:
    """What PyTorch gives: the output, gradients by name (None where there is none), and the weights that it used."""

    output: Tensor
    gradients: dict[str, Tensor | None]
    weights: dict[str, Tensor]
    cotangent: Tensor


COLLECTED: Final = Path(__file__).parent / "collected"


def collected() -> Iterator[Paste]:
    """The pastes of the folder `collected`: after `=== name` and `#: fields of Paste`, the lines as they were copied."""
    for path in sorted(COLLECTED.glob("*.txt")):
        for part in path.read_text().split("\n=== "):
            name, fields, *lines = part.removeprefix("=== ").split("\n")
            bare = not fields.startswith("#: ")
            known = {} if bare else eval(f"dict({fields[3:]})")  # noqa: S307 (a text of this room)
            yield Paste(f"{path.stem}: {name}", "\n".join([fields, *lines] if bare else lines), **known)


def tensors(paste: Paste) -> dict[str, Tensor]:
    """The inputs of a paste; the same ones at every call."""
    generator = torch.Generator().manual_seed(sum(map(ord, paste.name)))
    leaves: dict[str, Tensor] = {}
    for name, spec in paste.inputs.items():
        if isinstance(spec, Tensor):
            leaves[name] = spec.clone()
        elif spec and spec[0] == "int":
            leaves[name] = torch.randint(spec[1], spec[2], spec[3:], generator=generator)
        elif spec and spec[0] == "pos":
            leaves[name] = torch.rand(spec[1:], generator=generator, dtype=torch.float64) * 0.8 + 0.1
        else:
            leaves[name] = torch.randn(spec, generator=generator, dtype=torch.float64)
    return leaves


def reference(paste: Paste) -> Reference:
    """Runs the lines by Python. They are ours, so nothing of a client is executed."""
    leaves = {name: t.requires_grad_() if t.dtype.is_floating_point else t for name, t in tensors(paste).items()}
    namespace: dict[str, Any] = {"torch": torch, "nn": nn, "F": nn.functional, "np": np, "math": math, "__name__": "__main__"}
    namespace |= {name: leaf if paste.leaves else leaf * 1 for name, leaf in leaves.items()}
    namespace |= dict(paste.parameters)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        if paste.seed is not None:
            torch.manual_seed(paste.seed)
        text = textwrap.dedent(paste.plain if paste.plain is not None else paste.text)
        text = text.replace(".backward()", ".backward(retain_graph=True)")  # the gradient is asked for once more below
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's own forward mode warns of its own deprecations
            exec(compile(text, paste.name, "exec"), namespace)  # noqa: S102 (a text of this room)
            output = torch.as_tensor(eval(paste.gives, namespace))  # noqa: S307 (the same)
    finally:  # what a paste switches on for good would change the pastes that come after it
        torch.set_default_dtype(before)
        torch.autograd.set_detect_anomaly(False)
        torch.set_grad_enabled(True)
    variables = {name: leaf for name, leaf in leaves.items() if leaf.dtype.is_floating_point}
    weights = {name: p for model in paste.model for name, p in _named(namespace[model], model).items()}
    variables |= {name: p for name, p in weights.items() if p.requires_grad}
    cotangent = torch.cos(torch.arange(output.numel(), dtype=torch.float64)).reshape(output.shape)
    gradients: dict[str, Tensor | None] = dict.fromkeys(variables)
    if output.requires_grad and variables:
        grads = torch.autograd.grad(output, list(variables.values()), cotangent, allow_unused=True)
        gradients = dict(zip(variables, grads, strict=True))
    return Reference(output.detach(), gradients, {name: p.detach() for name, p in weights.items()}, cotangent)


def _named(model: Any, name: str) -> dict[str, Tensor]:
    """Weights by the names that a query sends them under."""
    if isinstance(model, Tensor):
        return {name: model}
    bare = type(model).__module__.startswith("torch.")
    # What training has left in the buffers is not what they began with, which is what a query sends.
    trained = any(bool(value) for key, value in model.named_buffers() if key.endswith("num_batches_tracked"))
    buffers = {key: value for key, value in model.named_buffers() if value.dtype.is_floating_point and not trained}
    held = {**dict(model.named_parameters()), **buffers}
    return {f"{name}.{key}" if bare else key: value for key, value in held.items()}
