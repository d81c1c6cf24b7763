"""The native protocol from bytes to Query and from Answer to bytes: every field, both formats, and a table of bad bodies."""

from __future__ import annotations

import base64
import gzip
import json
import math
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.catalogue.entry import Operation
from app.errors import PullbackError
from app.limits import Limits
from app.protocols.native import bodies
from app.protocols.native.bodies import JSON, SAFETENSORS
from app.query import DTYPE_BYTES, WANTS, Answer, Note, Query, TensorData
from tests.many import assert_of_every_operation

LIMITS = Limits()


def read(body: Any, content_type: str | None = JSON, content_encoding: str | None = None) -> Query:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return bodies.read(memoryview(raw), content_type, content_encoding, LIMITS)


def array(tensor: Any) -> np.ndarray[Any, Any]:
    assert isinstance(tensor, TensorData)
    return np.frombuffer(tensor.data, tensor.dtype).reshape(tensor.shape)


def held(x: Any, dtype: str = "float64") -> TensorData:
    array = np.ascontiguousarray(x, dtype)
    return TensorData(dtype, np.shape(x), memoryview(array.tobytes()))


def test_every_field() -> None:
    query = read(
        {
            "operation": "softmax",
            "inputs": {"input": [[1.0, 2.0, 3.0]]},
            "parameters": {"dim": -1, "a": [1, [2.5, "x", None, True]]},
            "want": ["outputs", "vjp", "jacobian"],
            "wrt": ["input"],
            "of": "output",
            "cotangent": {"output": [[0.0, 1.0, 0.0]]},
            "tangent": {"input": [[1, 1, 1]]},
            "batched": ["input"],
            "expected": {"input": {"data": [0, 0, 0], "shape": [1, 3], "dtype": "float32"}},
            "format": "auto",
            "dtype": "bfloat16",
            "encoding": "base64",
            "seed": 2**63 - 1,
            "timeout_s": 2,
        }
    )
    assert array(query.inputs["input"]).tolist() == [[1.0, 2.0, 3.0]]
    assert query.parameters == {"dim": -1, "a": (1, (2.5, "x", None, True))}
    assert array(query.cotangent["output"]).tolist() == [[0.0, 1.0, 0.0]]
    assert query.tangent["input"].dtype == "int64"
    assert query.expected["input"].dtype == "float32"
    assert (query.want, query.wrt, query.of, query.batched) == (
        ("outputs", "vjp", "jacobian"),
        ("input",),
        "output",
        ("input",),
    )
    assert (query.format, query.dtype, query.encoding, query.seed, query.timeout_s) == (
        "auto",
        "bfloat16",
        "base64",
        2**63 - 1,
        2.0,
    )
    assert (query.operation, query.program, query.function) == ("softmax", None, None)


def test_defaults_and_nulls() -> None:
    for body in (
        {"program": "x + 1"},
        {"program": "x + 1", "wrt": None, "inputs": None, "want": None, "seed": None, "operation": None},
    ):
        assert read(body) == Query(program="x + 1")
    assert read({"function": "rosenbrock"}).function == "rosenbrock"
    assert read(b'{"program": "x"}', None) == Query(program="x")


@pytest.mark.parametrize("want", WANTS)
def test_every_want(want: str) -> None:
    assert read({"program": "x", "want": [want]}).want == (want,)


def test_numbers_in_parameters_stay_what_they_are() -> None:
    body = b'{"program": "x", "parameters": {"a": NaN, "b": -Infinity, "c": 1.0, "d": 1, "e": "Infinity", "f": -9223372036854775808}}'
    parameters = read(body).parameters
    assert repr(parameters) == "{'a': nan, 'b': -inf, 'c': 1.0, 'd': 1, 'e': 'Infinity', 'f': -9223372036854775808}"


@pytest.mark.parametrize("number", ["1e400", "-1e999", "1" * 30, "1" * 5000])
@pytest.mark.parametrize("shape", ["%s", "[1, %s]"])
def test_a_number_of_a_parameter_that_nothing_holds_is_called_out_of_range(number: str, shape: str) -> None:
    with pytest.raises(PullbackError) as refused:
        read(b'{"program": "x", "parameters": {"a": %s}}' % (shape % number).encode())
    assert refused.value.code == "bad_parameter"
    assert refused.value.detail == "A number of a parameter is out of range."


# --- one tensor or a list of tensors ---------------------------------------------------------------------------------


