"""Tensors in JSON, in and out: every form, every refusal with its place, rounding against exact arithmetic."""

from __future__ import annotations

import base64
import json
import math
import struct
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import PullbackError
from app.protocols.elements import NUMPY
from app.protocols.json_numbers import dumps
from app.protocols.json_tensors import RaggedError, tensor
from app.protocols.native.json_answer import json_value, tensor_object
from app.protocols.strict_json import parse
from app.query import DTYPE_BYTES, INTEGER_DTYPES, TensorData


def read(text: str) -> TensorData:
    return tensor(parse(text.encode()), "inputs.x")


def values(data: TensorData) -> Any:
    """The elements as Python's, by numpy: the oracle of what the bytes mean."""
    if data.dtype == "bfloat16":
        bits = np.frombuffer(data.data, "<u2").astype(np.uint32) << 16
        return bits.view(np.float32).reshape(data.shape).tolist()
    return np.frombuffer(data.data, NUMPY[data.dtype]).reshape(data.shape).tolist()


READ = [
    # bare
    ("3", "int64", (), 3),
    ("1.5", "float64", (), 1.5),
    ("true", "bool", (), True),
    ('"-Infinity"', "float64", (), -math.inf),
    ("Infinity", "float64", (), math.inf),
    ("[]", "float64", (0,), []),
    ("[[], []]", "float64", (2, 0), [[], []]),
    ("[1, 2]", "int64", (2,), [1, 2]),
    ("[1, 2.5]", "float64", (2,), [1.0, 2.5]),
    ('[1, "Infinity"]', "float64", (2,), [1.0, math.inf]),
    ("[[true, false]]", "bool", (1, 2), [[True, False]]),
    ("[[[1]], [[2]], [[3]]]", "int64", (3, 1, 1), [[[1]], [[2]], [[3]]]),
    ("[0.5, 100000000000000000000]", "float64", (2,), [0.5, 1e20]),
    ("[-9223372036854775808, 9223372036854775807]", "int64", (2,), [-(2**63), 2**63 - 1]),
    # the object form
    ('{"data": 7}', "int64", (), 7),
    ('{"data": [1, 2], "dtype": null, "shape": null, "encoding": null}', "int64", (2,), [1, 2]),
    ('{"data": 1, "dtype": "float32"}', "float32", (), 1.0),
    ('{"data": [1, 2, 3, 4, 5, 6], "shape": [2, 3]}', "int64", (2, 3), [[1, 2, 3], [4, 5, 6]]),
    ('{"data": [[1, 2, 3], [4, 5, 6]], "shape": [2, 3], "dtype": "int8"}', "int8", (2, 3), [[1, 2, 3], [4, 5, 6]]),
    ('{"data": [5], "shape": []}', "int64", (), 5),
    ('{"data": 5, "shape": [], "encoding": "list"}', "int64", (), 5),
    ('{"data": 5, "shape": []}', "int64", (), 5),
    ('{"data": [], "shape": [0, 3], "dtype": "float32"}', "float32", (0, 3), []),
    ('{"data": [[], []], "shape": [2, 0, 3], "dtype": "bool"}', "bool", (2, 0, 3), [[], []]),
    ('{"data": [], "shape": [2, 0, 3], "dtype": "complex64"}', "complex64", (2, 0, 3), [[], []]),
    ('{"data": [0, 255], "dtype": "uint8"}', "uint8", (2,), [0, 255]),
    ('{"data": [-128, 127.0], "dtype": "int8"}', "int8", (2,), [-128, 127]),
    ('{"data": [1.0, 9007199254740993], "dtype": "int64"}', "int64", (2,), [1, 9007199254740993]),
    ('{"data": [1, "NaN", -2], "dtype": "float16"}', "float16", (3,), [1.0, math.nan, -2.0]),
    ('{"data": ["NaN", "-Infinity"], "dtype": "bfloat16"}', "bfloat16", (2,), [math.nan, -math.inf]),
    ('{"data": [1, -2], "dtype": "complex128"}', "complex128", (), 1 - 2j),
    ('{"data": [[1, -2]], "dtype": "complex64"}', "complex64", (1,), [1 - 2j]),
    ('{"data": [[1, 2], [3, 4]], "dtype": "complex64", "shape": [2, 1]}', "complex64", (2, 1), [[1 + 2j], [3 + 4j]]),
    ('{"data": [[0, "Infinity"]], "dtype": "complex64"}', "complex64", (1,), [complex(0, math.inf)]),
    ('{"data": "AQA=", "dtype": "bool", "shape": [2], "encoding": "base64"}', "bool", (2,), [True, False]),
    ('{"data": "", "dtype": "float64", "shape": [0, 3], "encoding": "base64"}', "float64", (0, 3), []),
    ('{"data": "AACAPw==", "dtype": "float32", "shape": [], "encoding": "base64"}', "float32", (), 1.0),
]


