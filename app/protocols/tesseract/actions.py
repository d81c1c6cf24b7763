"""The calls of Tesseract Core: values, Jacobians, products with them, and shapes, of one operation or function each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, Final

from app.errors import PullbackError
from app.limits import TENSOR_COUNT_LIMIT
from app.protocols import strict_json
from app.protocols.content import JSON, decompressed
from app.protocols.describe import describe
from app.protocols.json_numbers import dumps
from app.protocols.json_tensors import checked_shape
from app.protocols.message import Asked, Message, OutputType, Server, Written
from app.protocols.models import Model
from app.protocols.tesseract import arrays
from app.protocols.tesseract.negotiation import FORMATS, negotiated
from app.protocols.tesseract.trees import Arguments, arguments, name_of, tree
from app.protocols.unsigned import WIDER
from app.query import DTYPE_BYTES, Answer, Query, TensorData

Names = dict[str, str]


def apply(message: Message, server: Server) -> Asked:
    """`POST …/apply`: the values of every output."""
    call = _Call(message, server)
    call.check_fields("inputs")
    return Asked(call.query(call.arguments()), partial(_write_values, form=call.form))


def jacobian(message: Message, server: Server) -> Asked:
    """`POST …/jacobian`: `{output: {input: array}}`, each array of shape [output…, input…]."""
    call = _Call(message, server)
    call.check_fields("inputs", "jac_inputs", "jac_outputs")
    outputs = call.paths("jac_outputs")
    inputs, sent = call.differentiated("jac_inputs")
    query = call.query(sent, want=("jacobian",), wrt=tuple(inputs.values()))
    call.check_outputs(outputs, "jac_outputs", query)
    return Asked(query, partial(_write_jacobian, inputs=inputs, outputs=outputs, form=call.form))


def jacobian_vector_product(message: Message, server: Server) -> Asked:
    """`POST …/jacobian_vector_product`: J·tangent for each of `jvp_outputs`."""
    call = _Call(message, server)
    call.check_fields("inputs", "jvp_inputs", "jvp_outputs", "tangent_vector")
    outputs = call.paths("jvp_outputs")
    inputs, sent = call.differentiated("jvp_inputs")
    query = call.query(
        sent, want=("jvp",), wrt=tuple(inputs.values()), tangent=call.vectors("tangent_vector", inputs, _shapes(sent))
    )
    call.check_outputs(outputs, "jvp_outputs", query)
    return Asked(query, partial(_write_product, kind="jvp", names=outputs, form=call.form))


def vector_jacobian_product(message: Message, server: Server) -> Asked:
    """`POST …/vector_jacobian_product`: Jᵀ·cotangent for each of `vjp_inputs`; each cotangent has its output's own shape."""
    call = _Call(message, server)
    call.check_fields("inputs", "vjp_inputs", "vjp_outputs", "cotangent_vector")
    outputs = call.paths("vjp_outputs")
    inputs, sent = call.differentiated("vjp_inputs")
    known = call.check_outputs(outputs, "vjp_outputs", call.query(sent, wrt=tuple(inputs.values())))
    cotangent = call.vectors("cotangent_vector", outputs, {name: kind.shape for name, kind in known.items()})
    query = call.query(sent, want=("vjp",), wrt=tuple(inputs.values()), cotangent=cotangent)
    return Asked(query, partial(_write_product, kind="vjp", names=inputs, form=call.form))


def abstract_eval(message: Message, server: Server) -> Written:
    """`POST …/abstract_eval`: the outputs' shapes and dtypes for inputs of which only these are known."""
    call = _Call(message, server)
    call.check_fields("inputs")
    room = [server.limits.body_bytes]
    sent = arguments(call.model, call.fields.get("inputs"), frozenset(), partial(_abstract_array, room=room))
    outputs = server.outputs(call.query(sent), True)
    shapes = {name: {"shape": kind.shape, "dtype": arrays.name_of(kind.dtype)} for name, kind in outputs.items()}
    return Written(JSON, (dumps(tree(shapes)),))