def shapes(value: Any) -> Any:
    return [t.shape for t in value] if isinstance(value, tuple) else value.shape


OBJECT = {"data": [1.0, 2.0], "dtype": "float32"}
LISTS = [
    ({"operation": "cat"}, [[1, 2], [3, 4]], [(2,), (2,)]),
    ({"operation": "cat"}, [[1, 2], [3]], [(2,), (1,)]),
    ({"operation": "cat"}, [OBJECT, [3]], [(2,), (1,)]),
    ({"operation": "cat"}, [], []),
    ({"operation": "cat"}, [1, 2], [(), ()]),
    ({"operation": "cat"}, [{"data": []}, [[1]]], [(0,), (1, 1)]),
    ({"operation": "gradient"}, [[1, 2], [3, 4]], [(2,), (2,)]),
    ({"operation": "gradient"}, 2.0, ()),
    ({"program": "x"}, [[1, 2], [3, 4]], (2, 2)),
    ({"program": "x"}, [[1, 2], [3]], [(2,), (1,)]),
    ({"program": "x"}, [[[1, 2], [3, 4]], [[5]]], [(2, 2), (1, 1)]),
    ({"program": "x"}, [OBJECT, OBJECT], [(2,), (2,)]),
    ({"program": "x"}, [[3], OBJECT], [(1,), (2,)]),
    ({"program": "x"}, [1, OBJECT], [(), (2,)]),
    ({"program": "x"}, [], (0,)),
    ({"program": "x"}, OBJECT, (2,)),
    ({"function": "f"}, [[1, 2], [3]], [(2,), (1,)]),
]


@pytest.mark.parametrize(("subject", "value", "expected"), LISTS)
def test_one_tensor_or_several(subject: dict[str, str], value: Any, expected: Any) -> None:
    name = "spacing" if subject.get("operation") == "gradient" else "tensors"
    assert shapes(read({**subject, "inputs": {name: value}}).inputs[name]) == expected


def test_members_of_a_list_by_name() -> None:
    query = read(
        {
            "operation": "cat",
            "inputs": {"tensors.1": [3.0], "tensors.0": [1.0, 2.0]},
            "tangent": {"tensors": [[1, 0], [0]]},
            "expected": {"tensors.1": [0.5]},
        }
    )
    assert shapes(query.inputs["tensors"]) == [(2,), (1,)]
    assert {name: t.shape for name, t in query.tangent.items()} == {"tensors.0": (2,), "tensors.1": (1,)}
    assert list(query.expected) == ["tensors.1"]


# --- bad bodies ------------------------------------------------------------------------------------------------------