@pytest.mark.parametrize(("text", "dtype", "shape", "expected"), READ)
def test_read(text: str, dtype: str, shape: tuple[int, ...], expected: Any) -> None:
    tensor = read(text)
    assert (tensor.dtype, tensor.shape) == (dtype, shape)
    assert tensor.data.nbytes == math.prod(shape) * DTYPE_BYTES[dtype]
    assert repr(values(tensor)) == repr(expected)
    assert tensor.bare == ('"dtype": "' not in text)


# (text, where, what the refusal must say somewhere)
REFUSED = [
    ("null", "inputs.x", "null"),
    ('"http://169.254.169.254/latest"', "inputs.x", "a tensor"),
    ('"nan"', "inputs.x", "a tensor"),
    ("{}", "inputs.x", "data"),
    ('{"dtype": "float32"}', "inputs.x", "data"),
    ('{"data": [1], "dtpye": "float32"}', "inputs.x", "`dtype`"),
    ('{"data": [1], "layout": "sparse_coo"}', "inputs.x", "layout"),
    ("1e999", "inputs.x", "1e999"),
    # elements
    ('[1, "abc"]', "inputs.x[1]", "'abc'"),
    ("[1, null]", "inputs.x[1]", "null"),
    ("[1, true]", "inputs.x[1]", "true"),
    ("[true, 1]", "inputs.x[0]", "a number"),
    ('[[1, 2], [3, {"data": 4}]]', "inputs.x[1][1]", "data"),
    ("[[1, 2], [3, 1e999]]", "inputs.x[1][1]", "1e999"),
    (f"[{'1' * 5000}]", "inputs.x[0]", "1111"),
    (f"[0.5, {'1' * 400}]", "inputs.x[1]", "1.7977e308"),
    ("[9223372036854775808]", "inputs.x[0]", "int64"),
    ("[1, -9223372036854775809]", "inputs.x[1]", "int64"),
    ('{"data": [[1, 2], [3, null]], "dtype": "float32"}', "inputs.x.data[1][1]", "null"),
    ('{"data": [1, 2, 3, null], "shape": [2, 2]}', "inputs.x.data[3]", "null"),
    ('{"data": [true], "dtype": "float32"}', "inputs.x.data[0]", "a number"),
    ('{"data": [1], "dtype": "bool"}', "inputs.x.data[0]", "true or false"),
    ('{"data": ["NaN"], "dtype": "bool"}', "inputs.x.data[0]", "true or false"),
    ('{"data": ["NaN"], "dtype": "int32"}', "inputs.x.data[0]", "an integer"),
    ('{"data": [NaN], "dtype": "int32"}', "inputs.x.data[0]", "an integer"),
    ('{"data": [Infinity], "dtype": "uint8"}', "inputs.x.data[0]", "an integer"),
    ('{"data": [1, 1.5], "dtype": "int64"}', "inputs.x.data[1]", "1.5"),
    ('{"data": [1e17], "dtype": "int64"}', "inputs.x.data[0]", "an integer"),
    ('{"data": [9007199254740993.0], "dtype": "int64"}', "inputs.x.data[0]", "an integer"),  # as a float64 it is 2^53
    ('{"data": [0, 300], "dtype": "uint8"}', "inputs.x.data[1]", "0 to 255"),
    ('{"data": [-1], "dtype": "uint8"}', "inputs.x.data[0]", "0 to 255"),
    ('{"data": [-1.0], "dtype": "uint8"}', "inputs.x.data[0]", "0 to 255"),
    ('{"data": [128], "dtype": "int8"}', "inputs.x.data[0]", "-128 to 127"),
    ('{"data": [2147483648], "dtype": "int32"}', "inputs.x.data[0]", "int32"),
    ('{"data": [100000000000000000000], "dtype": "int16"}', "inputs.x.data[0]", "int16"),
    ('{"data": [0, -1e39], "dtype": "float32"}', "inputs.x.data[1]", "float32"),
    ('{"data": [70000], "dtype": "float16"}', "inputs.x.data[0]", "65504"),
    ('{"data": [65520], "dtype": "float16"}', "inputs.x.data[0]", "65504"),
    ('{"data": [3.4e38], "dtype": "bfloat16"}', "inputs.x.data[0]", "bfloat16"),
    ('{"data": [1e300], "dtype": "bfloat16"}', "inputs.x.data[0]", "bfloat16"),
    ('{"data": [[1, 1e39]], "dtype": "complex64"}', "inputs.x.data[0][1]", "float32"),
    # nesting
    ("[[1, 2], [3]]", "inputs.x[1]", "a list of 1"),
    ("[[[1], [2]], [[3], [4, 5]]]", "inputs.x[1][1]", "a list of 2"),
    ("[1, [2]]", "inputs.x[1]", "a list of 1"),
    ("[[1], 2]", "inputs.x[1]", "2"),
    ("[[], 2]", "inputs.x[1]", "2"),
    ("[" * 33 + "1" + "]" * 33, "inputs.x", "32"),
    ('{"data": [1, 2], "dtype": "complex64", "shape": [2]}', "inputs.x.data", "shape"),
    ('{"data": 1.5, "dtype": "complex64"}', "inputs.x.data", "[re, im]"),
    ('{"data": [1, 2, 3], "dtype": "complex64"}', "inputs.x.data", "[re, im]"),
    # shapes
    ('{"data": [1, 2, 3], "shape": [2, 2]}', "inputs.x.data", "3 elements"),
    ('{"data": [1, 2, 3, 4, 5], "shape": [2, 2]}', "inputs.x.data", "5 elements"),
    ('{"data": [[1, 2, 3], [4, 5, 6]], "shape": [3, 2]}', "inputs.x.data", "[3, 2]"),
    ('{"data": [[1, 2], [3, 4]], "shape": [4]}', "inputs.x.data", "[2, 2]"),
    ('{"data": [[[1], [2]]], "shape": [1, 2]}', "inputs.x.data", "[1, 2, 1]"),
    ('{"data": [[1, 2], [3, 4]], "shape": [2, 2, 1]}', "inputs.x.data", "[2, 2, 1]"),
    ('{"data": 1, "shape": [1]}', "inputs.x.data", "[1]"),
    ('{"data": [[]], "shape": [0, 1]}', "inputs.x.data", "[0, 1]"),
    ('{"data": [1], "shape": [-1]}', "inputs.x.shape[0]", "-1"),
    ('{"data": [1], "shape": [1, -5]}', "inputs.x.shape[1]", "-5"),
    ('{"data": [1, 1], "shape": [2.0]}', "inputs.x.shape[0]", "2.0"),
    ('{"data": [1], "shape": [true]}', "inputs.x.shape[0]", "true"),
    ('{"data": [1], "shape": ["3"]}', "inputs.x.shape[0]", "'3'"),
    ('{"data": [1], "shape": [null]}', "inputs.x.shape[0]", "null"),
    ('{"data": [1], "shape": [[1]]}', "inputs.x.shape[0]", "a list of 1"),
    ('{"data": [1], "shape": 1}', "inputs.x.shape", "a list"),
    ('{"data": [1], "shape": [9223372036854775808]}', "inputs.x.shape", "2^48"),
    ('{"data": [1], "shape": [1180591620717411303424]}', "inputs.x.shape", "2^48"),
    ('{"data": [], "shape": [4294967296, 4294967296]}', "inputs.x.shape", "2^48"),
    ('{"data": [], "shape": [4611686018427387904, 8]}', "inputs.x.shape", "2^48"),
    ('{"data": [], "shape": [65536, 65536, 65536, 65536, 65536]}', "inputs.x.shape", "2^48"),
    ('{"data": [], "shape": [0, 4611686018427387904]}', "inputs.x.shape", "2^48"),
    ('{"data": [1], "shape": [' + "1," * 64 + "1]}", "inputs.x.shape", "32"),
    ('{"data": [1], "shape": [' + "1," * 99_999 + "1]}", "inputs.x.shape", "32"),
    # words
    ('{"data": [1], "dtype": "FP8"}', "inputs.x.dtype", "FP8"),
    ('{"data": [1], "dtype": "torch.float32"}', "inputs.x.dtype", 'Write "float32"'),
    ('{"data": [1], "dtype": "object"}', "inputs.x.dtype", "object"),
    ('{"data": [1], "dtype": 5}', "inputs.x.dtype", "5"),
    ('{"data": [1], "encoding": "hex"}', "inputs.x.encoding", "base64"),
    ('{"data": [1], "encoding": ["list"]}', "inputs.x.encoding", "base64"),
    # numbers that no dtype holds
    ("1e400", "inputs.x", "beyond the range of float64"),
    ("[1, -1e400]", "inputs.x[1]", "beyond the range of float64"),
    # base64
    ('{"data": "AACAPw==", "encoding": "base64"}', "inputs.x", "dtype"),
    ('{"data": "AACAPw==", "encoding": "base64", "dtype": "float32"}', "inputs.x", "shape"),
    ('{"data": [1], "encoding": "base64", "dtype": "float32", "shape": [1]}', "inputs.x.data", "base64"),
    ('{"data": "AACAPw=", "encoding": "base64", "dtype": "float32", "shape": [1]}', "inputs.x.data", "padding"),
    ('{"data": "AACA\\nPw==", "encoding": "base64", "dtype": "float32", "shape": [1]}', "inputs.x.data", "base64"),
    ('{"data": "AAC_Pw==", "encoding": "base64", "dtype": "float32", "shape": [1]}', "inputs.x.data", "base64"),
    ('{"data": "é", "encoding": "base64", "dtype": "float32", "shape": [1]}', "inputs.x.data", "base64"),
    ('{"data": "AACAPw==", "encoding": "base64", "dtype": "float32", "shape": [2]}', "inputs.x.data", "8 bytes"),
    ('{"data": "AACAPw==", "encoding": "base64", "dtype": "uint8", "shape": [3]}', "inputs.x.data", "3 bytes"),
    ('{"data": "AQI=", "encoding": "base64", "dtype": "bool", "shape": [2]}', "inputs.x.data", "neither 0 nor 1"),
    ('{"data": "AACAPw==", "dtype": "float32", "shape": [1]}', "inputs.x.data", "AACAPw=="),
]  # fmt: skip


