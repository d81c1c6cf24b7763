"""The frozen catalogue: how many operations, what each entry promises, names and search, what is left out and why."""

from __future__ import annotations

import difflib
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch

from app.catalogue.entry import KINDS, TENSOR_KINDS, Operation
from app.catalogue.introspect.exclusions import EXCLUSIONS
from app.catalogue.introspect.make import catalogue, text
from app.catalogue.introspect.names import included_and_excluded
from app.catalogue.left_out import LEFT_OUT, ONLY_IF_BOOLEAN
from app.catalogue.operation_page import page, row
from app.catalogue.read import FILE, find, operations, search
from app.errors import PullbackError
from app.query import DTYPE_BYTES
from tests.many import assert_of_every_operation

ROOT = Path(__file__).parents[2]
ALL = tuple(operations().values())
TAGS = ("pointwise", "reduction", "view", "random", "dynamic_shape")
COMPOSITES = (
    "cross_entropy", "grid_sample", "affine_grid", "interpolate", "scaled_dot_product_attention", "normalize", "embedding",
)  # fmt: skip


def test_there_are_at_least_550_operations() -> None:
    assert len(ALL) >= 550
    assert len({operation.path for operation in ALL}) == len(ALL), "one public function, one operation"


def _assert_whole(operation: Operation) -> None:
    assert re.fullmatch(r"[A-Za-z]\w*(\.\w+)*", operation.name)
    assert operation.summary.endswith((".", "…"))
    assert re.search(r"\w\w", operation.summary)
    assert operation.documentation.startswith("https://docs.pytorch.org/docs/stable/")
    assert set(operation.tags) <= set(TAGS)
    assert operation.order in (0, 1, 2)
    assert operation.signatures
    assert operation.name not in operation.aliases
    for signature in operation.signatures:
        names = [argument.name for argument in signature.arguments]
        assert len(set(names)) == len(names)
        assert any(argument.kind in TENSOR_KINDS for argument in signature.arguments)
        assert signature.outputs
        for argument in signature.arguments:
            assert argument.kind in KINDS
            assert argument.meaning, argument.name
            assert argument.name not in LEFT_OUT or (argument.name in ONLY_IF_BOOLEAN and argument.kind != "boolean")
            assert not (argument.differentiable and argument.kind not in TENSOR_KINDS)
    some = any(a.differentiable for s in operation.signatures for a in s.arguments)
    assert some == any(o.differentiable for s in operation.signatures for o in s.outputs) == (operation.order > 0)


def test_every_entry_is_whole() -> None:
    assert_of_every_operation(_assert_whole)


def test_order_is_right_where_it_is_known() -> None:
    known = {"softmax": 2, "permute": 2, "linalg.pinv": 2, "nn.functional.cross_entropy": 2, "round": 2, "nn.functional.pdist": 1,
             "nn.functional.ctc_loss": 1, "argmax": 0, "eq": 0, "zeros_like": 0, "special.airy_ai": 0, "detach": 0}  # fmt: skip
    assert {name: find(name).order for name in known} == known


def test_differentiable_flags_are_measured_per_input_and_output() -> None:
    flags = {a.name: a.differentiable for a in find("nn.functional.nll_loss").signatures[0].arguments if a.kind == "tensor"}
    assert flags == {"input": True, "target": False, "weight": False}
    # Class probabilities as target, weighted, can be differentiated in all three.
    assert all(a.differentiable for a in find("nn.functional.cross_entropy").signatures[0].arguments if a.kind == "tensor")
    dims = next(s for s in find("max").signatures if len(s.outputs) == 2)
    assert [(o.name, o.differentiable) for o in dims.outputs] == [("values", True), ("indices", False)]
    assert {a.name: a.differentiable for a in find("igamma").signatures[0].arguments} == {"input": False, "other": True}


def test_formulas_are_pytorchs() -> None:
    softmax = find("softmax").formula
    assert softmax is not None
    assert softmax["backward"].startswith("_softmax_backward_data(grad, result, dim")
    assert "logsumexp_jvp" in softmax["forward"]
    assert find("argmax").formula is None
    assert "pinv_backward" in str(find("linalg.pinv").formula)
    assert "log_softmax" in str(find("cross_entropy").formula).lower()