X = {"input": [1.0, 2.0]}
BAD: list[tuple[Any, str, str | None]] = [
    (b"", "bad_json", None),
    (b"{", "bad_json", None),
    (b'{"operation": "softmax"} {}', "bad_json", None),
    (b"\xff\xfe", "bad_json", None),
    (b"\xef\xbb\xbf{}", "bad_json", None),
    (b'{"program": "\\ud800"}', "bad_json", None),
    (b"[" * 100_000, "json_depth", None),
    (b'{"program": "x", "inputs": {"x": ' + b"[" * 101 + b"]" * 101 + b"}}", "json_depth", None),
    (b'{"program": "x", "program": "y"}', "duplicate_key", "program"),
    (b'{"program": "x", "inputs": {"x": {"shape": [1], "data": [1], "shape": [1]}}}', "duplicate_key", "shape"),
    # structure
    ([], "bad_request", None),
    ([{"program": "x"}], "bad_request", None),
    (None, "bad_request", None),
    (3, "bad_request", None),
    ("softmax", "bad_request", None),
    ({}, "bad_request", None),
    ({"inputs": {}}, "bad_request", None),
    ({"operation": "softmax", "program": "x"}, "bad_request", None),
    ({"operation": "softmax", "program": "x", "function": "f"}, "bad_request", None),
    ({"operation": 3}, "bad_request", "operation"),
    ({"operation": ["softmax"]}, "bad_request", "operation"),
    (b'{"operation": 1e999}', "bad_request", "operation"),
    ({"program": "x", "inputs": [1.0]}, "bad_request", "inputs"),
    ({"program": "x", "inputs": "x"}, "bad_request", "inputs"),
    ({"program": "x", "parameters": [1]}, "bad_request", "parameters"),
    ({"program": "x", "want": "vjp"}, "bad_request", "want"),
    ({"program": "x", "want": []}, "bad_request", "want"),
    ({"program": "x", "want": {"vjp": 1}}, "bad_request", "want"),
    ({"program": "x", "want": ["vjp", "outputs", "vjp"]}, "bad_request", "want[2]"),
    ({"program": "x", "wrt": "x"}, "bad_request", "wrt"),
    ({"program": "x", "wrt": [1]}, "bad_request", "wrt[0]"),
    ({"program": "x", "wrt": []}, "bad_request", "wrt"),
    ({"program": "x", "wrt": ["x", "x"]}, "bad_request", "wrt[1]"),
    ({"program": "x", "wrt": ["x"] * 100_000}, "bad_request", "wrt"),
    ({"program": "x", "wrt": list(range(100_000))}, "bad_request", "wrt[0]"),
    ({"program": "x", "batched": True}, "bad_request", "batched"),
    ({"program": "x", "of": 1}, "bad_request", "of"),
    ({"program": "x", "cotangent": [1.0]}, "bad_request", "cotangent"),
    ({"program": "x", "seed": 1.5}, "bad_request", "seed"),
    ({"program": "x", "seed": True}, "bad_request", "seed"),
    ({"program": "x", "seed": "1"}, "bad_request", "seed"),
    ({"program": "x", "timeout_s": "5s"}, "bad_request", "timeout_s"),
    ({"program": "x", "timeout_s": True}, "bad_request", "timeout_s"),
    (b'{"program": "x", "timeout_s": 1e999}', "bad_request", "timeout_s"),
    ({"program": "x", "wnat": ["vjp"]}, "bad_request", "wnat"),
    ({"program": "x", "__proto__": {}}, "bad_request", "__proto__"),
    ({"program": "x", "k" * 1_000_000: 1}, "bad_request", "k" * 64),
    ({"program": "x", **{f"k{i}": 1 for i in range(1000)}}, "bad_request", "k0"),
    # names
    ({"program": "x", "inputs": {"": 1.0}}, "bad_request", "inputs"),
    ({"program": "x", "inputs": {"a b": 1.0}}, "bad_request", "inputs"),
    ({"program": "x", "inputs": {"../x": 1.0}}, "bad_request", "inputs"),
    ({"program": "x", "inputs": {"a\x00": 1.0}}, "bad_request", "inputs"),
    ({"program": "x", "inputs": {"__class__": 1.0}}, "bad_request", "inputs"),
    ({"program": "x", "inputs": {"x" * 129: 1.0}}, "bad_request", "inputs"),
    ({"program": "x", "inputs": {"x" * 1_000_000: 1.0}}, "bad_request", "inputs"),
    ({"program": "x", "inputs": {"x.": 1.0}}, "bad_request", "inputs"),
    ({"program": "x", "inputs": {"x.01": 1.0}}, "bad_request", "inputs"),
    ({"program": "x", "inputs": {"x.-1": 1.0}}, "bad_request", "inputs"),
    ({"program": "x", "inputs": {"x.1": 1.0}}, "bad_request", "inputs.x.0"),
    ({"program": "x", "inputs": {"x.0": 1.0, "x.2": 1.0}}, "bad_request", "inputs.x.1"),
    ({"program": "x", "inputs": {"x.0": 1.0, "x": 1.0}}, "bad_request", "inputs.x"),
    ({"program": "x", "parameters": {"1": 1.0}}, "bad_request", "parameters"),
    ({"program": "x", "cotangent": {"\n": 1.0}}, "bad_request", "cotangent"),
    ({"program": "x", "inputs": {"x": 1.0}, "parameters": {"x": 1.0}}, "bad_request", "parameters.x"),
    ({"program": "x", "inputs": {f"x{i}": 1.0 for i in range(257)}}, "bad_request", "inputs"),
    ({"operation": "cat", "inputs": {"tensors": [[1.0]] * 257}}, "bad_request", "inputs.tensors"),
    ({"operation": "cat", "inputs": {"tensors": [[1.0]] * 200}, "tangent": {"tensors": [[1.0]] * 200}}, "bad_request", "inputs"),
    ({"operation": "cat", "inputs": {"tensors": [[1]]}, "tangent": {"tensors": [[1]], "tensors.0": [1]}}, "bad_request", "tangent.tensors.0"),
    # values that are not allowed
    ({"program": "x", "want": ["gradeint"]}, "bad_parameter", "want[0]"),
    ({"program": "x", "format": "csr"}, "bad_parameter", "format"),
    ({"program": "x", "dtype": "int64"}, "bad_parameter", "dtype"),
    ({"program": "x", "encoding": "hex"}, "bad_parameter", "encoding"),
    ({"program": "x", "seed": -1}, "bad_parameter", "seed"),
    ({"program": "x", "seed": 2**63}, "bad_parameter", "seed"),
    ({"program": "x", "seed": 2**70}, "bad_parameter", "seed"),
    ({"program": "x", "timeout_s": 0}, "bad_parameter", "timeout_s"),
    ({"program": "x", "timeout_s": -1}, "bad_parameter", "timeout_s"),
    (b'{"program": "x", "timeout_s": NaN}', "bad_parameter", "timeout_s"),
    (b'{"program": "x", "timeout_s": Infinity}', "bad_parameter", "timeout_s"),
    ({"program": "x", "parameters": {"a": {"b": 1}}}, "bad_parameter", "parameters.a"),
    ({"program": "x", "parameters": {"a": [1, [2, {}]]}}, "bad_parameter", "parameters.a[1][1]"),
    ({"program": "x", "parameters": {"a": 2**63}}, "bad_parameter", "parameters.a"),
    (b'{"program": "x", "parameters": {"a": [0, -1e999]}}', "bad_parameter", "parameters.a[1]"),
    # tensors
    ({"program": "x", "inputs": {"x": "file:///etc/passwd"}}, "bad_tensor", "inputs.x"),
    ({"program": "x", "inputs": {"x": None}}, "bad_tensor", "inputs.x"),
    ({"program": "x", "inputs": {"x": [[1, 2], [3, None]]}}, "bad_tensor", "inputs.x[1][1]"),
    ({"program": "x", "inputs": {"x": [[1, [2]], [3]]}}, "bad_tensor", "inputs.x[1]"),
    ({"program": "x", "inputs": {"x": [1, [2]]}}, "bad_tensor", "inputs.x[1]"),
    ({"program": "x", "inputs": {"x": [{"data": [1, None]}, [2]]}}, "bad_tensor", "inputs.x[0].data[1]"),
    ({"operation": "softmax", "inputs": {"input": [[1, 2], [3]]}}, "bad_tensor", "inputs.input[1]"),
    ({"operation": "softmax", "inputs": {"input": [OBJECT]}}, "bad_tensor", "inputs.input[0]"),
    ({"operation": "cat", "inputs": {"tensors": OBJECT}}, "bad_tensor", "inputs.tensors"),
    ({"operation": "cat", "inputs": {"tensors": 1.0}}, "bad_tensor", "inputs.tensors"),
    ({"operation": "cat", "inputs": {"tensors": [[1], [[2], 3]]}}, "bad_tensor", "inputs.tensors[1][1]"),
    ({"program": "x", "cotangent": {"output": [[1], [2, 3]]}}, "bad_tensor", "cotangent.output[1]"),
    ({"program": "x", "expected": {"x": {"data": [1], "shape": [2]}}}, "bad_tensor", "expected.x.data"),
    (b'{"program": "x", "inputs": {"x": [1, 1e999]}}', "bad_tensor", "inputs.x[1]"),
    (b'{"program": "x", "inputs": {"x": [' + b"9" * 5000 + b"]}}", "bad_tensor", "inputs.x[0]"),
    # operations
    ({"operation": "sofmax", "inputs": X}, "unknown_operation", None),
    ({"operation": "", "inputs": X}, "unknown_operation", None),
    ({"operation": "__class__", "inputs": X}, "unknown_operation", None),
    ({"operation": "os.system", "inputs": X}, "unknown_operation", None),
    ({"operation": "../../etc", "inputs": X}, "unknown_operation", None),
    ({"operation": "ѕoftmax", "inputs": X}, "unknown_operation", None),
    ({"operation": "x" * 10_000, "inputs": X}, "unknown_operation", None),
]  # fmt: skip