@pytest.mark.parametrize(("text", "at", "words"), REFUSED)
def test_refused(text: str, at: str, words: str) -> None:
    with pytest.raises(PullbackError) as refused:
        read(text)
    problem = refused.value.problem()
    assert problem["code"] == "bad_tensor"
    assert problem["at"] == at
    assert words in json.dumps(problem, ensure_ascii=False).replace('\\"', '"')
    assert len(json.dumps(problem)) < 2048


def test_ragged_lists_are_told_from_other_faults() -> None:
    with pytest.raises(RaggedError):
        read("[[1], [2, 3]]")
    with pytest.raises(PullbackError) as refused:
        read("[[1], [null]]")
    assert not isinstance(refused.value, RaggedError)


# --- rounding, against exact arithmetic ------------------------------------------------------------------------------


def _nearest_bfloat16(x: float) -> Fraction | None:
    """x rounded once to 8 significant bits, half to even, by exact arithmetic; None where it overflows."""
    exact = Fraction(x)
    if exact == 0:
        return exact
    exponent = max(math.frexp(x)[1] - 1, -126)
    step = Fraction(2) ** (exponent - 7)
    rounded = round(exact / step) * step  # Python rounds a Fraction half to even
    return rounded if abs(rounded) < Fraction(2) ** 128 else None