def test_tags_are_right_where_they_are_known() -> None:
    known = {"tanh": ("pointwise",), "sum": ("reduction",), "permute": ("view",), "bernoulli": ("random",),
             "nonzero": ("dynamic_shape",), "matmul": ()}  # fmt: skip
    for name, tags in known.items():
        assert set(tags) <= set(find(name).tags), name
        if not tags:
            assert find(name).tags == ()
    for name in ("nn.functional.dropout", "normal", "nn.functional.gumbel_softmax", "multinomial", "rand_like"):
        assert "random" in find(name).tags
        assert "seed" in find(name).example
    assert "random" not in find("nn.functional.scaled_dot_product_attention").tags


def test_default_values_are_json() -> None:
    pages = [page(operation) for operation in ALL]
    assert orjson.loads(orjson.dumps(pages))
    for entry in pages:
        for signature in entry["signatures"]:
            for argument in signature["arguments"]:
                assert ("default" in argument) != argument["required"], (entry["name"], argument["name"])
                assert ("differentiable" in argument) == (argument["kind"] in TENSOR_KINDS)


def test_rows_and_pages_have_the_words_of_the_contract() -> None:
    assert set(row(find("softmax"))) == {"name", "summary", "tags"}
    softmax = page(find("softmax"))
    assert {"name", "summary", "documentation", "tags", "signatures", "formula", "example"} <= set(softmax)
    plain = [{k: a[k] for k in ("name", "kind", "required")} for a in softmax["signatures"][0]["arguments"]]
    assert plain == [
        {"name": "input", "kind": "tensor", "required": True},
        {"name": "dim", "kind": "integer", "required": True},
        {"name": "dtype", "kind": "dtype", "required": False},
    ]
    assert softmax["signatures"][0]["outputs"] == [{"name": "output", "differentiable": True}]
    assert softmax["example"]["operation"] == "softmax"


def test_overloads_are_signatures() -> None:
    names = [[a.name for a in s.arguments] for s in find("max").signatures]
    assert names == [["input"], ["input", "dim", "keepdim"], ["input", "other"]]
    kinds = {tuple(a.kind for a in s.arguments) for s in find("pow").signatures}
    assert kinds == {("tensor", "tensor"), ("tensor", "number"), ("number", "tensor")}


# What is written → the canonical name that it means.
WRITTEN = {
    "softmax": "softmax", "torch.softmax": "softmax", "F.softmax": "softmax", "nn.functional.softmax": "softmax",
    "Tensor.softmax": "softmax", "torch.nn.functional.softmax": "softmax", "relu": "nn.functional.relu", "F.relu": "nn.functional.relu",
    "torch.relu": "nn.functional.relu", "conv2d": "nn.functional.conv2d", "cross_entropy": "nn.functional.cross_entropy",
    "pinv": "linalg.pinv", "pinverse": "linalg.pinv", "torch.linalg.pinv": "linalg.pinv", "rfft": "fft.rfft", "erf": "erf",
    "special.erf": "erf", "special.expit": "sigmoid", "expit": "sigmoid", "absolute": "abs", "arccos": "acos", "det": "linalg.det",
    "inverse": "linalg.inv", "multiply": "mul", "true_divide": "div", "unfold": "unfold", "Tensor.unfold": "unfold",
    "F.unfold": "nn.functional.unfold", "repeat": "repeat", "Tensor.repeat": "repeat", "layer_norm": "nn.functional.layer_norm",
    "gelu": "nn.functional.gelu", "adjoint": "mH", "stop_gradient": "detach", "swapaxes": "transpose", "concat": "cat",
    "trapz": "trapezoid", "upsample": "nn.functional.interpolate", "special.gammainc": "igamma", "_segment_reduce": "segment_reduce",
}  # fmt: skip


@pytest.mark.parametrize(("written", "name"), WRITTEN.items())
def test_find_knows_the_names_that_people_write(written: str, name: str) -> None:
    assert find(written).name == name


