"""Python's, NumPy's and math's functions on plain values and on functions of the program: `np.sqrt(2)`, `map`, `partial`, `isinstance`."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any, Final

import torch

from app.program.library import vocabulary
from app.program.library.builtins import Builtins
from app.program.library.factories import PYTHON_DTYPES, PYTHON_NAMES, Device, dtype_of
from app.program.modules.layers import LayerValue
from app.program.packages import formatting
from app.program.packages.python_containers import Deque
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.graph_values import Emit, Value, is_tensor
from app.program.semantics.sets import Distinct
from app.program.semantics.static import named
from app.program.semantics.values import (
    MISSING,
    VIEWS,
    ClassValue,
    DefaultDict,
    ErrorValue,
    FunctionValue,
    Instance,
    Iterator,
    Named,
    Partial,
    charged,
    plain_member,
)

# Python's functions between numbers and texts.
_TEXTS: Final[dict[str, Callable[..., Any]]] = {"ord": ord, "chr": chr, "bin": bin, "hex": hex, "oct": oct, "repr": repr}
Invoke = Callable[[Value, tuple[Value, ...], dict[str, Value]], Value]
_COMBINED: Final[dict[str, Callable[..., Any]]] = {
    "itertools.product": itertools.product, "itertools.combinations": itertools.combinations, "itertools.permutations": itertools.permutations,
    "itertools.combinations_with_replacement": itertools.combinations_with_replacement,
}  # fmt: skip
_TYPES: Final[dict[str, Any]] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "list": list,
    "tuple": tuple,
    "dict": dict,
    "complex": complex,
    "set": Distinct,
    "frozenset": Distinct,
    "deque": Deque,
    "defaultdict": DefaultDict,
    "OrderedDict": dict,
    "Counter": Counter,
    "range": range,
    "slice": slice,
    "NoneType": type(None),
    "object": object,
    "Iterator": Iterator,
    "Iterable": (list, tuple, dict, str, range, Distinct, Iterator, *VIEWS),
    "Sequence": (list, tuple, str, range),
    "Mapping": dict,
    "Number": (int, float, complex),
    "Real": (int, float),
    "Integral": int,
    "integer": (),
    "floating": (),
}
# Of Python's lists these are none, though they are lists here.
_NO_LISTS: Final = (Deque,)
# NumPy's functions on plain numbers that math has under another name.
NUMPY: Final = {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2", "power": "pow", "absolute": "fabs", "abs": "fabs",
}  # fmt: skip


# NumPy's makers of arrays, as PyTorch's of tensors; its functions that PyTorch calls otherwise; those that take a list of arrays.
NUMPY_ARRAYS: Final = {
    "array": "tensor", "asarray": "tensor", "zeros": "zeros", "ones": "ones", "full": "full", "eye": "eye", "identity": "eye", "arange": "arange",
    "linspace": "linspace", "logspace": "logspace", "empty": "zeros",
}  # fmt: skip
NUMPY_OPERATIONS: Final = {
    "concatenate": "cat", "clip": "clamp", "power": "pow", "absolute": "abs", "transpose": "t", "conjugate": "conj", "expand_dims": "unsqueeze",
    "repeat": "repeat_interleave", "max": "amax", "min": "amin", "mod": "remainder", "median": "quantile", "split": "tensor_split",
    "array_split": "tensor_split", "trapz": "trapezoid",
}  # fmt: skip
# NumPy's names that PyTorch has for something else: what to write for NumPy's meaning.
NUMPY_OTHERWISE: Final = {
    "gradient": "Write `torch.gradient(a)[0]`.", "nanmedian": "Write `torch.nanquantile(a, 0.5)`.",
    "nonzero": "Write `torch.nonzero(a, as_tuple=True)`.", "histogram": "Write `torch.histc(a, bins, min, max)`.",
}  # fmt: skip
# Of two arrays, where PyTorch's takes no plain number in the place of one.
NUMPY_OF_TWO: Final = (
    "maximum",
    "minimum",
    "fmax",
    "fmin",
    "arctan2",
    "hypot",
    "heaviside",
    "logaddexp",
    "greater",
    "less",
    "greater_equal",
    "less_equal",
    "copysign",
)
NUMPY_LISTS: Final = ("concatenate", "stack", "hstack", "vstack", "dstack")


def numpy_arguments(name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> tuple[tuple[Value, ...], dict[str, Value]]:
    """The arguments of NumPy's function as PyTorch's takes them: `np.std` divides by n, `np.median` is the quantile at a half."""
    if name in NUMPY_OTHERWISE:
        raise Refusal(f"`np.{name}` is not in the language: PyTorch's `{name}` is another.", NUMPY_OTHERWISE[name])
    if name in ("std", "var"):
        if len(args) > 2:
            raise Refusal(f"`np.{name}` takes an array and an axis by position here.", "Give the others by name: `ddof=1`.")
        rest = {key: value for key, value in kwargs.items() if key not in ("ddof", "correction")}
        return args, {**rest, "correction": kwargs.get("ddof", kwargs.get("correction", 0))}
    if name == "meshgrid":
        return args, {"indexing": "xy", **kwargs}
    if name == "median" and args:
        return (args[0], 0.5, *args[1:]), kwargs
    return args, kwargs


def limits(short: str, args: tuple[Value, ...], default: torch.dtype) -> torch.finfo | torch.iinfo:
    """`torch.finfo(dtype)`, `torch.iinfo(dtype)`."""
    dtype = args[0] if args else default
    if isinstance(dtype, str):
        dtype = dtype_of(dtype)
    if not isinstance(dtype, torch.dtype):
        raise Refusal(f"`{short}` takes a dtype, not {named(dtype)}.", f"Write `{short}(x.dtype)`.")
    kind: Any = torch.finfo if short.endswith("finfo") else torch.iinfo
    return static.computed(kind, dtype, what=f"`{short}`")  # type: ignore[no-any-return]


class Plain:
    """Functions that take functions, and questions about plain values."""

    def __init__(self, invoke: Invoke, builtins: Builtins, spend: Callable[[int], None]) -> None:
        self._invoke, self._items, self._stream, self._spend = invoke, builtins.items, builtins.stream, spend
        self._holds: Callable[[Value], bool] = lambda value: builtins.holds(value)

    @functools.cached_property
    def table(self) -> dict[str, Callable[[Emit, tuple[Value, ...], dict[str, Value]], Value]]:
        """By name; made where a program first calls something by its name."""
        return {
            "partial": self._partial, "reduce": self._reduce, "map": self._map, "filter": self._filter, "dict": self._dict,
            "OrderedDict": self._dict, "defaultdict": self._defaultdict,
            "isinstance": self._isinstance, "setattr": self._setattr, "divmod": self._divmod, "slice": self._slice, "str": self._str,
            "vars": self._vars, "type": self._type, "namedtuple": self._namedtuple,
            "issubclass": self._issubclass,
            **{name: functools.partial(self._text, name) for name in _TEXTS}, **{name: functools.partial(self._combined, name) for name in _COMBINED},
        }  # fmt: skip

    def _partial(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Partial:
        if not args:
            raise Refusal("`partial` takes a function.")
        return Partial(args[0], args[1:], kwargs)

    def _reduce(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        if len(args) not in (2, 3):
            raise Refusal("`reduce` takes a function, values and a start.")
        values = self._items(emit, args[1])
        values = [args[2], *values] if len(args) == 3 else values
        if not values:
            raise Refusal("`reduce` of nothing has no value.", "Give a start as the third argument.")
        return functools.reduce(lambda left, right: self._invoke(args[0], (left, right), {}), values)

    def _map(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Iterator:
        if len(args) < 2:
            raise Refusal("`map` takes a function and lists.")
        groups = zip(*(self._stream(emit, v) for v in args[1:]), strict=False)
        return Iterator(self._invoke(args[0], group, {}) for group in charged(groups, len(args), self._spend))

    def _filter(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Iterator:
        if len(args) != 2:
            raise Refusal("`filter` takes a function and a list.")
        return Iterator(self._passed(args[0], self._stream(emit, args[1])))

    def _passed(self, test: Value, members: Iterator) -> Generator[Value]:
        for member in members:
            if self._holds(member if test is None else self._invoke(test, (member,), {})):
                yield member

    def _dict(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> dict[str, Value]:
        entries: dict[Any, Value] = {}
        if args and isinstance(args[0], dict):
            self._spend(1 + len(args[0]) // 8)
            entries |= args[0]
        elif args:
            for pair in self._items(emit, args[0]):
                if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str | int):
                    raise Refusal("A dict is made of pairs of a string and a value.")
                entries[pair[0]] = pair[1]
        return entries | kwargs

    def _isinstance(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> bool:
        if len(args) != 2:
            raise Refusal("`isinstance` takes a value and a type.")
        return any(self._is(args[0], kind) for kind in (args[1] if isinstance(args[1], tuple) else (args[1],)))

    def _issubclass(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> bool:
        """`issubclass(Net, nn.Module)`: what an object of the first is, it is."""
        if len(args) != 2 or not isinstance(args[0], ClassValue):
            raise Refusal("`issubclass` takes a class of the program and another.", "Ask an object with `isinstance`.")
        kind = args[0]
        return self._isinstance(emit, (Instance(kind), args[1]), {})

    def _text(self, name: str, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        if len(args) != 1 or not formatting.is_plain(args[0]):
            raise Refusal(f"`{name}` does not work on {named(args[0]) if args else 'nothing'} here.")
        return static.computed(_TEXTS[name], args[0], what=f"`{name}`")

    def _namedtuple(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> ClassValue:
        """`namedtuple("Point", ["x", "y"])`, or `"x y"`."""
        names = dict(zip(("typename", "field_names"), args, strict=False)) | kwargs
        defaults = names.pop("defaults", None) or ()
        fields = names.get("field_names")
        fields = fields.replace(",", " ").split() if isinstance(fields, str) else fields
        is_right = isinstance(fields, list | tuple) and all(
            isinstance(f, str) and f.isidentifier() and f[0] != "_" for f in fields
        )
        if not is_right or set(names) != {"typename", "field_names"} or not isinstance(names["typename"], str):
            raise Refusal("`namedtuple` takes a name and the names of its fields.", 'Write `namedtuple("Point", ["x", "y"])`.')
        members: tuple[str, ...] = tuple(fields or ())
        own = dict(zip(reversed(members), reversed(self._items(emit, defaults)), strict=False))
        return ClassValue(names["typename"], (), module=False, own=own, fields=members, is_tuple=True)

    def _type(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """`type(value)`: a class of the program, or the name of one of PyTorch's or Python's."""
        if len(args) != 1 or kwargs:
            raise Refusal("`type` takes one value: it makes no classes here.", "Write `class Name:`.")
        (value,) = args
        if isinstance(value, Instance) and isinstance(value.kind, ClassValue):
            return value.kind
        if is_tensor(value):
            return Named("torch.Tensor")
        if isinstance(value, Instance | LayerValue):
            return Named(f"torch.nn.{value.kind if isinstance(value, Instance) else value.name}")
        if value is None:
            return Named("NoneType")
        if isinstance(value, ErrorValue):
            return Named(value.raises)
        for name, kind in _TYPES.items():
            if type(value) is kind:
                return PYTHON_DTYPES.get(name, Named(name))
        raise Refusal(f"The type of {named(value)} has no name here.", "Ask with `isinstance`.")

    def _is(self, value: Value, kind: Value) -> bool:
        if isinstance(kind, ClassValue):
            own = getattr(value, "kind", None)
            if isinstance(own, ClassValue) and _extends(own, kind):
                return True
            return kind.asks is not None and all(_has(value, own, name) for each in kind.order for name in each.asks or ())
        if isinstance(kind, torch.dtype):  # the words float, int and bool are dtypes where they are not called
            kind = Named(PYTHON_NAMES.get(kind, ""))
        if not isinstance(kind, Named):
            raise Refusal(f"{named(kind).capitalize()} is no type here.", "Use `torch.Tensor`, `int`, `float`, `nn.Linear`…")
        short = vocabulary.spelled(kind.path)
        if short == "Tensor":
            return is_tensor(value)
        if short == "nn.Module":
            return isinstance(value, LayerValue) or (isinstance(value, Instance) and value.is_module)
        layer = vocabulary.layer_name(kind.path)
        if layer is not None:
            return isinstance(value, LayerValue) and value.name == layer
        if vocabulary.container_name(kind.path):
            return isinstance(value, Instance) and value.kind == vocabulary.container_name(kind.path)
        name = short.rpartition(".")[2]
        if name in _TYPES:
            return _is_of_type(plain_member(value), name)
        if vocabulary.is_exception(kind.path):
            if isinstance(value, ErrorValue):
                return vocabulary.is_below(value.raises, name)
            above = value.kind.builtin if isinstance(value, Instance) and isinstance(value.kind, ClassValue) else None
            return above is not None and vocabulary.is_exception(above) and vocabulary.is_below(above, name)
        raise Refusal(f"`{kind.path}` is no type here.", "Use `torch.Tensor`, `int`, `float`, `nn.Linear`…")

    def _object(self, what: str, args: tuple[Value, ...]) -> tuple[Instance, str]:
        if len(args) < 2 or not isinstance(args[0], Instance) or not isinstance(args[1], str) or args[1].startswith("_"):
            raise Refusal(f"`{what}` is for objects of the program's own classes.", "Write the attribute: `x.shape`.")
        return args[0], args[1]

    def _defaultdict(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> DefaultDict:
        filled = DefaultDict(self._dict(emit, args[1:], kwargs))
        filled.factory = args[0] if args else None
        return filled

    def _setattr(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> None:
        owner, name = self._object("setattr", args)
        if len(args) != 3:
            raise Refusal("`setattr` takes an object, a name and a value.")
        if isinstance(owner, Instance) and isinstance(owner.kind, ClassValue) and owner.kind.frozen:
            raise Refusal(f"`{owner.kind.name}` is frozen.", "Make another object of it.", raises="AttributeError")
        if isinstance(args[2], LayerValue | Instance) and args[2].parent is None:
            args[2].parent = (owner, name)
        owner.own[name] = args[2]

    def _vars(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """`vars(config)`: its attributes, as it holds them."""
        if len(args) != 1 or not isinstance(args[0], Instance) or args[0].is_module:
            raise Refusal("`vars` takes an object of the program.", "Name its attributes: `config.lr`.")
        return args[0].own

    def _divmod(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> tuple[Value, Value]:
        if len(args) != 2 or not all(static.is_number(value) for value in args):
            raise Refusal("`divmod` is for two plain numbers.", "Use `//` and `%`.")
        return static.binary("//", *args), static.binary("%", *args)

    def _slice(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> slice:
        if not 1 <= len(args) <= 3 or not all(value is None or isinstance(value, int) for value in args):
            raise Refusal("`slice` takes one to three integers.", "Write the slice: `x[1:3]`.")
        return slice(*args)

    def _str(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        if not args:
            return ""
        if isinstance(args[0], Device):
            return args[0].type
        return formatting.text_of(args[0])

    def _combined(self, name: str, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Iterator:
        counts = [value for value in (*args, *kwargs.values()) if isinstance(value, int)]
        lists = [self._items(emit, value) for value in args if not isinstance(value, int)]
        limit = static.LENGTH_LIMIT + 1
        options = {"repeat": counts[0]} if name == "itertools.product" and counts else {}
        if any(count > static.NESTING_LIMIT for count in counts):
            raise Refusal(f"`{name}` with so many places has too many results.", code="too_costly")
        rest = [] if name == "itertools.product" else counts
        groups: list[Value] = []
        held = 0
        for group in itertools.islice(_COMBINED[name](*lists, *rest, **options), limit):
            groups.append(group)
            held += len(group) if isinstance(group, tuple) else 1
            static.check_length(held)
        self._spend(held // 8)
        return Iterator(groups)


def _is_of_type(value: Value, name: str) -> bool:
    if name in ("list", "Sequence") and isinstance(value, _NO_LISTS):
        return False
    return isinstance(value, _TYPES[name])


def _has(value: Value, kind: Value, name: str) -> bool:
    """Whether an object has what a `Protocol` asks for."""
    if isinstance(value, FunctionValue | Partial | LayerValue) or not isinstance(kind, ClassValue):
        return name == "__call__" and isinstance(value, FunctionValue | Partial | LayerValue)
    member = kind.find(name)
    return member is not MISSING or name in getattr(value, "own", getattr(value, "fields", ()))


def _extends(kind: ClassValue, other: ClassValue) -> bool:
    stack, seen = [kind], set[int]()
    while stack:
        kind = stack.pop()
        if kind is other:
            return True
        if id(kind) not in seen:
            seen.add(id(kind))
            stack += kind.bases
    return False


def number(short: str, args: tuple[Value, ...]) -> Value:
    """`np.sqrt(2)`, `math.prod([2, 3])`, on plain numbers."""
    if short == "prod":
        values = list(args[0]) if args and isinstance(args[0], list | tuple) else list(args)
        static.plain(values)
        return functools.reduce(lambda left, right: static.binary("*", left, right), values, 1)
    if short == "fsum":
        return static.computed(lambda *values: math.fsum(values), *args[0], what="`fsum`")
    if short in ("factorial", "comb"):
        if not all(isinstance(value, int) and 0 <= value <= 100 for value in args):
            raise Refusal(f"`{short}` is for integers up to 100 here.", "Use `lgamma`.")
        return static.bounded(static.computed(getattr(math, short), *args, what=f"`{short}`"))
    if short in ("gcd", "lcm"):
        join = functools.partial(static.computed, getattr(math, short), what=f"`{short}`")
        return functools.reduce(lambda left, right: static.bounded(join(left, right)), args)
    if short == "isclose":
        return static.computed(math.isclose, *args, what="`isclose`")
    return static.bounded(static.computed(static.MATH[short], *args, what=f"`{short}`"))