@settings(max_examples=500, deadline=None)
@given(
    st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(-1e39, 1e39)
    | st.floats(width=16, allow_nan=False, allow_infinity=False)
)
@example(1.00390625)  # a midpoint: 1 + 2^-8
@example(1.00390625 + 2**-40)  # just above: two roundings to nearest would lose it
@example(1.01171875 - 2**-40)
@example(-(1.00390625 + 2**-52))
@example(2.0**-134)
@example(2.0**-134 + 2.0**-180)
@example(3.4e38)
@example(3.3961775292304957e38)  # the midpoint below overflow
@example(-0.0)
def test_bfloat16_is_rounded_once_to_nearest_even(x: float) -> None:
    expected = _nearest_bfloat16(x)
    text = f'{{"data": [{x!r}], "dtype": "bfloat16"}}'
    if expected is None:
        with pytest.raises(PullbackError, match="is needed"):
            read(text)
        return
    (decoded,) = values(read(text))
    assert Fraction(decoded) == expected
    assert math.copysign(1, decoded) == math.copysign(1, x)


@pytest.mark.parametrize(("dtype", "code"), [("float16", "<e"), ("float32", "<f")])
@settings(max_examples=300, deadline=None)
@given(x=st.floats(allow_nan=False, allow_infinity=False) | st.floats(-70000, 70000) | st.floats(-4e38, 4e38))
def test_narrow_floats_are_those_of_struct(dtype: str, code: str, x: float) -> None:
    text = f'{{"data": [0, {x!r}], "dtype": "{dtype}"}}'
    try:
        expected = struct.pack(code, x)
    except OverflowError:
        with pytest.raises(PullbackError) as refused:
            read(text)
        assert refused.value.at == "inputs.x.data[1]"
        return
    assert bytes(read(text).data[len(expected) :]) == expected


