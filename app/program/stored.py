"""Stored functions: files `NAME.py`, each one `def` in the language, with its inputs' dtypes and shapes as annotations."""

from __future__ import annotations

import ast
import difflib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from app.errors import PullbackError
from app.program.reading.source import TEXT_LIMIT_BYTES, Refusal, Source, read, wrapper
from app.query import COMPLEX_DTYPES, DTYPE_BYTES, INTEGER_DTYPES, Parameter

CARRIED: Final = Path(__file__).parent.parent / "functions"
_KINDS: Final = {"float": "number", "int": "integer", "bool": "boolean", "str": "string", "list": "list"}
_EXAMPLE_EXTENT: Final = 2  # where an annotation leaves an extent open: the least that shows an order
_log = logging.getLogger("pullback.functions")


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input. `shape`: extents, names of free axes (one name, one extent), or None where any shape goes."""

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One parameter. `kind`: `number integer boolean string list`; `default` is meaningless where `required`."""

    name: str
    kind: str
    required: bool
    default: Parameter = None


@dataclass(frozen=True)
class StoredFunction:
    """A function that can be asked by name.

    Attributes:
        text: the program, the whole file.
        outputs: their names, as far as the text alone tells.
    """

    name: str
    description: str
    text: str
    inputs: tuple[InputSpec, ...]
    parameters: tuple[ParameterSpec, ...]
    outputs: tuple[str, ...]

    @cached_property
    def entry(self) -> dict[str, Any]:
        """The function as `GET /v1/functions/{name}` gives it."""
        return {
            "name": self.name,
            "description": self.description,
            "program": self.text,
            "signature": {
                "inputs": [
                    {"name": i.name, "dtype": i.dtype, "shape": None if i.shape is None else list(i.shape)} for i in self.inputs
                ],
                "parameters": [
                    {"name": p.name, "kind": p.kind, "required": p.required} | ({} if p.required else {"default": p.default})
                    for p in self.parameters
                ],
                "outputs": [{"name": name} for name in self.outputs],
            },
            "example": {
                "function": self.name,
                "inputs": {i.name: _example(i) for i in self.inputs},
                "want": ["outputs", "vjp"],
            },
        }


class Functions:
    """The functions of one server, and the files that could not be read."""

    def __init__(self, functions: Mapping[str, StoredFunction], broken: Mapping[str, PullbackError]) -> None:
        self._functions = dict(sorted(functions.items()))
        self._broken = dict(sorted(broken.items()))

    def __iter__(self) -> Iterator[StoredFunction]:
        return iter(self._functions.values())

    def find(self, name: str) -> StoredFunction:
        """Raises `unknown_function`, with the nearest names, or with what is wrong in the file of that name."""
        if name in self._functions:
            return self._functions[name]
        if name in self._broken:
            error = self._broken[name]
            raise PullbackError(
                "unknown_function", f"The file of `{name}` cannot be read: {error.detail}", at="function", given=name
            )
        near = difflib.get_close_matches(name, self._functions, n=4, cutoff=0.5) or list(self._functions)[:8]
        raise PullbackError(
            "unknown_function",
            f"No function is called `{name[:128]}`; near it: {', '.join(near)}.",
            at="function",
            given=name,
            fix="GET /v1/functions lists them.",
        )

    def listing(self) -> dict[str, Any]:
        """`{"functions": […]}` of `GET /v1/functions`; a broken file stands there with its `error`."""
        broken = [{"name": name, "error": error.problem()} for name, error in self._broken.items()]
        return {"functions": [function.entry for function in self._functions.values()] + broken}


def load(folder: str | None) -> Functions:
    """The functions that come with the package and those of `folder`, which win where names agree.

    A file that cannot be read is named in the log and by `listing`; the others are served.
    """
    functions: dict[str, StoredFunction] = {}
    broken: dict[str, PullbackError] = {}
    for source_folder in (CARRIED, *((Path(folder),) if folder else ())):
        if not source_folder.is_dir():
            _log.error("the functions folder %s does not exist", source_folder)
            continue
        for path in sorted(source_folder.glob("*.py")):
            if path.name.startswith((".", "_")):
                continue
            functions.pop(path.stem, None)
            broken.pop(path.stem, None)
            try:
                functions[path.stem] = _read_file(path)
            except PullbackError as error:
                _log.error("the function file %s cannot be read: %s", path.name, error)
                broken[path.stem] = error
    return Functions(functions, broken)


def _read_file(path: Path) -> StoredFunction:
    try:
        with path.open("rb") as file:
            data = file.read(TEXT_LIMIT_BYTES + 1)
        return parse(path.stem, data.decode())
    except UnicodeDecodeError as error:
        raise PullbackError("bad_program", "The file is not UTF-8 text.", at="1:1") from error
    except OSError as error:
        raise PullbackError("bad_program", f"The file cannot be opened: {error.strerror}.", at="1:1") from error


