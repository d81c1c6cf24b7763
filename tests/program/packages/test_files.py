"""What a program saves is what it loads, as it was when it was saved."""

from __future__ import annotations

import pytest

from app.errors import PullbackError
from tests.program.building import answer, tensors

BEGIN = "import torch\nmodel = torch.nn.Linear(1, 1)\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("torch.save(x, 'a.pt')\nx += 5\nreturn torch.load('a.pt')", 2.0),
        (
            "torch.save({'epoch': 3, 'x': [x]}, f='a.pt')\nsaved = torch.load('a.pt', map_location='cpu')\nreturn saved['x'][0] * saved['epoch']",
            6.0,
        ),
        ("torch.save(x, 'a.pt')\na = torch.load('a.pt')\na += 1\nreturn torch.load('a.pt')", 2.0),
        (
            "from pathlib import Path\nfolder = Path('runs') / 'first'\nfolder.mkdir(exist_ok=True)\npath = folder / 'a.pt'\ntorch.save(x, path)\n"
            "print(f'{path} {path.suffix}')\nreturn torch.load(path) * len(path.stem) * len(path.parent.name)",
            10.0,
        ),
        (
            "import os\npath = os.path.join('runs', 'a.pt')\ntorch.save(x, path)\n"
            "return torch.load('runs/a.pt') + len(os.path.dirname(path)) + len(os.path.basename(path))",
            10.0,
        ),
        ("torch.save(x, 'a.pt')\ntorch.save(x * 2, 'a.pt')\nreturn torch.load('a.pt')", 4.0),
        (
            f"{BEGIN}torch.save(model.state_dict(), 'best.pt')\nwith torch.no_grad():\n    model.weight.fill_(50.0)\n"
            "model.load_state_dict(torch.load('best.pt'))\nreturn model(x[None])[0]",
            7.0,
        ),
        (f"{BEGIN}torch.save(model, 'm.pt')\nother = torch.load('m.pt', weights_only=False)\nreturn other(x[None])[0]", 7.0),
    ],
)
def test_what_was_saved_is_loaded(lines: str, expected: float) -> None:
    sent = tensors(x=2.0) | (
        {"model.weight": tensors(w=[[3.0]])["w"], "model.bias": tensors(b=[1.0])["b"]} if "model" in lines else {}
    )
    (value,) = answer(lines, sent).values()
    assert value.item() == expected


def test_what_is_loaded_after_what_was_not_copied_is_refused() -> None:
    lines = "torch.save(x, 'a.pt')\ntorch.save(x * 2, f'{x}.pt')\nreturn torch.load('a.pt')"
    with pytest.raises(PullbackError, match="what it loads is not known"):
        answer(lines, tensors(x=2.0))