@pytest.mark.parametrize("dtype", INTEGER_DTYPES)
@settings(max_examples=60, deadline=None)
@given(number=st.integers(-(2**64), 2**64) | st.integers(-300, 300))
def test_integers_never_wrap(dtype: str, number: int) -> None:
    text = f'{{"data": [{number}], "dtype": "{dtype}"}}'
    limits = np.iinfo(dtype)
    if limits.min <= number <= limits.max:
        assert values(read(text)) == [number]
    else:
        with pytest.raises(PullbackError):
            read(text)


# --- round trips -----------------------------------------------------------------------------------------------------


@st.composite
def tensors(draw: st.DrawFn) -> TensorData:
    """Any bits of any dtype, NaNs and infinities among them."""
    dtype = draw(st.sampled_from(list(DTYPE_BYTES)))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    count = math.prod(shape)
    raw = draw(st.binary(min_size=count * DTYPE_BYTES[dtype], max_size=count * DTYPE_BYTES[dtype]))
    if dtype == "bool":
        raw = bytes(byte & 1 for byte in raw)
    elif dtype not in INTEGER_DTYPES:
        # A NaN's payload has no word in JSON: every NaN becomes the quiet one.
        part = {"complex64": "float32", "complex128": "float64"}.get(dtype, dtype)
        if part == "bfloat16":
            bits = np.frombuffer(raw, "<u2")
            raw = np.where((bits & 0x7FFF) > 0x7F80, np.uint16(0x7FC0), bits).tobytes()
        else:
            parts = np.frombuffer(raw, NUMPY[part])
            raw = np.where(np.isnan(parts), NUMPY[part].type(math.nan), parts).tobytes()
    return TensorData(dtype, shape, memoryview(raw))