@pytest.mark.parametrize("padding", [b"", b" " * 5000], ids=["small", "big"])
@pytest.mark.parametrize(("body", "code", "at"), BAD, ids=[f"{i}" for i in range(len(BAD))])
def test_bad_bodies(body: Any, code: str, at: str | None, padding: bytes) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(PullbackError) as refused:
        read(raw + padding)
    assert refused.value.code == code, refused.value
    if code != "unknown_operation":
        assert refused.value.at == at
    problem = json.dumps(refused.value.problem())
    assert len(problem) < 2048
    assert "app/" not in problem
    assert "pydantic" not in problem


def test_refusals_say_what_was_meant() -> None:
    with pytest.raises(PullbackError) as refused:
        read({"program": "x", "wnat": ["vjp"]})
    assert refused.value.fix == "Write `want`."
    with pytest.raises(PullbackError) as refused:
        read({"program": "x", "want": ["outputs", "gradeint"]})
    assert refused.value.fix == 'Write "gradient".'
    assert refused.value.detail.startswith("`want[1]` must be one of outputs, gradient, vjp")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda s: (
        st.lists(s, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from(["data", "shape", "dtype"]), s, max_size=4)
    ),
    max_leaves=10,
)
FIELDS = ["operation", "program", "function", "inputs", "parameters", "want", "wrt", "of", "cotangent", "tangent", "batched", "expected",
          "format", "dtype", "encoding", "seed", "timeout_s"]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), JSON_VALUES, max_size=5))