# --- what a call holds -----------------------------------------------------------------------------------------------


class _Call:
    """The body of a call to one model, and the form of its reply. The content type is not looked at."""

    def __init__(self, message: Message, server: Server) -> None:
        self.form: Final = negotiated(message.accept)
        self.model: Final[Model] = server.models.find(message.parameters["model"])
        self._server = server
        fields = strict_json.parse(decompressed(message.body, message.content_encoding, server.limits.body_bytes))
        if type(fields) is not dict:
            raise PullbackError("bad_request", "The body is not an object.", expected='{"inputs": {…}}', given=describe(fields))
        self.fields: Final[dict[str, Any]] = fields

    def check_fields(self, *names: str) -> None:
        for name in self.fields:
            if name not in names:
                raise PullbackError(
                    "bad_request",
                    f"There is no field {name[:64]!r}.",
                    at=name[:64],
                    expected=", ".join(names),
                    fix="Leave it out.",
                )
        missing = next((name for name in names if name not in self.fields), None)
        if missing is not None:
            raise PullbackError("bad_request", f"The field `{missing}` is missing.", at=missing, expected=", ".join(names))

    def arguments(self, differentiated: Names | None = None) -> Arguments:
        names = frozenset(name.partition(".")[0] for name in (differentiated or {}).values())
        return arguments(self.model, self.fields["inputs"], names, arrays.read)

    def paths(self, field: str) -> Names:
        """Path → name; a path given twice counts once."""
        sent = self.fields[field]
        if type(sent) is not list or not 0 < len(sent) <= TENSOR_COUNT_LIMIT:
            raise PullbackError(
                "bad_request",
                f"`{field}` is a list of paths.",
                at=field,
                expected="a list of at least one path",
                given=describe(sent),
            )
        return {path: name_of(path, f"{field}[{index}]") for index, path in enumerate(sent)}

    def query(self, sent: Arguments, **fields: Any) -> Query:
        return Query(
            operation=self.model.name if self.model.subject == "operation" else None,
            function=self.model.name if self.model.subject == "function" else None,
            inputs=sent.inputs,
            parameters=sent.parameters,
            seed=sent.seed,
            **fields,
        )

    def differentiated(self, field: str) -> tuple[Names, Arguments]:
        """The paths to differentiate by, and all arguments, among which they are. Raises PullbackError: `bad_parameter`."""
        names = self.paths(field)
        sent = self.arguments(names)
        known = _shapes(sent)
        for path, name in names.items():
            if name not in known:
                raise _no_such("input", path, field, known)
        return names, sent

    def check_outputs(self, asked: Names, field: str, query: Query) -> Mapping[str, OutputType]:
        """The outputs, among which are those that are asked for. Raises PullbackError: `bad_parameter`."""
        known = self._server.outputs(query, False)
        for path, name in asked.items():
            if name not in known:
                raise _no_such("output", path, field, known)
        return known

    def vectors(self, field: str, paths: Names, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, TensorData]:
        """One cotangent or tangent for each path, each of the shape that it belongs to. Raises PullbackError: `bad_cotangent`."""
        sent = self.fields[field]
        if type(sent) is not dict or sent.keys() != paths.keys():
            raise PullbackError(
                "bad_cotangent",
                f"`{field}` holds one array for each path.",
                at=field,
                expected=f"an object with the keys {', '.join(paths)}",
                given=describe(sent),
            )
        tensors: dict[str, TensorData] = {}
        for path, name in paths.items():
            vector = arrays.read(sent[path], f"{field}.{path}")
            if name in shapes and vector.shape != shapes[name]:
                raise PullbackError(
                    "bad_cotangent",
                    f"`{path}` has another shape than what it belongs to.",
                    at=f"{field}.{path}",
                    expected=f"shape {list(shapes[name])}",
                    given=f"shape {list(vector.shape)}",
                )
            tensors[name] = vector
        return tensors


