"""What is asked and what comes back: tensors as bytes, Query, Answer; all frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias

DTYPE_BYTES: Final[dict[str, int]] = {
    "bool": 1, "uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16,
}  # fmt: skip
INTEGER_DTYPES: Final = ("uint8", "int8", "int16", "int32", "int64")
FLOATING_DTYPES: Final = ("float16", "bfloat16", "float32", "float64")
COMPLEX_DTYPES: Final = ("complex64", "complex128")
RANK_LIMIT: Final = 32  # NumPy had 32 up to version 1; PyTorch's own iterators stop at 64


class Wanted(NamedTuple):
    """A kind of result. `levels`: how many names lead to a tensor of it; 0: it is a report."""

    levels: int
    meaning: str


# What may be wanted (docs/contract.md, section 4), in the order of documentation. The reports' schemas stand in app/front/openapi/schemas.py,
# how each kind is computed in app/engine/kinds.py.
WANTS: Final[dict[str, Wanted]] = {
    "outputs": Wanted(1, "Output → its value."),
    "gradient": Wanted(1, "Of one real scalar output. Input → shape of input."),
    "vjp": Wanted(1, "Jᵀ·cotangent. Input → shape of input (a leading axis more with several cotangents)."),
    "jvp": Wanted(1, "J·tangent. Output → shape of output (a leading axis more with several tangents)."),
    "jacobian": Wanted(
        2,
        "Output → input → shape [output…, input…], or in the form that `format` asked for; a pair `z`, `conj_z` where a function of "
        "complex numbers is not holomorphic.",
    ),
    "hessian": Wanted(
        2, "Of one real scalar output. Input → input → shape [input…, input…], or in the form that `format` asked for."
    ),
    "hvp": Wanted(1, "Hessian·tangent, of one real scalar output. Input → shape of input."),
    "fisher": Wanted(
        1,
        "The mean over samples of g·gᵀ, the output being one log-likelihood a sample. Input → shape [n, n], n the number of the "
        "input's elements.",
    ),
    "fisher_diagonal": Wanted(
        1, "The mean over samples of g², the output being one log-likelihood a sample. Input → shape of input."
    ),
    "precision": Wanted(
        0, "Input → how many digits of its derivative are right, by comparison with a wider run, and which step lost them."
    ),
    "explain": Wanted(0, "The differentiability report: where and why there is a derivative or none."),
    "check": Wanted(0, "Input → the verdict on its derivative: autodiff, finite differences and `expected` compared."),
}
Want: TypeAlias = str  # a key of WANTS
# A matrix for each output and input: these come in the form that `format` asks for.
MATRICES: Final = frozenset(kind for kind, wanted in WANTS.items() if wanted.levels == 2)
SECOND: Final = frozenset({"hessian", "hvp"})  # second derivatives
REPORTS: Final = frozenset(kind for kind, wanted in WANTS.items() if wanted.levels == 0)
Format = Literal["dense", "diagonal", "sparse", "auto"]
Encoding = Literal["list", "base64"]
ComputeDtype = Literal["float64", "float32", "bfloat16", "float16", "complex128", "complex64"]


@dataclass(frozen=True, slots=True)
class TensorData:
    """A tensor as it travels.

    Attributes:
        dtype: a key of `DTYPE_BYTES`.
        shape: extents; rank at most `RANK_LIMIT`.
        data: the elements, row-major and little-endian: `prod(shape) * DTYPE_BYTES[dtype]` bytes, not copied.
        bare: it came as a bare JSON number or list, so its dtype is our guess and may be promoted (docs/contract.md, section 2).
    """

    dtype: str
    shape: tuple[int, ...]
    data: memoryview
    bare: bool = False


@dataclass(frozen=True, slots=True)
class SparseData:
    """A result by coordinates, as it travels.

    Attributes:
        dtype, shape: of the whole.
        indices: int64 `[rank, entries]`, row-major, without duplicates.
        values: `[entries]`, of `dtype`; explicit zeros may stand among them.
        holds: `everywhere`, or `here` where the pattern depends on values.
    """

    dtype: str
    shape: tuple[int, ...]
    indices: TensorData
    values: TensorData
    holds: Literal["everywhere", "here"]


Input = TensorData | tuple[TensorData, ...]
Parameter = None | bool | int | float | str | tuple["Parameter", ...]


@dataclass(frozen=True, slots=True)
class Query:
    """One gradient query (docs/contract.md, section 2). Exactly one of `operation`, `program`, `function` is set.

    Attributes:
        weighted: kinds that are of one real scalar (`hvp`…) are of ⟨cotangent, output⟩ instead of the output, which may then have
            any shape. No field of the contract's query: a foreign protocol asks so.
    """

    operation: str | None = None
    program: str | None = None
    function: str | None = None
    inputs: Mapping[str, Input] = field(default_factory=dict)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    want: tuple[Want, ...] = ("outputs",)
    wrt: tuple[str, ...] | None = None
    of: str | None = None
    cotangent: Mapping[str, TensorData] = field(default_factory=dict)
    tangent: Mapping[str, TensorData] = field(default_factory=dict)
    batched: tuple[str, ...] = ()
    expected: Mapping[str, TensorData] = field(default_factory=dict)
    format: Format = "dense"
    dtype: ComputeDtype | None = None
    encoding: Encoding = "list"
    seed: int | None = None
    timeout_s: float | None = None
    weighted: bool = False

    def of_tensors(self, inputs: Mapping[str, Input], cotangent: Mapping[str, TensorData]) -> Query:
        """The same of other tensors: `replace` takes twice as long, 7 µs."""
        return Query(
            self.operation, self.program, self.function, inputs, self.parameters, self.want, self.wrt, self.of, cotangent, self.tangent,
            self.batched, self.expected, self.format, self.dtype, self.encoding, self.seed, self.timeout_s, self.weighted,
        )  # fmt: skip

    def is_batched(self, leaf: str) -> bool:
        """Whether a tensor input, or the list that it is a member of (`xs` of `xs.0`), has a leading axis of samples."""
        return leaf in self.batched or leaf.rpartition(".")[0] in self.batched


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the client should know of an answer: a code, where, and a sentence."""

    code: str
    message: str
    at: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes back.

    Attributes:
        results: the answer's tree as in docs/contract.md, section 3: kind → names → TensorData (`outputs`, `vjp`, `jacobian`…) or
            SparseData, and plain JSON values for `explain` and `check`.
        notes: in the order in which they came up.
        plan: method, passes, flops, peak_bytes, device…
    """

    results: Mapping[str, Any]
    notes: tuple[Note, ...] = ()
    plan: Mapping[str, Any] = field(default_factory=dict)