def test_find_takes_every_name_and_alias() -> None:
    for operation in ALL:
        for name in (operation.name, *operation.aliases):
            assert find(name) is operation


@pytest.mark.parametrize(
    ("written", "nearest"),
    [("sofmax", "softmax"), ("linalg.pinvv", "linalg.pinv"), ("conv2", "nn.functional.conv2d"), ("torch.sigmod", "sigmoid")],
)
def test_unknown_names_are_refused_with_the_nearest(written: str, nearest: str) -> None:
    with pytest.raises(PullbackError) as refused:
        find(written)
    assert refused.value.code == "unknown_operation"
    assert nearest in refused.value.detail
    assert refused.value.at == "operation"


@pytest.mark.parametrize(
    "hostile", ["", ".", "__class__", "softmax.__globals__", "load", "torch.load", "x" * 100_000, "sys", "mul_", "é\0"]
)
def test_names_that_are_no_operations_are_refused(hostile: str) -> None:
    with pytest.raises(PullbackError) as refused:
        find(hostile)
    assert refused.value.code == "unknown_operation"
    assert len(str(refused.value.problem())) < 2_000


# What one looks for → an operation that must be among the first five.
WANTED = {
    "pseudoinverse": "linalg.pinv", "cross entropy": "nn.functional.cross_entropy", "inverse": "linalg.inv", "eigenvalues": "linalg.eigh",
    "attention": "nn.functional.scaled_dot_product_attention", "convolution": "nn.functional.conv2d", "standard deviation": "std",
    "softmax": "softmax", "fourier": "fft.fft", "least squares": "linalg.lstsq", "kullback": "nn.functional.kl_div", "mae": "nn.functional.l1_loss",
    "einstein": "einsum", "stop gradient": "detach", "spatial transformer": "nn.functional.grid_sample", "absolute": "abs",
    "relu": "nn.functional.relu",
    "matrix multiplication": "mm", "concatenate": "cat", "log sum exp": "logsumexp", "lstm": "lstm", "determinant": "linalg.det",
}  # fmt: skip


@pytest.mark.parametrize(("text", "name"), WANTED.items())
def test_search_finds_by_name_and_meaning(text: str, name: str) -> None:
    names = [operation.name for operation in search(text)]
    assert name in names[:5], names[:8]


def test_search_filters() -> None:
    assert len(search()) == len(ALL)
    assert [operation.name for operation in search()] == sorted(operation.name for operation in ALL)
    assert all(operation.order > 0 for operation in search(differentiable=True))
    assert all(operation.order == 0 for operation in search(differentiable=False))
    assert len(search(differentiable=True)) + len(search(differentiable=False)) == len(ALL)
    assert search("no such thing at all") == []
    assert search("softmax")[0].name == "softmax"
    assert search("absolute")[0].name == "abs"
    assert {"softmax", "nn.functional.softmin"} <= {operation.name for operation in search("softm")}


def test_composites_and_lists_are_in() -> None:
    for name in COMPOSITES:
        assert find(f"nn.functional.{name}").name == f"nn.functional.{name}"
    for name in (
        "cat",
        "stack",
        "einsum",
        "block_diag",
        "meshgrid",
        "cartesian_prod",
        "broadcast_tensors",
        "hstack",
        "linalg.multi_dot",
    ):
        assert any(argument.kind == "tensors" for s in find(name).signatures for argument in s.arguments), name


