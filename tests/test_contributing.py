"""The worked examples of CONTRIBUTING.md, done as written in a copy of the source: they work, and touch the files that it names."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.server import clean_environment
from tests.test_floors import APP, ROOT

CONTRIBUTING: Final = (ROOT / "CONTRIBUTING.md").read_text()
README: Final = "README.md"
QUERY: Final = {"program": "(x ** 3).sum()", "inputs": {"x": [1.0, 2.0]}, "want": ["laplacian"]}
# What the changed source answers: 6·1 + 6·2; alone and of each sample of a batch.
LAPLACIAN: Final = f"""
import json
from app.front.openapi.document import text
from app.limits import Limits
from app.road import Request, Road
road = Road(Limits(), "cpu")
def ask(query):
    body = memoryview(json.dumps(query).encode())
    return json.loads(b"".join(road.answer(Request("query", "x", "application/json", None, None, body), lambda _: None).buffers))
query = {QUERY!r}
print(ask(query)["laplacian"]["x"]["data"], ask({{**query, "batched": ["x"], "inputs": {{"x": [[1.0, 2.0], [3.0, 0.5]]}}}})["laplacian"]["x"]["data"])
assert b'"laplacian"' in text("1")
"""


def section(title: str) -> str:
    return CONTRIBUTING.split(f"\n### {title}\n", 1)[1].split("\n###", 1)[0].split("\n## ", 1)[0]


def files_of(title: str) -> list[str]:
    """The files that an example names at the head of its lines."""
    return re.findall(r"^- `([\w/.]+)`", section(title), flags=re.MULTILINE)


def insert(path: Path, before: str, text: str) -> None:
    content = path.read_text()
    assert content.count(before) == 1, (path, before)
    path.write_text(content.replace(before, text + before))


def a_kind(root: Path) -> str:
    function, row = re.findall(r"```python\n(.*?)```", section("A kind of result"), flags=re.DOTALL)[0].split("\n\n")
    insert(
        root / "app/query.py",
        '    "hvp": Wanted(',
        '    "laplacian": Wanted(1, "Of one real scalar output. Input → the trace of its Hessian."),\n',
    )
    insert(root / "app/engine/kinds.py", "KINDS: Final[dict", f"{function}\n\n\n")
    insert(root / "app/engine/kinds.py", '    "outputs": Kind(', row + "\n")
    return LAPLACIAN


def a_fact(root: Path) -> str:
    (row,) = re.findall(r'`("frobnicate": .*?})`', section("A fact of an operation"))
    insert(root / "app/catalogue/facts.json", '"T": {', f"{row},\n")
    return "from app.catalogue.facts import values; print(values('forward')['frobnicate'])"


def a_setting(root: Path) -> str:
    insert(
        root / "app/settings.py",
        "    workers: int = Field(",
        '    throwaway: int = Field(7, ge=1, le=9, description="Nothing.")\n',
    )
    line = "| `PULLBACK_THROWAWAY` | 7 | Nothing. |\n"
    insert(root / README, "| `PULLBACK_WORKERS` |", line)
    return f"""
from pathlib import Path
from app.settings import Settings
field = Settings.model_fields["throwaway"]
assert f"| `PULLBACK_THROWAWAY` | {{field.default}} | {{field.description}} |" in Path({README!r}).read_text()
print(Settings(throwaway=8).throwaway)
"""


@pytest.mark.parametrize(
    ("title", "change", "printed"),
    [
        ("A kind of result", a_kind, "18.0 [18.0, 21.0]\n"),
        ("A fact of an operation", a_fact, "missing\n"),
        ("A setting", a_setting, "8\n"),
    ],
)
def test_an_example_works_as_written(title: str, change: Callable[[Path], str], printed: str, tmp_path: Path) -> None:
    shutil.copytree(APP, tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / README, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    program = change(tmp_path)
    touched = [str(path.relative_to(tmp_path)) for path, content in before.items() if path.read_bytes() != content]
    assert sorted(touched) == sorted(files_of(title))
    assert len(touched) <= 2
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=clean_environment() | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, printed), done.stderr
