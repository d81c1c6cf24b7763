"""Inputs and outputs as trees, and the paths into them: `x`, and `tensors.[0]` for a member of a list."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from app.errors import PullbackError
from app.limits import NAME_LIMIT
from app.protocols.describe import describe, plain_parameter
from app.protocols.elements import NUMPY
from app.protocols.models import Model
from app.protocols.tensor_names import checked_names
from app.query import Input, Parameter, TensorData

_PATH: Final = re.compile(r"([^.\[\]{}]+)(?:\.\[(\d{1,4})\])?")
_LIST_KINDS: Final = ("numbers", "integers", "booleans", "list")
ReadArray = Callable[[Any, str], TensorData]


@dataclass(frozen=True, slots=True)
class Arguments:
    """The members of `inputs`, by what they are in a query."""

    inputs: Mapping[str, Input]
    parameters: Mapping[str, Parameter]
    seed: int | None


def name_of(path: Any, at: str) -> str:
    """The query's name of a path. Raises PullbackError: `bad_parameter`."""
    match = _PATH.fullmatch(path) if type(path) is str and len(path) <= NAME_LIMIT else None
    if match is None:
        raise PullbackError(
            "bad_parameter",
            "This is no path of an array.",
            at=at,
            expected="a name, or NAME.[0] for a member of a list",
            given=describe(path),
        )
    return match[1] if match[2] is None else f"{match[1]}.{int(match[2])}"


def tree(results: Mapping[str, Any]) -> dict[str, Any]:
    """Results by name, where those of `NAME.0`, `NAME.1`… become the list NAME."""
    grown: dict[str, Any] = {}
    for name, value in results.items():
        base, _, index = name.rpartition(".")
        if base and index.isdigit():
            grown.setdefault(base, []).append(value)
        else:
            grown[name] = value
    return grown


def arguments(model: Model, tree: Any, tensors: frozenset[str], array: ReadArray) -> Arguments:
    """What `inputs` holds.

    Arguments:
        tensors: names that must be tensors, as a derivative with respect to them is asked.
        array: reads an array: its values, or its shape and dtype alone.

    Raises:
        PullbackError: `bad_request`, `bad_tensor`, `bad_parameter`.
    """
    if type(tree) is not dict:
        raise PullbackError("bad_request", "`inputs` is an object.", at="inputs", expected="an object", given=describe(tree))
    checked_names(tree, "inputs")
    inputs: dict[str, Input] = {}
    parameters: dict[str, Parameter] = {}
    seed: int | None = None
    for name, value in tree.items():
        at = f"inputs.{name}"
        if name == "seed" and name not in model.parameter_names:
            seed = _seed(value, at)
        elif _is_list_of_tensors(model, name, value):
            inputs[name] = tuple(array(member, f"{at}.[{index}]") for index, member in enumerate(value))
        elif _is_tensor(model, name, value, tensors):
            inputs[name] = array(value, at)
        else:
            parameters[name] = _plain(array(value, at) if type(value) is dict else value, at)
    return Arguments(inputs, parameters, seed)


def _is_list_of_tensors(model: Model, name: str, value: Any) -> bool:
    spec = model.input_names.get(name)
    if spec is None or not spec.several or type(value) is not list:
        return False
    # In some signature it may be a list of numbers instead (`spacing` of `gradient`).
    return name not in model.parameter_names or any(type(member) in (dict, list) for member in value)


def _is_tensor(model: Model, name: str, value: Any, tensors: frozenset[str]) -> bool:
    if name in tensors:
        return True
    if value is None or type(value) is str:
        return False
    if name in model.parameter_names:
        # Taken either way (`pow`'s exponent): an array is a tensor, and so is a list where the plain argument is none.
        plural = model.parameter_names[name].kind in _LIST_KINDS
        return name in model.input_names and (type(value) is dict or (type(value) is list and not plural))
    return name in model.input_names or type(value) is dict


def _seed(value: Any, at: str) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise PullbackError("bad_parameter", "`seed` is an integer, not negative.", at=at, given=describe(value))
    return value


def _plain(value: Any, at: str) -> Parameter:
    """A plain argument; one that came as an array, as NumPy's numbers do, becomes numbers again."""
    if isinstance(value, TensorData):
        if value.dtype not in NUMPY or len(value.shape) > 1:
            raise PullbackError("bad_parameter", "A parameter is a number or a list of numbers.", at=at)
        flat: Sequence[Any] = np.frombuffer(value.data, NUMPY[value.dtype]).tolist()
        return tuple(flat) if value.shape else flat[0]
    return plain_parameter(value, at, "a number, string, boolean, null, or a list of these")
