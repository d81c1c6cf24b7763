"""Every operation's example through every protocol that knows operations: the values and VJPs of the native one, to the last bit."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from app.catalogue.read import operations
from app.protocols.elements import NUMPY, PART, as_array
from app.protocols.json_tensors import tensor
from app.protocols.native.native_query import query
from app.protocols.oip.datatypes import NAMES
from app.query import COMPLEX_DTYPES, FLOATING_DTYPES, Query, TensorData
from tests.protocols.asking import ask

# PyTorch's own calls of these differ in the last bits from one to the next, on the same memory.
_NOT_REPEATABLE = frozenset({"linalg.lstsq"})
_DIFFERENTIABLE_DTYPES = (*FLOATING_DTYPES, *COMPLEX_DTYPES)
_WORDS = {np.inf: "Infinity", -np.inf: "-Infinity"}


def flat(held: TensorData) -> list[Any]:
    return [
        _WORDS.get(value, "NaN" if value != value else value) if isinstance(value, float) else value
        for value in as_array(held.data, held.dtype).tolist()
    ]


def answered(name: str) -> dict[str, Any]:
    """The native answer to the operation's example, with tensors as TensorData."""
    reply = ask("query", operations()[name].example)
    assert reply.status == 200, (name, reply.raw)
    return {kind: {key: tensor(value, key) for key, value in reply.json().get(kind, {}).items()} for kind in ("outputs", "vjp")}


# --- the Open Inference Protocol -----------------------------------------------------------------------------------------


def open_inference(name: str, asked: Query) -> dict[str, TensorData]:
    def described(key: str, held: TensorData) -> dict[str, Any]:
        parts = held.dtype in PART
        entry: dict[str, Any] = {"name": key, "datatype": NAMES[held.dtype], "data": flat(held)}
        return {**entry, "shape": [*held.shape, 2] if parts else list(held.shape), "parameters": {"complex": parts}}

    inputs = []
    for key, value in asked.inputs.items():
        members = [(key, value)] if isinstance(value, TensorData) else [(f"{key}.{i}", held) for i, held in enumerate(value)]
        inputs += [described(member, held) for member, held in members]
    inputs += [described(f"cotangent.{key}", held) for key, held in asked.cotangent.items()]
    parameters = {
        key: json.dumps(value) if isinstance(value, tuple) else value
        for key, value in {**asked.parameters, "seed": asked.seed}.items()
        if value is not None
    }
    reply = ask("oip.infer", {"inputs": inputs, "parameters": parameters}, model=name)
    assert reply.status == 200, (name, reply.raw)
    return {
        output["name"]: tensor({"data": output["data"], "dtype": _dtype(output), "shape": output["shape"]}, output["name"])
        for output in reply.json()["outputs"]
    }


def _dtype(output: Mapping[str, Any]) -> str:
    return next(ours for ours, datatype in NAMES.items() if datatype == output["datatype"])


# --- Tesseract -----------------------------------------------------------------------------------------------------------


def encoded(held: TensorData) -> dict[str, Any]:
    return {
        "shape": held.shape, "dtype": held.dtype, "data": {"buffer": base64.b64encode(held.data).decode(), "encoding": "base64"},
    }  # fmt: skip


def path(name: str) -> str:
    base, _, index = name.rpartition(".")
    return f"{base}.[{index}]" if base and index.isdigit() else name


def tesseract(name: str, asked: Query, outputs: Mapping[str, TensorData], wrt: list[str]) -> dict[str, bytes]:
    inputs: dict[str, Any] = {key: value for key, value in asked.parameters.items() if value is not None}
    for key, value in asked.inputs.items():
        inputs[key] = encoded(value) if isinstance(value, TensorData) else [encoded(held) for held in value]
    if asked.seed is not None:
        inputs["seed"] = asked.seed
    differentiable = {
        output.name for signature in operations()[name].signatures for output in signature.outputs if output.differentiable
    }
    cotangent = {
        path(key): encoded(asked.cotangent.get(key, _ones(held)))
        for key, held in outputs.items()
        if (
            key in asked.cotangent
            if asked.cotangent
            else held.dtype in _DIFFERENTIABLE_DTYPES and (key in differentiable or key.rpartition(".")[0] in differentiable)
        )
    }
    body = {
        "inputs": inputs,
        "vjp_inputs": [path(key) for key in wrt],
        "vjp_outputs": list(cotangent),
        "cotangent_vector": cotangent,
    }
    reply = ask("tesseract.vector_jacobian_product", body, model=name)
    assert reply.status == 200, (name, reply.raw)
    return {key: base64.b64decode(reply.json()[path(key)]["data"]["buffer"]) for key in wrt}


def _ones(held: TensorData) -> TensorData:
    ones = np.ones(held.shape, NUMPY[held.dtype])
    return TensorData(held.dtype, held.shape, memoryview(ones.tobytes()))


@pytest.mark.parametrize("group", range(8))
def test_examples(group: int) -> None:
    compared = 0
    for name in sorted(set(operations()) - _NOT_REPEATABLE)[group::8]:
        asked, native = query(dict(operations()[name].example)), answered(name)
        tensors = open_inference(name, asked)
        for key, held in native["outputs"].items():
            assert bytes(tensors[key].data) == bytes(held.data), (name, key)
        for key, held in native["vjp"].items():
            assert bytes(tensors[f"vjp.{key}"].data) == bytes(held.data), (name, key)
        # bfloat16 is no dtype of Tesseract's.
        if native["vjp"] and not any(held.dtype == "bfloat16" for held in native["outputs"].values()):
            gradients = tesseract(name, asked, native["outputs"], list(native["vjp"]))
            for key, held in native["vjp"].items():
                assert gradients[key] == bytes(held.data), (name, key)
                compared += 1
    assert compared > 20
