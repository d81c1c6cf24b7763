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
SETTINGS_PAGE: Final = "docs/running.md"
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
# d/dx 2ˣ at 1.5 and 3 as x·2ˣ⁻¹.
RULE: Final = """
answer = ask({"program": "exp2(x).sum()", "inputs": {"x": [1.5, 3.0]}, "want": ["check"], "expected": {"x": [1.5 * 2**0.5, 12.0]}})
likely = answer["check"]["x"]["likely"]
print(likely["code"], "by the power rule, x·2ˣ⁻¹" if "is taken by the power rule, x·2ˣ⁻¹" in likely["message"] else likely)
"""
PROTOCOL: Final = """
from app.protocols.registry import protocol_of
routes, parameters = protocol_of("/text/exp").routes.find("/text/exp")
def send(body):
    request = Request(routes[0].endpoint, "x", None, None, None, memoryview(body), parameters)
    reply = road.answer(request, lambda _: None)
    return b"".join(reply.buffers), reply.status
body, status = send(b"0 1")
refusal, refused = send(b"one")
print(body, status, refusal.partition(b":")[0], refused)
"""
# How the worker was started, and what it answers; a name without a row is refused.
ENGINE: Final = """
import asyncio
from pathlib import Path
from app.errors import ServiceError
from app.main import serve
from app.pool.job import asked_of
from app.pool.pool import Pool
from app.settings import Settings
async def run():
    pool = Pool(Settings(workers=1, device="cpu", engine="frugal"), lambda event, **facts: None)
    pool.start()
    try:
        while not pool.states()["idle"]:
            await asyncio.sleep(0.01)
        (worker,) = pool.supervisor.workers.values()
        is_frugal = b"MALLOC_ARENA_MAX=1" in Path(f"/proc/{worker.pid}/environ").read_bytes().split(b"\\0")
        ended = asyncio.get_running_loop().create_future()
        body = json.dumps({"operation": "exp", "inputs": {"input": [0.0]}}).encode()
        pool.ask(asked_of("query", "application/json", None, None), "x", [body], len(body), "", ended.set_result)
        return is_frugal, (await ended).status
    finally:
        await pool.stop()
is_frugal, status = asyncio.run(run())
try:
    serve(Settings(engine="ray"))
except ServiceError as error:
    print(is_frugal, status, "no engine 'ray'" in str(error))
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
    insert(root / SETTINGS_PAGE, "| `PULLBACK_WORKERS` |", line)
    return f"""
from pathlib import Path
from app.settings import Settings
field = Settings.model_fields["throwaway"]
assert f"| `PULLBACK_THROWAWAY` | {{field.default}} | {{field.description}} |" in Path({SETTINGS_PAGE!r}).read_text()
print(Settings(throwaway=8).throwaway)
"""


def a_rule(root: Path) -> str:
    title = "A rule for a derivative that people get wrong"
    (row,) = re.findall(r"```python\n(.*?)```", section(title), flags=re.DOTALL)
    insert(root / "app/engine/check/mistakes/rules/wrong_rules.py", '    "reciprocal_of_input": (', f"    {row}")
    (fact,) = re.findall(r'`("exp2": {.*?})`', section(title))
    facts = root / "app/catalogue/facts.json"
    content = re.sub(r'^"exp2": .*?(,?)$', lambda line: fact + line[1], facts.read_text(), flags=re.MULTILINE)
    facts.write_text(content)
    insert(facts, '"previous_axis", "probability_alone"', '"power_of_two", ')
    return RULE


def a_protocol(root: Path) -> str:
    module, lines = re.findall(r"```python\n(.*?)```", section("A protocol"), flags=re.DOTALL)
    folder = root / "app/protocols/text"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""Numbers as text."""\n')
    (folder / "endpoints.py").write_text(module)
    imported, row = lines.split("\n\n")
    registry = root / "app/protocols/registry.py"
    insert(registry, "from app.protocols.umbridge import", f"{imported}\n")
    insert(registry, ")\n_REFUSING: Final", f"    {row.rstrip()},\n")
    return PROTOCOL


def an_engine(root: Path) -> str:
    (row,) = re.findall(r"```python\n(.*?)```", section("An engine"), flags=re.DOTALL)
    insert(root / "app/pool/environment.py", '    "local": (', f"    {row}")
    (names,) = re.findall(r"`(Literal\[.*?\])`", section("An engine"))
    settings = root / "app/settings.py"
    content = settings.read_text()
    assert content.count('    engine: Literal["local", "ray"] = ') == 1
    settings.write_text(content.replace('    engine: Literal["local", "ray"] = ', f"    engine: {names} = "))
    return ENGINE


# Heading → what is done as its text has it, and what a program prints then that uses it.
EXAMPLES: Final[dict[str, tuple[Callable[[Path], str], str]]] = {
    "A kind of result": (a_kind, "18.0 [18.0, 21.0]"),
    "A fact of an operation": (a_fact, "missing"),
    "A setting": (a_setting, "8"),
    "A rule for a derivative that people get wrong": (a_rule, "wrong_rule by the power rule, x·2ˣ⁻¹"),
    "A protocol": (a_protocol, "b'1.0\\n2.718281828459045\\n' 200 b'bad_tensor' 422"),
    "An engine": (an_engine, "True 200 True"),
}


def copy(root: Path, *left_out: str) -> None:
    shutil.copytree(APP, root / "app", ignore=shutil.ignore_patterns(*left_out))
    (root / "docs").mkdir()
    shutil.copy(ROOT / SETTINGS_PAGE, root / SETTINGS_PAGE)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_touches_the_files_that_it_names(title: str, tmp_path: Path) -> None:
    copy(tmp_path, "__pycache__")
    before = files(tmp_path)
    EXAMPLES[title][0](tmp_path)
    touched = [path for path, content in files(tmp_path).items() if before.get(path) != content]
    assert sorted(touched) == sorted(files_of(title))
    assert len([path for path in touched if path in before]) <= 2


def test_every_example_works_as_written(tmp_path: Path) -> None:
    """All of them together, in one process, which takes as long as PyTorch takes to be imported."""
    copy(tmp_path)  # with the bytecode of what is not changed
    programs = [change(tmp_path) for change, _ in EXAMPLES.values()]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(programs)],
        cwd=tmp_path,
        env=clean_environment() | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=850,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()) == (0, [printed for _, printed in EXAMPLES.values()]), done.stderr
