"""Reviewed examples: calls that show an operation well, and the only samples of operations that PyTorch's test database lacks.

Knows names and small values. Refuses to know results. `{"list": […]}` is a list of tensors, `{"data": …, "dtype": …}` a tensor of that dtype.
"""

from __future__ import annotations

from typing import Any, Final

_ROW: Final = [1.0, 2.5, 3.0]
_SIGNED: Final = [-1.5, -0.5, 0.5, 2.0]
_MATRIX: Final = [[1.0, 2.0], [3.0, 5.0]]
_SYMMETRIC: Final = [[4.0, 1.0], [1.0, 3.0]]
_IMAGE: Final = [[[[0.1, 0.4, -0.3, 0.8], [0.7, -0.2, 0.5, 0.0], [-0.6, 0.9, 0.2, -0.1], [0.3, -0.4, 0.6, 1.0]]]]
_SEQUENCE: Final = [[[0.1, 0.4, -0.3, 0.8]]]
_VOLUME: Final = [[[[[0.1, 0.4], [-0.3, 0.8]], [[0.7, -0.2], [0.5, 0.3]]]]]
_LOGITS: Final = [[1.2, -0.4, 0.3], [0.1, 0.9, -1.0]]
_CLASSES: Final = {"data": [0, 2], "dtype": "int64"}
_HIDDEN: Final = {
    "input": [[0.5, -0.2], [0.1, 0.3]],
    "w_ih": [[0.2, -0.1], [0.4, 0.3]],
    "w_hh": [[0.1, 0.2], [-0.3, 0.1]],
}


def _q(parameters: dict[str, Any] | None = None, **inputs: Any) -> dict[str, Any]:
    return {"inputs": inputs, "parameters": parameters or {}}


def _gates(count: int, width: int) -> list[list[float]]:
    """A small weight of `count` rows; its values only have to differ."""
    return [[round(0.1 * ((3 * row + 2 * column) % 7 - 3), 1) for column in range(width)] for row in range(count)]


def _recurrent(gates: int, states: int) -> dict[str, Any]:
    """`lstm`, `gru`, `rnn_*`: three steps of one sequence, two inputs, two hidden units."""
    state = [[[0.1, -0.2]]]
    return _q(
        {
            "has_biases": False,
            "num_layers": 1,
            "dropout": 0.0,
            "train": False,
            "bidirectional": False,
            "batch_first": False,
        },
        input=[[[0.5, -0.2]], [[0.1, 0.3]], [[-0.4, 0.6]]],
        hx={"list": [state, state]} if states == 2 else state,
        params={"list": [_gates(2 * gates, 2), _gates(2 * gates, 2)]},
    )


_ATTENTION: Final = _q(
    {"embed_dim_to_check": 2, "num_heads": 1, "add_zero_attn": False, "dropout_p": 0.0, "training": False},
    query=[[[0.5, -0.2]], [[0.1, 0.3]]],
    key=[[[0.4, 0.1]], [[-0.3, 0.2]]],
    value=[[[1.0, 0.0]], [[0.0, 1.0]]],
    in_proj_weight=_gates(6, 2),
    out_proj_weight=[[1.0, 0.0], [0.0, 1.0]],
)