# Class of exclusion → members that are out by it. The reasons stand in the table of exclusions.
OUT = {
    "in_place": ("relu_", "Tensor.add_", "nn.functional.threshold_"),
    "process_state": ("manual_seed", "set_default_dtype", "set_num_threads", "is_grad_enabled", "use_deterministic_algorithms"),
    "input_output": ("load", "save", "from_file", "from_numpy", "Tensor.numpy", "Tensor.tolist"),
    "autograd_machinery": ("Tensor.backward", "Tensor.register_hook", "Tensor.retain_grad"),
    "higher_order": ("vmap", "cond", "while_loop", "compile"),
    "compiler": ("sym_max", "import_ir_module", "nn.functional.has_torch_function"),
    "storage": ("as_strided", "as_strided_scatter", "Tensor.data_ptr", "Tensor.untyped_storage", "Tensor.resize"),
    "device": ("Tensor.cuda", "Tensor.cpu", "Tensor.type"),
    "sparse": ("Tensor.to_sparse", "sparse_coo_tensor", "Tensor.coalesce", "Tensor.to_dense"),
    "quantized": ("quantize_per_tensor", "dequantize", "fbgemm_linear_int8_weight"),
    "dtype": ("Tensor.chalf", "hash_tensor", "nn.functional.scaled_mm"),
    "kernel": ("cudnn_convolution", "mkldnn_max_pool2d", "native_layer_norm", "grid_sampler_2d", "convolution"),
    "copy_twin": ("expand_copy", "permute_copy", "Tensor.narrow_copy", "view_as_real_copy"),
    "variant_twin": ("nn.functional.max_pool2d_with_indices",),
    "factory": ("empty", "empty_like", "zeros", "rand", "eye", "arange", "linspace", "Tensor.new_zeros", "hann_window"),
    "no_tensor": ("is_tensor", "numel", "equal", "allclose", "Tensor.item", "Tensor.size"),
    "removed": ("eig", "symeig", "lstsq", "matrix_rank"),
    "named_dimensions": ("Tensor.index",),
    "stateful_solver": ("lobpcg",),
    "no_tensor_out": ("Tensor.qscheme",),
    "writes": ("Tensor.record_stream",),
}


def test_every_public_callable_is_in_or_out_for_a_reason() -> None:
    _, out = included_and_excluded()
    reasons = {exclusion.name: exclusion.reason for exclusion in EXCLUSIONS}
    assert not [name for name, exclusion in out.items() if exclusion not in reasons], "say why these are out"
    assert all(len(reason) > 20 and reason.endswith((".", ")")) for reason in reasons.values())
    for exclusion, names in OUT.items():
        for name in names:
            assert out[name] == exclusion, name
    # Those without a member of a public namespace in this test: whole overloads, and derivatives, which carry underscores.
    assert set(reasons) - set(OUT) == {"derivative", "out", "foreign_type", "no_tensor_in"}


def test_no_excluded_name_is_found() -> None:
    for names in OUT.values():
        for name in names:
            try:
                operation = find(name)
            except PullbackError:
                continue
            # A short name may mean something sound of another namespace: `solve` is linalg.solve.
            assert operation.name.rpartition(".")[2] == name.rpartition(".")[2], name
            assert operation.name != name


def test_only_dtypes_of_the_contract_are_named() -> None:
    for operation in ALL:
        for value in operation.example.get("inputs", {}).values():
            for tensor in value if isinstance(value, list) else [value]:
                if isinstance(tensor, dict):
                    assert tensor["dtype"] in DTYPE_BYTES


READING = """
import json, sys, time
start = time.process_time()
from app.catalogue.read import FILE, find, search
find('softmax'); search('norm')
read = time.process_time()
json.loads(FILE.read_bytes())
print((read - start) / (time.process_time() - read), 'torch' in sys.modules)
"""


def test_reading_is_quick_and_without_torch() -> None:
    """Five times what Python's own parser takes for the file, imports included (measured, 50 ms against 10); never a torch's seconds."""
    done = subprocess.run([sys.executable, "-c", READING], capture_output=True, text=True, check=True, cwd=ROOT)
    times, brings_torch = done.stdout.split()
    assert brings_torch == "False"
    assert float(times) < 40


def test_the_file_is_what_introspection_writes() -> None:
    """Takes some ten seconds: every operation with its samples, which draw from global random states."""
    frozen = FILE.read_bytes()
    version = orjson.loads(frozen)["torch"]
    if version != torch.__version__.partition("+")[0]:
        pytest.skip(f"the file is frozen for PyTorch {version}, and this is {torch.__version__}")
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        now = text(catalogue())
    random.setstate(states[0])
    np.random.set_state(states[1])
    if now != frozen:
        difference = difflib.unified_diff(
            frozen.decode().splitlines(), now.decode().splitlines(), "frozen", "now", lineterm="", n=0
        )
        pytest.fail("\n".join(line[:300] for line in list(difference)[:40]))