def parse(name: str, text: str) -> StoredFunction:
    """The function in `text`, whose `def` must be called `name`. Raises `bad_program` with line and column."""
    source = read(text)
    if source.problems:
        raise source.problems[0]
    function = wrapper(source.tree)
    if function is None:
        raise PullbackError(
            "bad_program",
            "The file holds no single `def`.",
            at="1:1",
            expected=f"def {name}(x: float64[3]): …",
            fix="Write one `def`.",
        )
    if function.name != name or not name.isidentifier():
        raise source.refused(Refusal(f"The file {name}.py must define `{name}`.", expected=name, given=function.name), function)
    inputs, parameters = _arguments(source, function)
    if not inputs:
        raise source.refused(Refusal("The function has no tensor input.", f"Write `def {name}(x: float64[3]): …`."), function)
    return StoredFunction(name, ast.get_docstring(function) or "", text, inputs, parameters, _outputs(function))


def _arguments(source: Source, function: ast.FunctionDef) -> tuple[tuple[InputSpec, ...], tuple[ParameterSpec, ...]]:
    inputs: list[InputSpec] = []
    parameters: list[ParameterSpec] = []
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    for argument, default in [
        *zip(positional, defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]:
        annotation = argument.annotation
        if isinstance(annotation, ast.Name) and annotation.id in _KINDS:
            parameters.append(_parameter(source, argument.arg, _KINDS[annotation.id], default))
        elif annotation is None and default is not None:
            parameters.append(_parameter(source, argument.arg, None, default))
        elif default is not None:
            refusal = Refusal(
                f"The tensor `{argument.arg}` has a default.", "Annotate it `float`, `int`, `bool` or `str`: a parameter."
            )
            raise source.refused(refusal, argument)
        else:
            inputs.append(_input(source, argument))
    return tuple(inputs), tuple(parameters)


def _parameter(source: Source, name: str, kind: str | None, default: ast.expr | None) -> ParameterSpec:
    if default is None:
        return ParameterSpec(name, kind or "number", True)
    value = frozen(default_value(source, default))
    return ParameterSpec(name, kind or kind_of(value), False, value)


def kind_of(value: Parameter) -> str:
    """The kind of a parameter by its value; a number where nothing tells."""
    for python, kind in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (tuple, "list")):
        if isinstance(value, python):
            return kind
    return "number"


def frozen(value: Any) -> Parameter:
    return tuple(frozen(member) for member in value) if isinstance(value, list | tuple) else value


def default_value(source: Source, node: ast.expr) -> Any:
    """A default in a `def`: a plain literal."""
    refusal = Refusal("A default is a plain number, string, boolean, None or a list of these.")
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise source.refused(refusal, node) from error
    if not (value is None or isinstance(value, bool | int | float | str | list | tuple)):
        raise source.refused(refusal, node)
    return value


def _input(source: Source, argument: ast.arg) -> InputSpec:
    """`x`, `x: float64`, `x: float64[3]`, `x: float64["n", 3]`, `x: float64[...]`."""
    annotation = argument.annotation
    if annotation is None:
        return InputSpec(argument.arg, "float64", None)
    base = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    dtype = base.id if isinstance(base, ast.Name) else None
    if dtype not in DTYPE_BYTES:
        example = 'Write `float64["n", 3]`, or `float = 1.0` for a parameter.'
        raise source.refused(Refusal(f"The annotation of `{argument.arg}` names no dtype.", example), argument)
    if not isinstance(annotation, ast.Subscript):
        return InputSpec(argument.arg, dtype, None)
    inside = annotation.slice
    parts = inside.elts if isinstance(inside, ast.Tuple) else [inside]
    if len(parts) == 1 and isinstance(parts[0], ast.Constant) and parts[0].value is Ellipsis:
        return InputSpec(argument.arg, dtype, None)
    return InputSpec(argument.arg, dtype, tuple(_axis(source, part) for part in parts))


def _axis(source: Source, node: ast.expr) -> int | str:
    value = node.value if isinstance(node, ast.Constant) else None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31:
        return value
    if isinstance(value, str) and value.isidentifier():
        return value
    raise source.refused(Refusal("An axis is a number or a name in quotes.", 'Write `float64["n", 3]`.'), node)


def _outputs(function: ast.FunctionDef) -> tuple[str, ...]:
    last = function.body[-1]
    value = last.value if isinstance(last, ast.Return | ast.Expr) else None
    if isinstance(value, ast.Dict):
        return tuple(str(key.value) for key in value.keys if isinstance(key, ast.Constant))
    if isinstance(value, ast.Tuple):
        names = [part.id for part in value.elts if isinstance(part, ast.Name)]
        plain = len(names) == len(value.elts) == len(set(names))
        return tuple(names) if plain else tuple(f"output{index}" for index in range(len(value.elts)))
    return ("output",)


def _example(spec: InputSpec) -> Any:
    """A small tensor that fits: quarters for floating dtypes, zeros for integers."""
    shape = [_EXAMPLE_EXTENT if isinstance(axis, str) else axis for axis in spec.shape or ()]
    if 0 in shape or (spec.dtype in COMPLEX_DTYPES):
        return {"data": [0.0] * 0 if 0 in shape else [0.5, 0.0], "dtype": spec.dtype, "shape": shape if 0 in shape else []}
    integral = spec.dtype in (*INTEGER_DTYPES, "bool")
    values = iter(range(10**9))

    def nested(axes: list[int]) -> Any:
        if axes:
            return [nested(axes[1:]) for _ in range(min(axes[0], 64))]
        index = next(values)
        return (False if spec.dtype == "bool" else 0) if integral else (index % 7 - 2) / 4

    return nested(shape)