def test_any_json_is_read_or_refused(body: dict[str, Any]) -> None:
    for subject in ({}, {"program": "x"}, {"operation": "cat"}):
        refused = None
        try:
            read({**body, **subject})
        except PullbackError as error:
            refused = error
        assert refused is None or (refused.status < 500 and len(json.dumps(refused.problem())) < 2048)


# --- lists of queries ------------------------------------------------------------------------------------------------


def test_a_list_of_queries_is_split() -> None:
    body = gzip.compress(b'[{"program": "x"}, {"program": 3}, {"a": 1, "a": NaN}]')
    pieces = bodies.split(memoryview(body), None, "gzip", None, LIMITS)
    assert pieces == [b'{"program": "x"}', b'{"program": 3}', b'{"a": 1, "a": NaN}']


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b'{"program": "x"}', JSON, "bad_request"),
        (b"[1", JSON, "bad_json"),
        (b"[]", SAFETENSORS, "unsupported_media_type"),
        (b"[]", "text/xml", "unsupported_media_type"),
        (b"[" + b"1," * 1000 + b"1]", JSON, "bad_request"),
    ],
)
def test_other_lists_are_refused(body: bytes, content_type: str, code: str) -> None:
    with pytest.raises(PullbackError) as refused:
        bodies.split(memoryview(body), content_type, None, None, LIMITS)
    assert refused.value.code == code


# --- safetensors -----------------------------------------------------------------------------------------------------


def binary(tensors: dict[str, Any], query: Any, **metadata: str) -> Query:
    text = query if isinstance(query, str) else json.dumps(query)
    return read(safetensors.torch.save(tensors, {"query": text, **metadata}), SAFETENSORS)


def test_a_query_in_a_file() -> None:
    query = binary(
        {
            "inputs.input": torch.tensor([[1.0, math.nan]], dtype=torch.bfloat16),
            "cotangent.output": torch.ones(1, 2),
            "tangent.input": torch.zeros(1, 2, dtype=torch.float64),
            "expected.input": torch.ones(1, 2, dtype=torch.complex64),
        },
        {"operation": "softmax", "parameters": {"dim": 1}, "want": ["vjp"], "cotangent": {"other": [1.0]}},
        format="pt",
    )
    assert query.inputs["input"] == TensorData("bfloat16", (1, 2), memoryview(b"\x80\x3f\xc0\x7f"))
    assert {name: t.dtype for name, t in query.cotangent.items()} == {"other": "float64", "output": "float32"}
    assert query.tangent["input"].shape == (1, 2)
    assert array(query.expected["input"]).tolist() == [[1 + 0j, 1 + 0j]]
    assert query.want == ("vjp",)


def test_lists_and_octets() -> None:
    body = safetensors.numpy.save(
        {"inputs.tensors.1": np.ones(2), "inputs.tensors.0": np.zeros((0, 2)), "tangent.tensors.1": np.ones(2)},
        {"query": '{"operation": "cat"}'},
    )
    query = read(body, "application/octet-stream")
    assert shapes(query.inputs["tensors"]) == [(0, 2), (2,)]
    assert list(query.tangent) == ["tensors.1"]
    mixed = binary({"inputs.tensors.1": torch.ones(2)}, {"operation": "cat", "inputs": {"tensors.0": [1.0]}})
    assert shapes(mixed.inputs["tensors"]) == [(1,), (2,)]


