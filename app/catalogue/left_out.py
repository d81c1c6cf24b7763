"""Arguments of PyTorch's functions that no signature of the catalogue has, and why: one table for the introspection and for the errors."""

from __future__ import annotations

from typing import Final

LEFT_OUT: Final[dict[str, str]] = {
    "device": "the worker decides the device",
    "layout": "every tensor is strided",
    "memory_format": "it changes nothing that an answer shows",
    "out": "the result comes back in the answer",
    "generator": 'random numbers come from the query\'s "seed"',
    "names": "named dimensions do not travel",
    "pin_memory": "the worker decides where tensors lie",
    "requires_grad": '"wrt" and "want" say what is differentiated',
    "inplace": "values never change here",
    "size_average": 'it is deprecated; use "reduction"',
    "reduce": 'it is deprecated; use "reduction"',
    "sparse": "gradients are dense here",
    "non_blocking": "it changes nothing that an answer shows",
    "copy": "it changes nothing that an answer shows",
    "out_dtype": "only some GPUs have it",
    "unsafe": "lengths and offsets are always checked",
    "options": "it changes nothing that an answer shows",
    "distance_function": "a program composes operations",
    "batch_sizes": "packed sequences do not travel",
    "_stacklevel": "it changes nothing that an answer shows",
}
# Names that are left out only where they are a truth value; elsewhere they mean something else (`scatter_reduce`).
ONLY_IF_BOOLEAN: Final = ("reduce",)
