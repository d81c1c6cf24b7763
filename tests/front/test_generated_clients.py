"""Clients that are generated from the OpenAPI document: they compile, have types for queries and answers, and are answered."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import Server

OPENAPI = Path(__file__).parents[2] / "openapi" / "openapi.json"
# Hang guards: a generation takes seconds.
LIMIT_S = 280

USE = """
import sys
from made import Client
from made.api.catalogue import operation
from made.api.queries import queries, query
from made.models import Answer, Explain, Operation, Problem, Query, QueryInputs, QueryParameters, QueryWantItem, ResultTensor

client = Client(base_url=sys.argv[1])
wanted = Query(
    operation="softmax",
    inputs=QueryInputs.from_dict({"input": [[0.0, 0.0]]}),
    parameters=QueryParameters.from_dict({"dim": -1}),
    want=[QueryWantItem.OUTPUTS, QueryWantItem.JACOBIAN, QueryWantItem.EXPLAIN],
)
answer = query.sync(client=client, body=wanted)
assert isinstance(answer, Answer), answer
output = answer.outputs["output"]
assert isinstance(output, ResultTensor)
assert output.data == [[0.5, 0.5]] and output.shape == [1, 2], output
block = answer.jacobian["output"]["input"]
assert isinstance(block, ResultTensor) and block.shape == [1, 2, 1, 2]
assert block.data == [[[[0.25, -0.25]], [[-0.25, 0.25]]]]
assert isinstance(answer.explain, Explain)
assert answer.explain.inputs["input"].verdict.value == "differentiable"

refused = query.sync(client=client, body=Query(operation="sofmax", inputs=QueryInputs.from_dict({"input": [1.0]})))
assert isinstance(refused, Problem) and refused.code.value == "unknown_operation", refused

both = queries.sync(client=client, body=[wanted, Query(program="x * 2", inputs=QueryInputs.from_dict({"x": 1.5}))])
assert isinstance(both[1], Answer) and both[1].outputs["output"].data == 3.0, both
entry = operation.sync("softmax", client=client)
assert isinstance(entry, Operation) and entry.name == "softmax"
"""


def test_a_python_client_is_made_and_used(server: Server, tmp_path: Path) -> None:
    tool = Path(sys.executable).parent / "openapi-python-client"
    if not tool.exists():
        pytest.skip("openapi-python-client is not installed")
    command = [str(tool), "generate", "--path", str(OPENAPI), "--output-path", str(tmp_path / "made"), "--meta", "none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, cwd=tmp_path, check=True)
    # What it says of types that it leaves out; the two binary forms are not JSON, and it has no types for them.
    assert "Unable to parse" not in done.stdout
    assert "Cannot parse" not in done.stdout
    assert compileall.compile_dir(str(tmp_path / "made"), quiet=1)
    used = subprocess.run(
        [sys.executable, "-W", "error", "-c", USE, server.url],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=False,
    )
    assert used.returncode == 0, used.stderr


TYPED = """
import type { Answer, Problem, Query, ResultTensor } from "./made/types.gen";
const query: Query = { operation: "softmax", inputs: { input: [[0, 0]] }, parameters: { dim: -1 }, want: ["outputs", "vjp"] };
const read = (answer: Answer): ResultTensor | undefined => answer.outputs?.["output"];
const told = (problem: Problem): string => problem.detail;
export { query, read, told };
"""


def test_a_typescript_client_is_made_and_compiles(tmp_path: Path) -> None:
    npx = shutil.which("npx")
    if npx is None:
        pytest.skip("there is no npx")
    tool = [npx, "--no", "--", "openapi-ts"]
    if subprocess.run([*tool, "--version"], capture_output=True, timeout=LIMIT_S, check=False).returncode:
        pytest.skip("npx finds no @hey-api/openapi-ts: npm install -g @hey-api/openapi-ts typescript")
    subprocess.run([*tool, "-i", str(OPENAPI), "-o", str(tmp_path / "made")], capture_output=True, timeout=LIMIT_S, check=True)
    (tmp_path / "use.ts").write_text(TYPED)
    compiler = [
        npx,
        "--no",
        "--",
        "tsc",
        "--noEmit",
        "--strict",
        "--skipLibCheck",
        "--moduleResolution",
        "bundler",
        "--module",
        "esnext",
    ]
    compiled = subprocess.run(
        [*compiler, str(tmp_path / "use.ts")], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert compiled.returncode == 0, compiled.stdout