@pytest.mark.parametrize("where", ["metadata", "query"])
def test_complex128_goes_as_pairs(where: str) -> None:
    z = np.array([[1 + 2j, 3 - 4j]])
    names = ["inputs.z", "cotangent.output"]
    pairs = {"inputs.z": torch.view_as_real(torch.from_numpy(z)), "cotangent.output": torch.tensor([1.0, 2.0])}
    metadata = {"complex": json.dumps(names)} if where == "metadata" else {}
    query = binary(pairs, {"program": "z"} if metadata else {"program": "z", "complex": names}, **metadata)
    assert query.inputs["z"] == TensorData("complex128", (1, 2), memoryview(z.tobytes()))
    assert query.cotangent["output"].dtype == "complex64"
    assert query.cotangent["output"].shape == ()


ONE = {"inputs.x": torch.ones(1)}
BAD_FILES: list[tuple[dict[str, Any], Any, dict[str, str], str, str | None]] = [
    (ONE, "", {}, "bad_json", None),
    (ONE, "{", {}, "bad_json", None),
    (ONE, "[]", {}, "bad_request", None),
    (ONE, {"program": "x", "inputs": {"x": 1}}, {}, "bad_request", "inputs.x"),
    (ONE, {"program": "x", "inputs": [1]}, {}, "bad_request", "inputs"),
    (ONE, {"program": "x", "more": 1}, {}, "bad_request", "more"),
    (ONE, {"program": "x", "parameters": {"x": 1}}, {}, "bad_request", "parameters.x"),
    ({"x": torch.ones(1)}, {"program": "x"}, {}, "bad_request", "x"),
    ({"input.x": torch.ones(1)}, {"program": "x"}, {}, "bad_request", "input.x"),
    ({"inputs.": torch.ones(1)}, {"program": "x"}, {}, "bad_request", "inputs."),
    ({"parameters.x": torch.ones(1)}, {"program": "x"}, {}, "bad_request", "parameters.x"),
    ({"inputs.a b": torch.ones(1)}, {"program": "x"}, {}, "bad_request", "inputs"),
    (ONE, {"program": "x", "complex": ["inputs.x"]}, {}, "bad_tensor", "inputs.x"),
    (ONE, {"program": "x", "complex": ["inputs.y"]}, {}, "bad_request", "complex"),
    (ONE, {"program": "x", "complex": "inputs.x"}, {}, "bad_request", "complex"),
    (ONE, {"program": "x", "complex": [["x"]]}, {}, "bad_request", "complex"),
    (ONE, {"program": "x"}, {"complex": "inputs.x"}, "bad_json", None),
    ({"inputs.x": torch.ones(2, dtype=torch.int64)}, {"program": "x", "complex": ["inputs.x"]}, {}, "bad_tensor", "inputs.x"),
    ({"inputs.x": torch.ones(2, dtype=torch.float8_e5m2)}, {"program": "x"}, {}, "bad_tensor", "inputs.x.dtype"),
]


@pytest.mark.parametrize(("tensors", "query", "metadata", "code", "at"), BAD_FILES)
def test_bad_files(tensors: dict[str, Any], query: Any, metadata: dict[str, str], code: str, at: str | None) -> None:
    with pytest.raises(PullbackError) as refused:
        binary(tensors, query, **metadata)
    assert (refused.value.code, refused.value.at) == (code, at)
    assert len(json.dumps(refused.value.problem())) < 2048


def test_a_file_without_a_query() -> None:
    with pytest.raises(PullbackError, match="no query"):
        read(safetensors.torch.save(ONE), SAFETENSORS)


# --- answers ---------------------------------------------------------------------------------------------------------

ANSWER = Answer(
    {
        "outputs": {"output": held([[1.0, math.inf]]), "output.1": held([True], "bool")},
        "jacobian": {"output": {"z": held([1 + 2j, complex(0, math.nan)], "complex128")}},
        "check": {"z": {"agrees": False, "max_error": math.nan, "worst": [{"index": (0, 2), "autodiff": 0.1}], "likely": None}},
        "explain": {"inputs": {}, "steps": []},
    },
    (Note("complex_convention", "The gradient is the conjugate Wirtinger derivative.", "jacobian"), Note("plain", "é")),
    {"method": "reverse", "passes": 3, "flops": 1234, "device": "cpu"},
)
PLAIN = {
    "check": {"z": {"agrees": False, "max_error": "NaN", "worst": [{"index": [0, 2], "autodiff": 0.1}], "likely": None}},
    "explain": {"inputs": {}, "steps": []},
    "notes": [
        {"code": "complex_convention", "at": "jacobian", "message": "The gradient is the conjugate Wirtinger derivative."},
        {"code": "plain", "at": "", "message": "é"},
    ],
    "plan": {"method": "reverse", "passes": 3, "flops": 1234, "device": "cpu"},
}


