"""PyTorch's own samples as queries: what a client makes of them who knows nothing but `GET /v1/operations/{name}`."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import torch
from torch import Tensor
from torch.testing._internal.opinfo.core import OpInfo

from app.catalogue import operation_page
from app.catalogue.dtypes import dtype_name
from app.catalogue.introspect.opinfos import opinfos, seed_cpu
from app.catalogue.read import find
from app.errors import PullbackError

# OpInfo (with its variant after a slash) → why its samples cannot be laid on the signature by position or kind, or give something else.
EXCEPTIONS: Final[dict[str, str]] = {
    "nn.functional.embedding": "the samples give the weight first, the function takes it second",
    "nn.functional.embedding_bag": "the samples give the weight first, the function takes it second",
    "_segment_reduce": "the samples give `unsafe`, which no query may: it switches the checks of memory off",
    "sum_to_size": "some samples give the size as several arguments",
    "to": "the samples give a device, which a query cannot choose",
    "where": "the samples give the input first, the function takes the condition first",
    "linalg.lstsq/grad_oriented": "the test keeps only the solution",
    "linalg.pinv/hermitian": "PyTorch's derivative is that of both triangles, and one is read",
    "linalg.pinv/singular": "the samples give two factors, and the test multiplies them",
    "svd_lowrank": "the samples give two factors, and the test multiplies them",
    "pca_lowrank": "the samples give two factors, and the test multiplies them",
    **dict.fromkeys(
        ("special.bessel_j0", "special.bessel_j1", "special.bessel_y0", "special.bessel_y1"),
        "PyTorch's own are off by up to 9e-7 (tests/catalogue/better compares ours with SciPy's)",
    ),
}
# What no plain query carries, and that changes no value.
_SILENT: Final = ("device", "layout", "memory_format", "requires_grad", "non_blocking")
_PLAIN: Final = (int, float, bool, str, type(None), torch.dtype)
_ELEMENTS: Final = 20_000
SEED: Final = 42  # with which PyTorch's tests run what draws


@dataclass(frozen=True, slots=True)
class Case:
    """One sample as a query, and PyTorch's own function and arguments for it."""

    info: OpInfo
    number: int
    operation: str
    inputs: dict[str, Tensor | list[Tensor]]
    parameters: dict[str, Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def expected(self) -> Any:
        """What PyTorch gives."""
        torch.default_generator.manual_seed(SEED)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.info.op(*self.args, **self.kwargs)


def cases(
    page: Callable[[str], Mapping[str, Any] | None],
    count: int,
    dtype: torch.dtype = torch.float64,
    names: Sequence[str] | None = None,
) -> Iterator[Case | str]:
    """At most `count` plain samples of each OpInfo that `page` knows and that draws nothing; a text in the place of one that fits no signature.

    Arguments:
        page: name → the operation's page (docs/contract.md, section 1), or None.
        names: only these OpInfos.
    """
    for info in opinfos():
        if names is not None and info.name not in names:
            continue
        operation = page(info.name)
        if operation is None or "random" in operation["tags"] or dtype not in info.supported_dtypes("cpu"):
            continue
        for number, sample in enumerate(itertools.islice(_samples(info, dtype), count)):
            values = (sample.input, *sample.args)
            placed = place(operation, values, sample.kwargs)
            if placed is None:
                yield f"{title(info)}: sample {number} fits no signature"
            else:
                yield Case(info, number, operation["name"], *placed, values, sample.kwargs)


def title(info: OpInfo) -> str:
    """The OpInfo's name, with its variant after a slash."""
    return f"{info.name}/{info.variant_test_name}" if info.variant_test_name else str(info.name)


def is_excepted(name: str) -> bool:
    """Whether the samples of `name` (as `title` gives it) are among the exceptions."""
    return name in EXCEPTIONS or name.partition("/")[0] in EXCEPTIONS


def _samples(info: OpInfo, dtype: torch.dtype) -> Iterator[Any]:
    seed_cpu(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for sample in info.sample_inputs("cpu", dtype, requires_grad=False):  # type: ignore[no-untyped-call]
            if _is_plain([sample.input, sample.args, sample.kwargs]):
                yield sample


def _is_plain(value: Any) -> bool:
    leaves = list(_leaves(value))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    return (
        all(isinstance(leaf, (*_PLAIN, Tensor)) for leaf in leaves)
        and all(tensor.layout == torch.strided for tensor in tensors)
        and sum(tensor.numel() for tensor in tensors) < _ELEMENTS
    )


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for member in value:
            yield from _leaves(member)
    elif isinstance(value, dict):
        for name, member in value.items():
            if name not in _SILENT:
                yield from _leaves(member)
    else:
        yield value


def place(
    page: Mapping[str, Any], values: Sequence[Any], named: Mapping[str, Any]
) -> tuple[dict[str, Tensor | list[Tensor]], dict[str, Any]] | None:
    """`inputs` and `parameters` for the first signature that takes these arguments in call order, else by kind; None where none does."""
    named = {name: value for name, value in named.items() if name not in _SILENT}
    for by_kind in (False, True):
        for signature in page["signatures"]:
            placed = _on(signature["arguments"], list(values), named, by_kind)
            if placed is not None:
                return placed
    return None


def _on(
    arguments: Sequence[Mapping[str, Any]], values: list[Any], named: Mapping[str, Any], by_kind: bool
) -> tuple[dict[str, Tensor | list[Tensor]], dict[str, Any]] | None:
    known = {argument["name"]: argument for argument in arguments}
    if not set(named) <= set(known):
        return None
    free = [argument for argument in arguments if argument["name"] not in named]
    if free and free[0]["kind"] == "tensors" and all(isinstance(value, Tensor) for value in values):
        values = [values]  # block_diag(a, b, c)
    bound: list[tuple[Mapping[str, Any], Any]] = []
    for value in values:
        argument = next((a for a in free if not by_kind or _fits(a, value)), None)
        if argument is None or (not by_kind and not _fits(argument, value)):
            return None
        free.remove(argument)
        bound.append((argument, value))
    bound += [(known[name], value) for name, value in named.items()]
    if any(argument["required"] for argument in free if argument["name"] not in named) or not all(
        _fits(a, v) for a, v in bound
    ):
        return None
    inputs: dict[str, Tensor | list[Tensor]] = {}
    parameters: dict[str, Any] = {}
    for argument, value in bound:
        if argument["kind"] in ("tensor", "tensors"):
            if value is not None:
                inputs[argument["name"]] = list(value) if argument["kind"] == "tensors" else value
        else:
            parameters[argument["name"]] = _json(value)
    return inputs, parameters


def _fits(argument: Mapping[str, Any], value: Any) -> bool:
    kind = argument["kind"]
    if value is None:
        return bool(argument.get("optional")) or not argument["required"]
    if kind == "tensor":
        return isinstance(value, Tensor)
    if kind == "tensors":
        return isinstance(value, list | tuple) and bool(value) and all(isinstance(member, Tensor) for member in value)
    members = value if isinstance(value, list | tuple) else [value]
    types: dict[str, Any] = {"string": str, "boolean": bool, "dtype": torch.dtype, "integer": int, "number": (int, float)}
    if kind in types:
        return isinstance(value, types[kind]) and not (kind == "integer" and isinstance(value, bool))
    return all(isinstance(member, int | float | list | tuple | None) for member in members)


def _json(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return dtype_name(value)
    return [_json(member) for member in value] if isinstance(value, list | tuple) else value


def tensors(result: Any) -> list[Tensor]:
    """The tensors of a result in order, as the answer's outputs are."""
    if isinstance(result, Tensor):
        return [result]
    return [tensor for member in result for tensor in tensors(member)] if isinstance(result, list | tuple) else []


def equal(expected: Tensor, actual: Tensor) -> bool:
    """Same shape, dtype and values, to rounding."""
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        return False
    return torch.allclose(expected, actual, rtol=1e-6, atol=1e-8, equal_nan=True)


def pages(http: httpx.Client) -> Callable[[str], Mapping[str, Any] | None]:
    """The page of an operation by one of its names; None where a server has none of that name."""

    def page(name: str) -> Mapping[str, Any] | None:
        reply = http.get(f"/v1/operations/{name}")
        return reply.json() if reply.status_code == 200 and name in (reply.json()["name"], *reply.json()["aliases"]) else None

    return page


def differentiable_page(name: str) -> Mapping[str, Any] | None:
    """As `pages`, from the catalogue itself, of operations that have a derivative alone."""
    try:
        operation = find(name)
    except PullbackError:
        return None
    return None if name not in (operation.name, *operation.aliases) or operation.order == 0 else operation_page.page(operation)