@settings(max_examples=300, deadline=None)
@given(tensors(), st.sampled_from(["list", "base64"]))
def test_what_is_written_is_read_back_to_the_bit(data: TensorData, encoding: Any) -> None:
    text = dumps(tensor_object(data, encoding))
    back = tensor(parse(text), "x")
    assert (back.dtype, back.shape, bytes(back.data)) == (data.dtype, data.shape, bytes(data.data))
    plain = json.loads(text, parse_constant=pytest.fail)
    assert plain["shape"] == list(data.shape)
    assert plain["dtype"] == data.dtype
    if encoding == "base64":
        assert plain["encoding"] == "base64"
        assert base64.b64decode(plain["data"]) == bytes(data.data)


def _spelled(value: Any) -> Any:
    if isinstance(value, list):
        return [_spelled(member) for member in value]
    if isinstance(value, complex):
        return [_spelled(value.real), _spelled(value.imag)]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


@settings(max_examples=200, deadline=None)
@given(tensors())
def test_what_is_written_in_lists_is_what_numpy_says(data: TensorData) -> None:
    written = json.loads(dumps(tensor_object(data)))["data"]
    expected = _spelled(values(data))
    if data.dtype in ("float32", "complex64", "bfloat16", "float16"):  # written short: the same float32, not the same float64
        written, expected = (_single(tree) for tree in (written, expected))
    assert written == expected


def _single(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_single(member) for member in tree]
    return tree if isinstance(tree, str) else float(np.float32(tree))


def test_written_numbers_are_short_and_never_null() -> None:
    x = np.array([0.1, math.nan, -math.inf, math.inf, 1e-45], np.float32)
    data = TensorData("float32", (5,), memoryview(x.tobytes()))
    assert dumps(tensor_object(data)) == b'{"shape":[5],"dtype":"float32","data":[0.1,"NaN","-Infinity","Infinity",1e-45]}'
    scalar = TensorData("float64", (), memoryview(np.float64(math.nan).tobytes()))
    assert dumps(tensor_object(scalar)) == b'{"shape":[],"dtype":"float64","data":"NaN"}'
    empty = TensorData("float16", (0, 3), memoryview(b""))
    assert dumps(tensor_object(empty)) == b'{"shape":[0,3],"dtype":"float16","data":[]}'
    all_nan = TensorData("float64", (2, 1), memoryview(np.full(2, math.nan).tobytes()))
    assert dumps(tensor_object(all_nan)) == b'{"shape":[2,1],"dtype":"float64","data":[["NaN"],["NaN"]]}'


def test_unaligned_bytes_are_written_right() -> None:
    raw = memoryview(b"x" + np.array([1.5, -2.5]).tobytes())[1:]
    assert json.loads(dumps(tensor_object(TensorData("float64", (2,), raw))))["data"] == [1.5, -2.5]


def test_plain_values_keep_their_nonfinite_numbers() -> None:
    tree = {"max_error": math.nan, "worst": [{"index": (0, 1), "numeric": -math.inf}], "agrees": False, "none": None}
    text = dumps(json_value(tree))
    assert text == b'{"max_error":"NaN","worst":[{"index":[0,1],"numeric":"-Infinity"}],"agrees":false,"none":null}'