def test_an_answer_in_json() -> None:
    (body,) = bodies.write(ANSWER, JSON, "list")
    assert json.loads(bytes(body), parse_constant=pytest.fail) == {
        "outputs": {
            "output": {"shape": [1, 2], "dtype": "float64", "data": [[1.0, "Infinity"]]},
            "output.1": {"shape": [1], "dtype": "bool", "data": [True]},
        },
        "jacobian": {"output": {"z": {"shape": [2], "dtype": "complex128", "data": [[1.0, 2.0], [0.0, "NaN"]]}}},
        **PLAIN,
    }
    assert list(json.loads(bytes(body)))[-2:] == ["notes", "plan"]


def test_an_answer_in_base64() -> None:
    (body,) = bodies.write(ANSWER, JSON, "base64")
    written = json.loads(bytes(body))
    z = written["jacobian"]["output"]["z"]
    assert (z["encoding"], z["shape"], z["dtype"]) == ("base64", [2], "complex128")
    assert repr(np.frombuffer(base64.b64decode(z["data"]), complex).tolist()) == "[(1+2j), nanj]"
    assert written["check"] == PLAIN["check"]


def test_an_answer_in_a_file() -> None:
    body = b"".join(bodies.write(ANSWER, SAFETENSORS, "list"))
    loaded = safetensors.torch.load(body)
    assert loaded.keys() == {"outputs.output", "outputs.output.1", "jacobian.output.z"}
    assert loaded["outputs.output"].tolist() == [[1.0, math.inf]]
    assert repr(torch.view_as_complex(loaded["jacobian.output.z"]).tolist()) == "[(1+2j), nanj]"
    length = int.from_bytes(body[:8], "little")
    rest = json.loads(json.loads(body[8 : 8 + length])["__metadata__"]["answer"], parse_constant=pytest.fail)
    assert rest == {**PLAIN, "complex": ["jacobian.output.z"]}


def test_an_answer_without_tensors_in_a_file() -> None:
    body = b"".join(bodies.write(Answer({"explain": {"steps": []}}), SAFETENSORS, "list"))
    assert safetensors.torch.load(body) == {}
    assert b'\\"notes\\":[]' in body


TENSOR = st.builds(
    lambda dtype, n, fill: TensorData(dtype, (n,), memoryview(bytes([fill]) * n * DTYPE_BYTES[dtype])),
    st.sampled_from(list(DTYPE_BYTES)), st.integers(0, 5), st.integers(0, 1),
)  # fmt: skip
NAMES = st.from_regex(r"[a-z_]{1,6}", fullmatch=True).filter(lambda name: not name.startswith("__"))


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(NAMES, TENSOR, max_size=4))
def test_an_answers_file_is_a_querys_file(tensors: dict[str, TensorData]) -> None:
    """What is answered as `inputs`, in any dtype, can be sent as inputs again."""
    body = b"".join(bodies.write(Answer({"inputs": tensors}), SAFETENSORS, "list"))
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + length])
    pairs = json.loads(header["__metadata__"]["answer"]).get("complex", [])
    header["__metadata__"] = {"query": json.dumps({"program": "x", "complex": pairs})}
    text = json.dumps(header).encode()
    assert read(len(text).to_bytes(8, "little") + text + body[8 + length :], SAFETENSORS).inputs == tensors


def test_the_example_of_every_operation_is_read() -> None:
    assert_of_every_operation(_assert_example_is_read)


def _assert_example_is_read(operation: Operation) -> None:
    query = read(operation.example)
    kinds = {(argument.name, argument.kind) for signature in operation.signatures for argument in signature.arguments}
    for argument, value in query.inputs.items():
        if isinstance(value, tuple) or (argument, "tensor") not in kinds:
            assert isinstance(value, tuple) == ((argument, "tensors") in kinds)
