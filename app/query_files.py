"""From files at a terminal to a query: a program in `.py`, tensors in `.npy`, `.npz`, `.safetensors` and CSV. Nothing is unpickled."""

from __future__ import annotations

import base64
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from app.errors import PullbackError
from app.query import DTYPE_BYTES

_SUFFIXES: Final = (".npy", ".npz", ".safetensors", ".csv", ".json")


def query_body(
    text: bytes,
    *,
    is_program: bool,
    inputs: Sequence[str] = (),
    parameters: Sequence[str] = (),
    **fields: Any,
) -> bytes:
    """The JSON body of a query.

    Arguments:
        text: a query as JSON, or the text of a program.
        inputs: `NAME=FILE`, `NAME=NUMBERS`, or a file whose tensors have names.
        parameters: `NAME=VALUE`.
        fields: other fields of the query; those that are None or empty are left out.

    Raises:
        PullbackError: `bad_json`, `bad_tensor`, `bad_parameter`: what cannot be read, and what to write.
    """
    chosen = {name: value for name, value in fields.items() if value not in (None, [], ())}
    if not (is_program or inputs or parameters or chosen):
        return text
    query: dict[str, Any] = {"program": text.decode(errors="replace")} if is_program else _json(text)
    for option in inputs:
        query.setdefault("inputs", {}).update(_tensors(option))
    for option in parameters:
        name, sign, value = option.partition("=")
        if not sign:
            raise PullbackError("bad_parameter", f"`{option}` is no parameter.", expected="NAME=VALUE", given=option)
        query.setdefault("parameters", {})[name] = _value(value)
    return orjson.dumps(query | chosen)


def _json(text: bytes) -> dict[str, Any]:
    try:
        query = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise PullbackError("bad_json", f"The file is no JSON query: {error}.", fix="A program is a file NAME.py.") from None
    if not isinstance(query, dict):
        raise PullbackError("bad_request", "The file holds no single query.")
    return query


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _tensors(path_text: str) -> dict[str, Any]:
    """`x=x.npy`, `x=[1, 2]`, `weights.npz`, `net=model.safetensors` (its tensors as `net.NAME`)."""
    name, sign, source = path_text.partition("=")
    source = source if sign else path_text
    suffix = Path(source).suffix.lower()
    if suffix not in _SUFFIXES:
        if (sign and suffix == "") or source.startswith("[") or _is_number(source):
            return {name: _numbers(name, source)}
        raise PullbackError(
            "bad_tensor", f"`{source}` is no kind of file that is read here.", expected=", ".join(_SUFFIXES), given=suffix
        )
    members = dict(_members(Path(source), suffix))
    if not sign:
        if "" in members:
            raise PullbackError("bad_tensor", f"The tensor of {source} needs a name.", fix=f"Write --input NAME={source}.")
        return members
    return {f"{name}.{member}" if member else name: value for member, value in members.items()}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(name: str, text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise PullbackError(
            "bad_tensor", f"`{text}` is neither a file nor numbers.", at=f"inputs.{name}", fix=f"Write --input {name}=FILE.npy or "
            f"--input '{name}=[1.0, 2.0]'.",
        ) from None  # fmt: skip


def _members(path: Path, suffix: str) -> Iterator[tuple[str, Any]]:
    """The tensors of a file by name; the name of a single one is empty."""
    try:
        if suffix == ".json":
            yield "", orjson.loads(path.read_bytes())
        elif suffix == ".csv":
            yield "", _csv(path)
        elif suffix == ".safetensors":
            from safetensors.numpy import load_file

            for name, array in load_file(path).items():
                yield name, _encoded(name, array)
        elif suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    with archive.open(member) as file:
                        yield member.removesuffix(".npy"), _encoded(member, _array(file))
        else:
            with path.open("rb") as file:
                yield "", _encoded(path.name, _array(file))
    except OSError as error:
        raise PullbackError("bad_tensor", f"{path}: {error.strerror or 'it cannot be read'}.") from None
    except PullbackError:
        raise
    except Exception as error:
        raise PullbackError("bad_tensor", f"{path} cannot be read: {str(error)[:200]}.") from None


def _array(file: Any) -> Any:
    """An array of NumPy's own format; one that holds Python objects is refused."""
    from numpy.lib import format as npy

    return npy.read_array(file, allow_pickle=False)


def _csv(path: Path) -> Any:
    """Numbers between commas; a first line of names is passed over."""
    import numpy as np

    first = path.read_text().split("\n", 1)[0]
    named = not all(_is_number(cell) for cell in first.split(",") if cell.strip())
    return np.loadtxt(path, delimiter=",", skiprows=int(named), ndmin=1).tolist()


def _encoded(name: str, array: Any) -> dict[str, Any]:
    dtype = str(array.dtype.newbyteorder("="))
    if dtype not in DTYPE_BYTES:
        raise PullbackError("bad_tensor", f"`{name}` is {dtype}.", expected=", ".join(DTYPE_BYTES), given=dtype)
    import numpy as np

    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return {
        "data": base64.b64encode(little.tobytes()).decode(),
        "encoding": "base64",
        "dtype": dtype,
        "shape": list(array.shape),
    }