# Canonical name → samples; the first is the one that the catalogue shows.
EXAMPLES: Final[dict[str, tuple[dict[str, Any], ...]]] = {
    "abs": (_q(input=_SIGNED),),
    "add": (_q({"alpha": 2.0}, input=_ROW, other=[10.0, 20.0, 30.0]),),
    "argmax": (_q({"dim": -1}, input=_LOGITS),),
    "atleast_2d": (_q(input=_ROW), _q(tensors={"list": [_ROW, 4.0]})),
    "atleast_1d": (_q(input=2.5), _q(tensors={"list": [_ROW, 4.0]})),
    "atleast_3d": (_q(input=_ROW), _q(tensors={"list": [_ROW, 4.0]})),
    "bernoulli": (_q(input=[0.2, 0.5, 0.8]), _q({"p": 0.5}, input=[0.2, 0.5, 0.8])),
    "binomial": (_q(count=[10.0, 10.0], prob=[0.2, 0.7]),),
    "block_diag": (_q(tensors={"list": [_MATRIX, [[7.0]]]}),),
    "bmm": (_q(input=[_MATRIX], mat2=[[[0.5], [-1.0]]]),),
    "broadcast_tensors": (_q(tensors={"list": [[[1.0], [2.0]], [3.0, 4.0]]}),),
    "cat": (_q({"dim": 0}, tensors={"list": [[1.0, 2.0], [3.0, 4.0, 5.0]]}),),
    "cdist": (_q(x1=[[0.0, 0.0], [1.0, 1.0]], x2=[[3.0, 4.0]]),),
    "clamp": (
        _q({"min": -1.0, "max": 1.0}, input=_SIGNED),
        _q(input=_SIGNED, min=[-1.0, -1.0, -1.0, -1.0], max=[1.0, 1.0, 1.0, 1.0]),
    ),
    "cross": (_q(input=[1.0, 0.0, 0.0], other=[0.0, 1.0, 0.0]),),
    "cumsum": (_q({"dim": 0}, input=_ROW),),
    "detach": (_q(input=_ROW),),
    "dot": (_q(input=_ROW, tensor=[0.5, -1.0, 2.0]),),
    "einsum": (_q({"equation": "ij,jk->ik"}, tensors={"list": [_MATRIX, [[0.5], [-1.0]]]}),),
    "exp": (_q(input=[-1.0, 0.0, 1.0]),),
    "fake_quantize_per_tensor_affine": (
        _q({"scale": 0.1, "zero_point": 0, "quant_min": -128, "quant_max": 127}, input=[0.13, -0.27, 0.5]),
        _q(
            {"quant_min": -128, "quant_max": 127},
            input={"data": [0.13, -0.27, 0.5], "dtype": "float32"},
            scale={"data": [0.1], "dtype": "float32"},
            zero_point={"data": [0], "dtype": "int32"},
        ),
    ),
    "fake_quantize_per_channel_affine": (
        _q(
            {"axis": 0, "quant_min": -128, "quant_max": 127},
            input={"data": [[0.13, -0.27], [0.5, 0.04]], "dtype": "float32"},
            scale={"data": [0.1, 0.05], "dtype": "float32"},
            zero_point={"data": [0, 0], "dtype": "int32"},
        ),
    ),
    "feature_dropout": (_q({"p": 0.5, "train": True}, input=[[[1.0, 2.0], [3.0, 4.0]]]),),
    "fft.fft": (_q(input=[1.0, 2.0, 3.0, 4.0]),),
    "fft.rfft": (_q(input=[1.0, 2.0, 3.0, 4.0]),),
    "gru": (_recurrent(3, 1),),
    "gru_cell": (_q(input=[[0.5, -0.2]], hx=[[0.1, -0.2]], w_ih=_gates(6, 2), w_hh=_gates(6, 2)),),
    "linalg.cholesky": (_q(input=_SYMMETRIC),),
    "linalg.det": (_q(A=_MATRIX),),
    "linalg.eigh": (_q(input=_SYMMETRIC),),
    "linalg.inv": (_q(A=_MATRIX),),
    "linalg.norm": (_q(input=_MATRIX), _q({"ord": "nuc"}, input=_MATRIX)),
    "linalg.pinv": (_q(input=[[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]]),),
    "linalg.solve": (_q(A=_MATRIX, B=[1.0, 2.0]),),
    "linalg.svdvals": (_q(A=[[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]]),),
    "linalg.vector_norm": (_q(input=[3.0, 4.0]),),
    "log": (_q(input=[0.5, 1.0, 2.0]),),
    "log_softmax": (_q({"dim": -1}, input=_LOGITS),),
    "logsumexp": (_q({"dim": -1}, input=_LOGITS),),
    "lstm": (_recurrent(4, 2),),
    "lstm_cell": (_q(input=[[0.5, -0.2]], hx={"list": [[[0.1, -0.2]], [[0.3, 0.0]]]}, w_ih=_gates(8, 2), w_hh=_gates(8, 2)),),
    "masked_fill": (_q({"value": 0.0}, input=_ROW, mask={"data": [True, False, True], "dtype": "bool"}),),
    "matmul": (_q(input=_MATRIX, other=[[0.5], [-1.0]]),),
    "max": (_q({"dim": 1}, input=_LOGITS), _q(input=_LOGITS), _q(input=_ROW, other=[2.0, 1.0, 4.0])),
    "mean": (_q({"dim": 0}, input=_LOGITS), _q(input=_ROW)),
    "meshgrid": (
        _q({"indexing": "ij"}, tensors={"list": [[1.0, 2.0], [3.0, 4.0, 5.0]]}),
        _q(tensors={"list": [[1.0, 2.0], [3.0]]}),
    ),
    "min": (_q({"dim": 1}, input=_LOGITS), _q(input=_LOGITS), _q(input=_ROW, other=[2.0, 1.0, 4.0])),
    "mul": (_q(input=_ROW, other=[2.0, -1.0, 0.5]),),
    "multinomial": (_q({"num_samples": 2}, input=[0.2, 0.5, 0.3]),),
    "mv": (_q(input=_MATRIX, vec=[0.5, -1.0]),),
    "nn.functional.affine_grid": (
        _q({"size": [1, 1, 2, 2], "align_corners": False}, theta=[[[1.0, 0.2, 0.0], [0.0, 1.0, 0.1]]]),
    ),
    "nn.functional.alpha_dropout": (_q({"p": 0.5, "training": True}, input=_SIGNED),),
    "nn.functional.avg_pool2d": (_q({"kernel_size": 2}, input=_IMAGE),),
    "nn.functional.batch_norm": (
        _q({"training": True}, input=[[1.0, -2.0], [3.0, 0.5], [2.0, 1.5]]),
        _q({"training": True}, input=_LOGITS, running_mean=[0.0, 0.0, 0.0], running_var=[1.0, 1.0, 1.0]),
        _q(
            input=_LOGITS,
            running_mean=[0.1, 0.2, 0.3],
            running_var=[1.0, 2.0, 1.0],
            weight=[1.0, 0.5, 2.0],
            bias=[0.0, 0.1, 0.2],
        ),
    ),
    "nn.functional.binary_cross_entropy": (_q(input=[0.2, 0.7, 0.9], target=[0.0, 1.0, 1.0]),),
    "nn.functional.binary_cross_entropy_with_logits": (_q(input=[-1.2, 0.8, 2.0], target=[0.0, 1.0, 1.0]),),
    "nn.functional.conv1d": (
        _q({"padding": 1}, input=_SEQUENCE, weight=[[[0.5, 1.0, -0.5]]], bias=[0.1]),
        _q({"padding": "same"}, input=_SEQUENCE, weight=[[[0.5, 1.0, -0.5]]]),
    ),
    "nn.functional.conv2d": (
        _q({"padding": 1}, input=_IMAGE, weight=[[[[0.1, 0.0, -0.1], [0.2, 0.0, -0.2], [0.1, 0.0, -0.1]]]], bias=[0.5]),
        _q({"padding": "same"}, input=_IMAGE, weight=[[[[0.5, 0.25], [-0.25, 0.1]]]]),
    ),
    "nn.functional.conv3d": (
        _q(input=_VOLUME, weight=[[[[[0.5, 0.25]]]]], bias=[0.1]),
        _q({"padding": "same"}, input=_VOLUME, weight=[[[[[0.5]]]]]),
    ),
    "nn.functional.conv_tbc": (_q({"pad": 0}, input=[[[0.5, 1.0]], [[-0.5, 2.0]]], weight=[[[0.5], [1.0]]], bias=[0.1]),),
    "nn.functional.cosine_similarity": (_q({"dim": 0}, x1=_ROW, x2=[3.0, 2.0, -1.0]),),
    "nn.functional.cross_entropy": (
        _q(input=_LOGITS, target=_CLASSES),
        _q(input=_LOGITS, target=[[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], weight=[1.0, 2.0, 0.5]),
    ),
    "nn.functional.ctc_loss": (
        _q(
            {"input_lengths": [3], "target_lengths": [2]},
            log_probs=[[[-1.1, -1.2, -1.0]], [[-0.9, -1.4, -1.1]], [[-1.3, -0.8, -1.2]]],
            targets={"data": [[1, 2]], "dtype": "int64"},
        ),
        _q(
            log_probs=[[[-1.1, -1.2, -1.0]], [[-0.9, -1.4, -1.1]], [[-1.3, -0.8, -1.2]]],
            targets={"data": [[1, 2]], "dtype": "int64"},
            input_lengths={"data": [3], "dtype": "int64"},
            target_lengths={"data": [2], "dtype": "int64"},
        ),
    ),
    "nn.functional.dropout": (_q({"p": 0.5}, input=_SIGNED),),
    "nn.functional.dropout1d": (_q({"p": 0.5}, input=[[[1.0, 2.0], [3.0, 4.0]]]),),
    "nn.functional.dropout2d": (_q({"p": 0.5}, input=_IMAGE),),
    "nn.functional.dropout3d": (_q({"p": 0.5}, input=_VOLUME),),
    "nn.functional.embedding": (
        _q(input={"data": [0, 2, 1, 0], "dtype": "int64"}, weight=[[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]),
        _q({"max_norm": 0.5}, input={"data": [0, 2], "dtype": "int64"}, weight=[[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]),
    ),
    "nn.functional.feature_alpha_dropout": (_q({"p": 0.5, "training": True}, input=_IMAGE),),
    "nn.functional.fold": (
        _q(
            {"output_size": [3, 3], "kernel_size": [2, 2]},
            input=[[[1.0, 2.0, 3.0, 4.0], [0.5, -1.0, 2.5, 0.0], [-2.0, 1.5, 0.5, 1.0], [3.0, -0.5, 0.0, 2.0]]],
        ),
    ),
    "nn.functional.gelu": (_q(input=_SIGNED),),
    "nn.functional.grid_sample": (
        _q({"align_corners": False}, input=_IMAGE, grid=[[[[-0.5, -0.5], [0.3, 0.1]], [[0.0, 0.6], [0.8, -0.2]]]]),
    ),
    "nn.functional.gumbel_softmax": (_q({"tau": 1.0, "dim": -1}, logits=_LOGITS),),
    "nn.functional.huber_loss": (_q(input=_ROW, target=[1.5, 0.0, 3.0]),),
    "nn.functional.interpolate": (
        _q({"scale_factor": 2.0, "mode": "bilinear", "align_corners": False}, input=[[[[0.1, 0.4], [0.7, -0.2]]]]),
        _q({"size": [3, 3]}, input=[[[[0.1, 0.4], [0.7, -0.2]]]]),
    ),
    "nn.functional.kl_div": (_q({"reduction": "batchmean"}, input=[[-1.2, -0.4, -2.3]], target=[[0.3, 0.6, 0.1]]),),
    "nn.functional.l1_loss": (_q(input=_ROW, target=[1.5, 0.0, 3.5]),),
    "nn.functional.layer_norm": (_q({"normalized_shape": [3]}, input=_LOGITS, weight=[1.0, 0.5, 2.0], bias=[0.0, 0.1, 0.2]),),
    "nn.functional.linear": (_q(input=[[1.0, 2.0]], weight=[[0.5, -1.0], [0.25, 2.0]], bias=[0.1, 0.2]),),
    "nn.functional.lp_pool1d": (_q({"norm_type": 2.0, "kernel_size": 2}, input=_SEQUENCE),),
    "nn.functional.lp_pool2d": (_q({"norm_type": 2.0, "kernel_size": 2}, input=_IMAGE),),
    "nn.functional.lp_pool3d": (_q({"norm_type": 2.0, "kernel_size": 2}, input=_VOLUME),),
    "nn.functional.max_pool1d": (
        _q({"kernel_size": 2}, input=_SEQUENCE),
        _q({"kernel_size": 2, "return_indices": True}, input=_SEQUENCE),
    ),
    "nn.functional.max_pool2d": (
        _q({"kernel_size": 2}, input=_IMAGE),
        _q({"kernel_size": 2, "return_indices": True}, input=_IMAGE),
    ),
    "nn.functional.mse_loss": (_q(input=_ROW, target=[1.5, 0.0, 3.0]),),
    "nn.functional.multi_head_attention_forward": (_ATTENTION,),
    "nn.functional.nll_loss": (_q(input=[[-1.2, -0.4, -2.3], [-0.9, -1.5, -0.8]], target=_CLASSES),),
    "nn.functional.normalize": (_q({"dim": 0}, input=[3.0, 4.0]),),
    "nn.functional.one_hot": (_q({"num_classes": 3}, input={"data": [0, 2, 1], "dtype": "int64"}),),
    "nn.functional.pad": (_q({"pad": [1, 2]}, input=_ROW),),
    "nn.functional.prelu": (_q(input=[-1.0, 2.0, -3.0, 0.5], weight=[0.25]),),
    "nn.functional.relu": (_q(input=_SIGNED),),
    "nn.functional.rrelu": (_q({"training": True}, input=_SIGNED),),
    "nn.functional.scaled_dot_product_attention": (
        _q(query=[[[0.5, -0.2], [0.1, 0.3]]], key=[[[0.4, 0.1], [-0.3, 0.2]]], value=[[[1.0, 0.0], [0.0, 1.0]]]),
        _q(
            {"is_causal": True},
            query=[[[[0.5, -0.2], [0.1, 0.3]]]],
            key=[[[[0.4, 0.1], [-0.3, 0.2]]]],
            value=[[[[1.0, 0.0], [0.0, 1.0]]]],
        ),
    ),
    "nn.functional.softplus": (_q(input=_SIGNED),),
    "nn.functional.unfold": (_q({"kernel_size": 2}, input=_IMAGE),),
    "nn.utils.rnn.pad_sequence": (_q({"batch_first": True}, sequences={"list": [[1.0, 2.0, 3.0], [4.0, 5.0]]}),),
    "norm": (_q(input=[3.0, 4.0]), _q({"p": 1.0}, input=[3.0, -4.0])),
    "normal": (
        _q(mean=[0.0, 1.0], std=[1.0, 0.5]),
        _q({"std": 0.5}, mean=[0.0, 1.0]),
        _q({"mean": 0.0}, std=[1.0, 0.5]),
    ),
    "nonzero": (_q(input=[1.0, 0.0, 3.0]), _q({"as_tuple": True}, input=[1.0, 0.0, 3.0])),
    "pca_lowrank": (_q({"q": 2}, A=[[1.0, 2.0, 0.5], [3.0, 4.0, -1.0], [5.0, 7.0, 2.0], [0.5, 1.0, 1.5]]),),
    "permute": (_q({"dims": [1, 0]}, input=[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),),
    "poisson": (_q(input=[0.5, 3.0, 10.0]),),
    "pow": (_q({"exponent": 3.0}, input=_ROW), _q(input=_ROW, exponent=[2.0, 0.5, -1.0]), _q({"input": 2.0}, exponent=_ROW)),
    "prod": (_q(input=_ROW), _q({"dim": 0}, input=_MATRIX)),
    "repeat": (_q({"repeats": [2, 2]}, input=[1.0, 2.0]),),
    "reshape": (_q({"shape": [3, 2]}, input=[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),),
    "rnn_relu": (_recurrent(1, 1),),
    "rnn_relu_cell": (_q(hx=[[0.1, -0.2], [0.3, 0.0]], **_HIDDEN),),
    "rnn_tanh": (_recurrent(1, 1),),
    "rnn_tanh_cell": (_q(hx=[[0.1, -0.2], [0.3, 0.0]], **_HIDDEN),),
    "round": (_q(input=[0.4, 1.6, -2.5]), _q({"decimals": 1}, input=[0.44, 1.66])),
    "sigmoid": (_q(input=_SIGNED),),
    "slice_scatter": (_q({"dim": 0, "start": 1, "end": 3}, input=[1.0, 2.0, 3.0, 4.0], src=[10.0, 20.0]),),
    "softmax": (_q({"dim": -1}, input=_ROW),),
    "sort": (_q(input=[3.0, 1.0, 2.0]), _q({"stable": True}, input=[3.0, 1.0, 2.0])),
    "special.entr": (_q(input=[0.2, 0.5, 1.5]),),
    "split": (_q({"split_size_or_sections": 2}, tensor=[1.0, 2.0, 3.0, 4.0, 5.0]),),
    "sqrt": (_q(input=[0.25, 1.0, 4.0]),),
    "stack": (_q({"dim": 0}, tensors={"list": [_ROW, [4.0, 5.0, 6.0]]}),),
    "sum": (_q({"dim": 1}, input=_LOGITS), _q(input=_ROW)),
    "svd_lowrank": (_q({"q": 2}, A=[[1.0, 2.0, 0.5], [3.0, 4.0, -1.0], [5.0, 7.0, 2.0], [0.5, 1.0, 1.5]]),),
    "tanh": (_q(input=_SIGNED),),
    "to": (
        _q({"dtype": "float32"}, input=_ROW),
        _q(input=_ROW, other={"data": [1.0], "dtype": "float32"}),
    ),
    "topk": (_q({"k": 2}, input=[3.0, 1.0, 4.0, 1.5]),),
    "transpose": (_q({"dim0": 0, "dim1": 1}, input=[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),),
    "type_as": (_q(input=_ROW, other={"data": [1.0], "dtype": "float32"}),),
    "unfold": (_q({"dimension": 0, "size": 2, "step": 1}, input=[1.0, 2.0, 3.0, 4.0]),),
    "unique": (
        _q(input=[2.0, 1.0, 2.0, 3.0]),
        _q({"return_inverse": True}, input=[2.0, 1.0, 2.0, 3.0]),
        _q({"return_counts": True}, input=[2.0, 1.0, 2.0, 3.0]),
        _q({"return_inverse": True, "return_counts": True}, input=[2.0, 1.0, 2.0, 3.0]),
    ),
    "unique_consecutive": (
        _q(input=[2.0, 2.0, 1.0, 2.0]),
        _q({"return_inverse": True}, input=[2.0, 2.0, 1.0, 2.0]),
        _q({"return_counts": True}, input=[2.0, 2.0, 1.0, 2.0]),
        _q({"return_inverse": True, "return_counts": True}, input=[2.0, 2.0, 1.0, 2.0]),
    ),
    "vander": (_q(x=_ROW),),
    "view": (_q({"size": [3, 2]}, input=[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), _q({"dtype": "int64"}, input=_ROW)),
    "addmm": (_q({"beta": 0.5}, input=[[0.1, 0.2], [0.3, 0.4]], mat1=_MATRIX, mat2=[[0.5, 1.0], [-1.0, 2.5]]),),
    "addbmm": (_q(input=[[0.1], [0.2]], batch1=[_MATRIX], batch2=[[[0.5], [-1.0]]]),),
    "baddbmm": (_q(input=[[[0.1], [0.2]]], batch1=[_MATRIX], batch2=[[[0.5], [-1.0]]]),),
    "combinations": (_q({"r": 2}, input=[1.0, 2.5, 3.0]),),
    "cov": (_q(input=[[1.0, 2.5, 3.0], [0.5, -1.0, 2.0]]),),
    "corrcoef": (_q(input=[[1.0, 2.5, 3.0], [0.5, -1.0, 2.0]]),),
    "expand": (_q({"size": [2, 3]}, input=[[1.0], [2.5]]),),
    "gather": (_q({"dim": 1}, input=_LOGITS, index={"data": [[0], [2]], "dtype": "int64"}),),
    "index_select": (_q({"dim": 1}, input=_LOGITS, index={"data": [0, 2], "dtype": "int64"}),),
    "index_put": (_q(input=_ROW, indices={"list": [{"data": [0, 2], "dtype": "int64"}]}, values=[10.5, 20.0]),),
    "istft": (
        _q(
            {"n_fft": 4, "hop_length": 1},
            input={
                "data": [[[1.0, 0.0]] * 5, [[0.5, 0.1], [0.2, -0.3], [0.1, 0.4], [-0.2, 0.0], [0.3, 0.2]], [[0.2, 0.0]] * 5],
                "dtype": "complex128",
            },
            window=[0.5, 1.0, 1.0, 0.5],
        ),
    ),
    "kthvalue": (_q({"k": 2}, input=[3.0, 1.0, 2.5]),),
    "linalg.ldl_solve": (_q(LD=[[4.0, 0.25], [0.25, 2.75]], pivots={"data": [1, 2], "dtype": "int32"}, B=[[1.0], [2.0]]),),
    "linalg.lstsq": (_q(input=[[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]], b=[[1.0], [0.5], [2.0]]),),
    "linalg.lu_solve": (_q(LU=[[4.0, 1.0], [0.25, 2.75]], pivots={"data": [1, 2], "dtype": "int32"}, B=[[1.0], [2.0]]),),
    "linalg.matrix_power": (_q({"n": 3}, input=_MATRIX),),
    "linalg.slogdet": (_q(A=_MATRIX),),
    "linalg.svd": (_q({"full_matrices": False}, A=[[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]]),),
    "linalg.qr": (_q(A=[[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]]),),
    "linalg.tensorinv": (_q({"ind": 1}, input=[[[2.0], [1.0]], [[0.5], [3.0]]]),),
    "linalg.tensorsolve": (_q(input=_MATRIX, other=[1.0, 2.5]),),
    "logdet": (_q(input=_SYMMETRIC),),
    "masked_scatter": (_q(input=_ROW, mask={"data": [True, False, True], "dtype": "bool"}, source=[10.5, 20.0]),),
    "masked_select": (_q(input=_ROW, mask={"data": [True, False, True], "dtype": "bool"}),),
    "narrow": (
        _q({"dim": 0, "start": 1, "length": 2}, input=[1.0, 2.5, 3.0, 4.0]),
        _q({"dim": 0, "length": 2}, input=[1.0, 2.5, 3.0, 4.0], start={"data": 1, "dtype": "int64"}),
    ),
    "nn.functional.adaptive_avg_pool2d": (_q({"output_size": 2}, input=_IMAGE),),
    "nn.functional.adaptive_max_pool1d": (
        _q({"output_size": 2}, input=_SEQUENCE),
        _q({"output_size": 2, "return_indices": True}, input=_SEQUENCE),
    ),
    "nn.functional.adaptive_max_pool2d": (
        _q({"output_size": 2}, input=_IMAGE),
        _q({"output_size": 2, "return_indices": True}, input=_IMAGE),
    ),
    "nn.functional.adaptive_max_pool3d": (
        _q({"output_size": 1}, input=_VOLUME),
        _q({"output_size": 1, "return_indices": True}, input=_VOLUME),
    ),
    "nn.functional.avg_pool1d": (_q({"kernel_size": 2}, input=_SEQUENCE),),
    "nn.functional.avg_pool3d": (_q({"kernel_size": 2}, input=_VOLUME),),
    "nn.functional.channel_shuffle": (_q({"groups": 2}, input=[[[[1.0]], [[2.5]], [[3.0]], [[4.0]]]]),),
    "nn.functional.conv_transpose1d": (_q({"stride": 2}, input=_SEQUENCE, weight=[[[0.5, 1.0]]], bias=[0.1]),),
    "nn.functional.conv_transpose2d": (
        _q({"stride": 2}, input=[[[[0.1, 0.4], [0.7, -0.2]]]], weight=[[[[0.5, 1.0], [-0.5, 0.25]]]], bias=[0.1]),
    ),
    "nn.functional.conv_transpose3d": (_q(input=_VOLUME, weight=[[[[[0.5, 1.0]]]]], bias=[0.1]),),
    "nn.functional.cosine_embedding_loss": (
        _q(input1=[[1.0, 2.5]], input2=[[0.5, -1.0]], target={"data": [1], "dtype": "int64"}),
    ),
    "nn.functional.embedding_bag": (
        _q(input={"data": [[0, 2], [1, 1]], "dtype": "int64"}, weight=[[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]),
        _q(
            {"max_norm": 0.5},
            input={"data": [[0, 2], [1, 1]], "dtype": "int64"},
            weight=[[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]],
        ),
    ),
    "nn.functional.fractional_max_pool2d": (
        _q({"kernel_size": 2, "output_size": 2}, input=_IMAGE),
        _q({"kernel_size": 2, "output_size": 2, "return_indices": True}, input=_IMAGE),
    ),
    "nn.functional.fractional_max_pool3d": (
        _q({"kernel_size": 1, "output_size": 1}, input=_VOLUME),
        _q({"kernel_size": 1, "output_size": 1, "return_indices": True}, input=_VOLUME),
    ),
    "nn.functional.gaussian_nll_loss": (
        _q(input=_ROW, target=[1.5, 2.0, 3.5], var=[0.5, 1.0, 2.0]),
        _q({"var": 0.5}, input=_ROW, target=[1.5, 2.0, 3.5]),
    ),
    "nn.functional.group_norm": (
        _q({"num_groups": 2}, input=[[1.0, 2.5, -0.5, 3.0]], weight=[1.0, 0.5, 2.0, 1.5], bias=[0.0, 0.1, 0.2, 0.3]),
    ),
    "nn.functional.instance_norm": (
        _q(input=_SEQUENCE),
        _q(input=_SEQUENCE, running_mean=[0.1], running_var=[1.5]),
    ),
    "nn.functional.max_pool3d": (
        _q({"kernel_size": 2}, input=_VOLUME),
        _q({"kernel_size": 2, "return_indices": True}, input=_VOLUME),
    ),
    "nn.functional.max_unpool1d": (
        _q({"kernel_size": 2}, input=[[[0.4, 0.8]]], indices={"data": [[[1, 3]]], "dtype": "int64"}),
    ),
    "nn.functional.max_unpool2d": (
        _q({"kernel_size": 2}, input=[[[[0.7, 0.8]]]], indices={"data": [[[[4, 3]]]], "dtype": "int64"}),
    ),
    "nn.functional.max_unpool3d": (
        _q({"kernel_size": 2}, input=[[[[[0.8]]]]], indices={"data": [[[[[3]]]]], "dtype": "int64"}),
    ),
    "nn.functional.pdist": (_q(input=[[0.0, 0.5], [3.0, 4.0], [1.0, -1.0]]),),
    "nn.functional.pixel_shuffle": (_q({"upscale_factor": 2}, input=[[[[1.0]], [[2.5]], [[3.0]], [[4.0]]]]),),
    "nn.functional.pixel_unshuffle": (_q({"downscale_factor": 2}, input=[[[[1.0, 2.5], [3.0, 4.0]]]]),),
    "nn.functional.relu6": (_q(input=[-1.5, 0.5, 2.0, 7.0]),),
    "nn.functional.triplet_margin_loss": (_q(anchor=[[1.0, 2.5]], positive=[[1.5, 2.0]], negative=[[0.5, 3.0]]),),
    "nn.functional.triplet_margin_with_distance_loss": (_q(anchor=[[1.0, 2.5]], positive=[[1.5, 2.0]], negative=[[0.5, 3.0]]),),
    "nn.functional.upsample_bilinear": (_q({"scale_factor": 2}, input=[[[[0.1, 0.4], [0.7, -0.2]]]]),),
    "nn.functional.upsample_nearest": (_q({"scale_factor": 2}, input=[[[[0.1, 0.4], [0.7, -0.2]]]]),),
    "scatter": (
        _q({"dim": 0}, input=[1.0, 2.5, 3.0], index={"data": [0, 2], "dtype": "int64"}, src=[10.5, 20.0]),
        _q({"dim": 0, "value": 9.5}, input=[1.0, 2.5, 3.0], index={"data": [0, 2], "dtype": "int64"}),
        _q({"dim": 0, "reduce": "add"}, input=[1.0, 2.5, 3.0], index={"data": [0, 2], "dtype": "int64"}, src=[10.5, 20.0]),
        _q({"dim": 0, "reduce": "add", "value": 9.5}, input=[1.0, 2.5, 3.0], index={"data": [0, 2], "dtype": "int64"}),
    ),
    "scatter_add": (
        _q({"dim": 0}, input=[1.0, 2.5, 3.0], index={"data": [0, 2, 0], "dtype": "int64"}, src=[10.5, 20.0, 30.0]),
    ),
    "scatter_reduce": (
        _q(
            {"dim": 0, "reduce": "sum"},
            input=[1.0, 2.5, 3.0],
            index={"data": [0, 2, 0], "dtype": "int64"},
            src=[10.5, 20.0, 30.0],
        ),
    ),
    "segment_reduce": (_q({"reduce": "sum"}, data=[1.0, 2.5, 3.0, 4.0], lengths={"data": [1, 3], "dtype": "int64"}),),
    "split_with_sizes": (_q({"split_sizes": [1, 2]}, input=[1.0, 2.5, 3.0]),),
    "squeeze": (
        _q({"dim": 0}, input=[[1.0, 2.5, 3.0]]),
        _q({"dim": [0, 1]}, input=[[[1.0, 2.5, 3.0]]]),
        _q(input=[[1.0, 2.5, 3.0]]),
    ),
    "stft": (
        _q(
            {"n_fft": 4, "hop_length": 2, "return_complex": True},
            input=[0.5, 1.0, -0.5, 2.0, 0.3, -1.0, 0.8, 0.1],
            window=[0.5, 1.0, 1.0, 0.5],
        ),
    ),
    "svd": (_q(input=[[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]]),),
    "take": (_q(input=[[1.0, 2.5], [3.0, 4.0]], index={"data": [0, 3], "dtype": "int64"}),),
    "take_along_dim": (_q({"dim": 1}, input=_LOGITS, indices={"data": [[0], [2]], "dtype": "int64"}),),
    "unsqueeze": (_q({"dim": 0}, input=_ROW),),
    "conj": (_q(input={"data": [[1.0, 2.0], [-0.5, 0.5]], "dtype": "complex128"}),),
    "conj_physical": (_q(input={"data": [[1.0, 2.0], [-0.5, 0.5]], "dtype": "complex128"}),),
    "real": (_q(input={"data": [[1.0, 2.0], [-0.5, 0.5]], "dtype": "complex128"}),),
    "resolve_conj": (_q(input={"data": [[1.0, 2.0], [-0.5, 0.5]], "dtype": "complex128"}),),
    "imag": (_q(input={"data": [[1.0, 2.0], [-0.5, 0.5]], "dtype": "complex128"}),),
    "angle": (_q(input={"data": [[1.0, 2.0], [-0.5, 0.5]], "dtype": "complex128"}),),
    "view_as_real": (_q(input={"data": [[1.0, 2.0], [-0.5, 0.5]], "dtype": "complex128"}),),
    "where": (
        _q(condition={"data": [True, False, True], "dtype": "bool"}, input=_ROW, other=[-1.0, -2.0, -3.0]),
        _q(condition={"data": [True, False, True], "dtype": "bool"}),
        _q({"other": 0.0}, condition={"data": [True, False, True], "dtype": "bool"}, input=_ROW),
        _q({"input": 0.0}, condition={"data": [True, False, True], "dtype": "bool"}, other=_ROW),
        _q({"input": 1.0, "other": 0.0}, condition={"data": [True, False, True], "dtype": "bool"}),
    ),
}
