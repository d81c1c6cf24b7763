"""Questions that people asked, with right answers that do not come from PyTorch: asked over HTTP in JSON and in safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy

from tests.server import Server

QUESTIONS = sorted((Path(__file__).parent / "questions").glob("*.json"))
SAFETENSORS = "application/vnd.safetensors"
Ask = Callable[[str, dict[str, Any]], tuple[int, dict[str, Any]]]


def ask_in_json(url: str, query: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and the answer's tensors by dotted path."""
    reply = httpx.post(f"{url}/v1/query", json=query, timeout=600)
    return reply.status_code, dict(_flat(reply.json())) if reply.status_code == 200 else reply.json()


def _flat(tree: Any, path: str = "") -> Any:
    if isinstance(tree, dict) and {"shape", "dtype", "data"} <= tree.keys():
        yield path, np.array(tree["data"], dtype=tree["dtype"]).reshape(tree["shape"])
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _flat(value, f"{path}.{key}" if path else key)
    else:
        yield path, tree


def ask_in_safetensors(url: str, query: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The same query with its tensors in binary, both ways."""
    tensors = {}
    rest = dict(query)
    for field in ("inputs", "cotangent", "tangent", "expected"):
        for name, value in rest.pop(field, {}).items():
            if value and isinstance(value, list) and field == "inputs" and name == "tensors":
                tensors.update({f"inputs.tensors.{i}": np.array(v) for i, v in enumerate(value)})
            else:
                tensors[f"{field}.{name}"] = np.array(value)
    body = safetensors.numpy.save(tensors, metadata={"query": json.dumps(rest)})
    headers = {"Content-Type": SAFETENSORS, "Accept": SAFETENSORS}
    reply = httpx.post(f"{url}/v1/query", content=body, headers=headers, timeout=600)
    if reply.status_code != 200:
        return reply.status_code, reply.json()
    header = json.loads(reply.content[8 : 8 + int.from_bytes(reply.content[:8], "little")])
    answer = dict(_flat(json.loads(header["__metadata__"]["answer"])))
    return 200, answer | dict(safetensors.numpy.load(reply.content))


@pytest.mark.parametrize("ask", [ask_in_json, ask_in_safetensors], ids=["json", "safetensors"])
@pytest.mark.parametrize("path", QUESTIONS, ids=lambda path: path.stem)
def test_a_question_is_answered_right(server: Server, path: Path, ask: Ask) -> None:
    question = json.loads(path.read_text())
    status, answer = ask(server.url, question["query"])
    assert status == question["status"], answer
    for name, expected in question.get("expect", {}).items():
        np.testing.assert_allclose(answer[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)