def _no_such(what: str, path: str, field: str, known: Iterable[str]) -> PullbackError:
    return PullbackError(
        "bad_parameter",
        f"There is no {what} {path[:64]!r}.",
        at=field,
        expected="one of " + ", ".join(known),
        given=describe(path),
    )


def _shapes(sent: Arguments) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, value in sent.inputs.items():
        if isinstance(value, TensorData):
            shapes[name] = value.shape
        else:
            shapes.update({f"{name}.{index}": member.shape for index, member in enumerate(value)})
    return shapes


def _abstract_array(value: Any, at: str, room: list[int]) -> TensorData:
    """A tensor of zeros in the place of one that has only `shape` and `dtype`; whatever else stands there is read as it is.

    Arguments:
        room: bytes that are left: all of them together could stand in one body.
    """
    if type(value) is not dict or "data" in value:
        return arrays.read(value, at)
    dtype = value.get("dtype")
    if type(dtype) is not str or dtype not in arrays.DTYPES:
        raise PullbackError(
            "bad_tensor",
            "The dtype is not known.",
            at=f"{at}.dtype",
            expected=f"one of {', '.join(arrays.DTYPES)}",
            given=describe(dtype),
        )
    dtype = WIDER.get(dtype, dtype)
    shape = checked_shape(value.get("shape"), f"{at}.shape", dtype)
    room[0] -= prod(shape) * DTYPE_BYTES[dtype]
    if room[0] < 0:
        raise PullbackError(
            "body_too_large", "Arrays of these shapes are more than a body may hold.", at=at, given=str(list(shape))
        )
    return TensorData(dtype, shape, memoryview(bytes(prod(shape) * DTYPE_BYTES[dtype])))


# --- replies ---------------------------------------------------------------------------------------------------------


def _write_values(answer: Answer, form: str) -> Written:
    outputs = answer.results["outputs"]
    return _written(tree({name: arrays.write(value, FORMATS[form]) for name, value in outputs.items()}), form)


def _write_jacobian(answer: Answer, inputs: Names, outputs: Names, form: str) -> Written:
    results = answer.results["jacobian"]
    return _written(
        {
            out: {
                path: arrays.write(_tensor(_derivative_of(results, name, "jac_outputs"), wrt), FORMATS[form])
                for path, wrt in inputs.items()
            }
            for out, name in outputs.items()
        },
        form,
    )


def _write_product(answer: Answer, kind: str, names: Names, form: str) -> Written:
    results = answer.results[kind]
    return _written({path: arrays.write(_tensor(results, name), FORMATS[form]) for path, name in names.items()}, form)


def _derivative_of(results: Mapping[str, Any], name: str, at: str) -> Any:
    if name not in results:
        raise PullbackError("not_differentiable", f"`{name}` carries no derivative.", at=at, expected=", ".join(results))
    return results[name]


def _tensor(results: Mapping[str, Any], name: str) -> TensorData:
    value = _derivative_of(results, name, "inputs")
    if not isinstance(value, TensorData):  # the pair of a function that is not holomorphic
        raise PullbackError(
            "not_differentiable", "The function is not holomorphic, so this derivative is not one array.", at=name
        )
    return value


def _written(value: Any, form: str) -> Written:
    return Written(f"application/{form}", (dumps(value),))


Action = Callable[[Message, Server], Asked | Written]
ACTIONS: Final[Mapping[str, Action]] = {
    "apply": apply,
    "jacobian": jacobian,
    "jacobian_vector_product": jacobian_vector_product,
    "vector_jacobian_product": vector_jacobian_product,
    "abstract_eval": abstract_eval,
}
DERIVATIVES: Final[Sequence[str]] = ("jacobian", "jacobian_vector_product", "vector_jacobian_product")
