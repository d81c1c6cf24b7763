"""A remote operation as a layer at home in PyTorch: its forward and backward are queries to Pullback.

    python docs/examples/torch_at_home.py http://127.0.0.1:8000

Needs `pip install tesseract-torch`. Trains the same small network twice, with `nn.functional.linear` computed by the server and in
this process, and prints both losses at every step.
"""

from __future__ import annotations

import sys

import torch
from tesseract_core import Tesseract
from tesseract_torch import apply_tesseract


class RemoteGelu(torch.autograd.Function):
    """`torch.autograd.Function` by hand: one operation, whose forward and backward are one query each."""

    url = "http://127.0.0.1:8000"

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        remote = Tesseract.from_url(f"{RemoteGelu.url}/tesseract/nn.functional.gelu")
        return torch.tensor(remote.apply({"input": x.detach().numpy()})["output"])

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *cotangents: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        remote = Tesseract.from_url(f"{RemoteGelu.url}/tesseract/nn.functional.gelu")
        inputs, cotangent = {"input": x.detach().numpy()}, {"output": cotangents[0].numpy()}
        return torch.tensor(remote.vector_jacobian_product(inputs, ["input"], ["output"], cotangent)["input"])


def losses(*, remotely: bool, url: str, steps: int = 5) -> list[float]:
    """Of a two-layer regression, at every step of gradient descent."""
    torch.manual_seed(0)
    x, y = torch.randn(16, 3, dtype=torch.float64), torch.randn(16, 1, dtype=torch.float64)
    w1, w2 = (torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in ((8, 3), (1, 8)))
    linear = Tesseract.from_url(f"{url}/tesseract/nn.functional.linear")
    optimizer = torch.optim.SGD([w1, w2], lr=0.05)
    seen = []
    for _ in range(steps):
        if remotely:
            hidden = RemoteGelu.apply(apply_tesseract(linear, {"input": x, "weight": w1})["output"])
            prediction = apply_tesseract(linear, {"input": hidden, "weight": w2})["output"]
        else:
            hidden = torch.nn.functional.gelu(torch.nn.functional.linear(x, w1))
            prediction = torch.nn.functional.linear(hidden, w2)
        loss = ((prediction - y) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(float(loss))
    return seen


def main() -> None:
    RemoteGelu.url = sys.argv[1] if len(sys.argv) > 1 else RemoteGelu.url
    here, there = losses(remotely=False, url=RemoteGelu.url), losses(remotely=True, url=RemoteGelu.url)
    for step, (home, remote) in enumerate(zip(here, there, strict=True)):
        print(f"step {step}: in process {home:.12f}, by Pullback {remote:.12f}")
    assert max(abs(home - remote) for home, remote in zip(here, there, strict=True)) < 1e-12
    print("the same")


if __name__ == "__main__":
    main()
