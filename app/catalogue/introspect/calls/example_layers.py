"""Reviewed examples of layers and losses: calls that show an operation well, and the only samples of some that PyTorch's tests lack.

`{"list": […]}` is a list of tensors, `{"data": …, "dtype": …}` a tensor of that dtype.
"""

from __future__ import annotations

from typing import Any, Final

from app.catalogue.introspect.calls.example_values import (
    CLASSES,
    HIDDEN,
    IMAGE,
    LOGITS,
    ROW,
    SEQUENCE,
    SIGNED,
    VOLUME,
    call,
    gates,
    recurrent,
)

ATTENTION: Final = call(
    {"embed_dim_to_check": 2, "num_heads": 1, "add_zero_attn": False, "dropout_p": 0.0, "training": False},
    query=[[[0.5, -0.2]], [[0.1, 0.3]]],
    key=[[[0.4, 0.1]], [[-0.3, 0.2]]],
    value=[[[1.0, 0.0]], [[0.0, 1.0]]],
    in_proj_weight=gates(6, 2),
    out_proj_weight=[[1.0, 0.0], [0.0, 1.0]],
)


# Canonical name → samples; the first is the one that the catalogue shows.
LAYERS: Final[dict[str, tuple[dict[str, Any], ...]]] = {
    "gru": (recurrent(3, 1),),
    "gru_cell": (call(input=[[0.5, -0.2]], hx=[[0.1, -0.2]], w_ih=gates(6, 2), w_hh=gates(6, 2)),),
    "lstm": (recurrent(4, 2),),
    "lstm_cell": (call(input=[[0.5, -0.2]], hx={"list": [[[0.1, -0.2]], [[0.3, 0.0]]]}, w_ih=gates(8, 2), w_hh=gates(8, 2)),),
    "nn.functional.affine_grid": (
        call({"size": [1, 1, 2, 2], "align_corners": False}, theta=[[[1.0, 0.2, 0.0], [0.0, 1.0, 0.1]]]),
    ),
    "nn.functional.alpha_dropout": (call({"p": 0.5, "training": True}, input=SIGNED),),
    "nn.functional.avg_pool2d": (call({"kernel_size": 2}, input=IMAGE),),
    "nn.functional.batch_norm": (
        call({"training": True}, input=[[1.0, -2.0], [3.0, 0.5], [2.0, 1.5]]),
        call({"training": True}, input=LOGITS, running_mean=[0.0, 0.0, 0.0], running_var=[1.0, 1.0, 1.0]),
        call(
            input=LOGITS,
            running_mean=[0.1, 0.2, 0.3],
            running_var=[1.0, 2.0, 1.0],
            weight=[1.0, 0.5, 2.0],
            bias=[0.0, 0.1, 0.2],
        ),
    ),
    "nn.functional.binary_cross_entropy": (call(input=[0.2, 0.7, 0.9], target=[0.0, 1.0, 1.0]),),
    "nn.functional.binary_cross_entropy_with_logits": (call(input=[-1.2, 0.8, 2.0], target=[0.0, 1.0, 1.0]),),
    "nn.functional.conv1d": (
        call({"padding": 1}, input=SEQUENCE, weight=[[[0.5, 1.0, -0.5]]], bias=[0.1]),
        call({"padding": "same"}, input=SEQUENCE, weight=[[[0.5, 1.0, -0.5]]]),
    ),
    "nn.functional.conv2d": (
        call({"padding": 1}, input=IMAGE, weight=[[[[0.1, 0.0, -0.1], [0.2, 0.0, -0.2], [0.1, 0.0, -0.1]]]], bias=[0.5]),
        call({"padding": "same"}, input=IMAGE, weight=[[[[0.5, 0.25], [-0.25, 0.1]]]]),
    ),
    "nn.functional.conv3d": (
        call(input=VOLUME, weight=[[[[[0.5, 0.25]]]]], bias=[0.1]),
        call({"padding": "same"}, input=VOLUME, weight=[[[[[0.5]]]]]),
    ),
    "nn.functional.conv_tbc": (call({"pad": 0}, input=[[[0.5, 1.0]], [[-0.5, 2.0]]], weight=[[[0.5], [1.0]]], bias=[0.1]),),
    "nn.functional.cosine_similarity": (call({"dim": 0}, x1=ROW, x2=[3.0, 2.0, -1.0]),),
    "nn.functional.cross_entropy": (
        call(input=LOGITS, target=CLASSES),
        call(input=LOGITS, target=[[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], weight=[1.0, 2.0, 0.5]),
    ),
    "nn.functional.ctc_loss": (
        call(
            {"input_lengths": [3], "target_lengths": [2]},
            log_probs=[[[-1.1, -1.2, -1.0]], [[-0.9, -1.4, -1.1]], [[-1.3, -0.8, -1.2]]],
            targets={"data": [[1, 2]], "dtype": "int64"},
        ),
        call(
            log_probs=[[[-1.1, -1.2, -1.0]], [[-0.9, -1.4, -1.1]], [[-1.3, -0.8, -1.2]]],
            targets={"data": [[1, 2]], "dtype": "int64"},
            input_lengths={"data": [3], "dtype": "int64"},
            target_lengths={"data": [2], "dtype": "int64"},
        ),
    ),
    "nn.functional.dropout": (call({"p": 0.5}, input=SIGNED),),
    "nn.functional.dropout1d": (call({"p": 0.5}, input=[[[1.0, 2.0], [3.0, 4.0]]]),),
    "nn.functional.dropout2d": (call({"p": 0.5}, input=IMAGE),),
    "nn.functional.dropout3d": (call({"p": 0.5}, input=VOLUME),),
    "nn.functional.embedding": (
        call(input={"data": [0, 2, 1, 0], "dtype": "int64"}, weight=[[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]),
        call({"max_norm": 0.5}, input={"data": [0, 2], "dtype": "int64"}, weight=[[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]),
    ),
    "nn.functional.feature_alpha_dropout": (call({"p": 0.5, "training": True}, input=IMAGE),),
    "nn.functional.fold": (
        call(
            {"output_size": [3, 3], "kernel_size": [2, 2]},
            input=[[[1.0, 2.0, 3.0, 4.0], [0.5, -1.0, 2.5, 0.0], [-2.0, 1.5, 0.5, 1.0], [3.0, -0.5, 0.0, 2.0]]],
        ),
    ),
    "nn.functional.gelu": (call(input=SIGNED),),
    "nn.functional.grid_sample": (
        call({"align_corners": False}, input=IMAGE, grid=[[[[-0.5, -0.5], [0.3, 0.1]], [[0.0, 0.6], [0.8, -0.2]]]]),
    ),
    "nn.functional.gumbel_softmax": (call({"tau": 1.0, "dim": -1}, logits=LOGITS),),
    "nn.functional.huber_loss": (call(input=ROW, target=[1.5, 0.0, 3.0]),),
    "nn.functional.interpolate": (
        call({"scale_factor": 2.0, "mode": "bilinear", "align_corners": False}, input=[[[[0.1, 0.4], [0.7, -0.2]]]]),
        call({"size": [3, 3]}, input=[[[[0.1, 0.4], [0.7, -0.2]]]]),
    ),
    "nn.functional.kl_div": (call({"reduction": "batchmean"}, input=[[-1.2, -0.4, -2.3]], target=[[0.3, 0.6, 0.1]]),),
    "nn.functional.l1_loss": (call(input=ROW, target=[1.5, 0.0, 3.5]),),
    "nn.functional.layer_norm": (call({"normalized_shape": [3]}, input=LOGITS, weight=[1.0, 0.5, 2.0], bias=[0.0, 0.1, 0.2]),),
    "nn.functional.linear": (call(input=[[1.0, 2.0]], weight=[[0.5, -1.0], [0.25, 2.0]], bias=[0.1, 0.2]),),
    "nn.functional.lp_pool1d": (call({"norm_type": 2.0, "kernel_size": 2}, input=SEQUENCE),),
    "nn.functional.lp_pool2d": (call({"norm_type": 2.0, "kernel_size": 2}, input=IMAGE),),
    "nn.functional.lp_pool3d": (call({"norm_type": 2.0, "kernel_size": 2}, input=VOLUME),),
    "nn.functional.max_pool1d": (
        call({"kernel_size": 2}, input=SEQUENCE),
        call({"kernel_size": 2, "return_indices": True}, input=SEQUENCE),
    ),
    "nn.functional.max_pool2d": (
        call({"kernel_size": 2}, input=IMAGE),
        call({"kernel_size": 2, "return_indices": True}, input=IMAGE),
    ),
    "nn.functional.mse_loss": (call(input=ROW, target=[1.5, 0.0, 3.0]),),
    "nn.functional.multi_head_attention_forward": (ATTENTION,),
    "nn.functional.nll_loss": (call(input=[[-1.2, -0.4, -2.3], [-0.9, -1.5, -0.8]], target=CLASSES),),
    "nn.functional.normalize": (call({"dim": 0}, input=[3.0, 4.0]),),
    "nn.functional.one_hot": (call({"num_classes": 3}, input={"data": [0, 2, 1], "dtype": "int64"}),),
    "nn.functional.pad": (call({"pad": [1, 2]}, input=ROW),),
    "nn.functional.prelu": (call(input=[-1.0, 2.0, -3.0, 0.5], weight=[0.25]),),
    "nn.functional.relu": (call(input=SIGNED),),
    "nn.functional.rrelu": (call({"training": True}, input=SIGNED),),
    "nn.functional.scaled_dot_product_attention": (
        call(query=[[[0.5, -0.2], [0.1, 0.3]]], key=[[[0.4, 0.1], [-0.3, 0.2]]], value=[[[1.0, 0.0], [0.0, 1.0]]]),
        call(
            {"is_causal": True},
            query=[[[[0.5, -0.2], [0.1, 0.3]]]],
            key=[[[[0.4, 0.1], [-0.3, 0.2]]]],
            value=[[[[1.0, 0.0], [0.0, 1.0]]]],
        ),
    ),
    "nn.functional.softplus": (call(input=SIGNED),),
    "nn.functional.unfold": (call({"kernel_size": 2}, input=IMAGE),),
    "nn.utils.rnn.pad_sequence": (call({"batch_first": True}, sequences={"list": [[1.0, 2.0, 3.0], [4.0, 5.0]]}),),
    "rnn_relu": (recurrent(1, 1),),
    "rnn_relu_cell": (call(hx=[[0.1, -0.2], [0.3, 0.0]], **HIDDEN),),
    "rnn_tanh": (recurrent(1, 1),),
    "rnn_tanh_cell": (call(hx=[[0.1, -0.2], [0.3, 0.0]], **HIDDEN),),
    "nn.functional.adaptive_avg_pool2d": (call({"output_size": 2}, input=IMAGE),),
    "nn.functional.adaptive_max_pool1d": (
        call({"output_size": 2}, input=SEQUENCE),
        call({"output_size": 2, "return_indices": True}, input=SEQUENCE),
    ),
    "nn.functional.adaptive_max_pool2d": (
        call({"output_size": 2}, input=IMAGE),
        call({"output_size": 2, "return_indices": True}, input=IMAGE),
    ),
    "nn.functional.adaptive_max_pool3d": (
        call({"output_size": 1}, input=VOLUME),
        call({"output_size": 1, "return_indices": True}, input=VOLUME),
    ),
    "nn.functional.avg_pool1d": (call({"kernel_size": 2}, input=SEQUENCE),),
    "nn.functional.avg_pool3d": (call({"kernel_size": 2}, input=VOLUME),),
    "nn.functional.channel_shuffle": (call({"groups": 2}, input=[[[[1.0]], [[2.5]], [[3.0]], [[4.0]]]]),),
    "nn.functional.conv_transpose1d": (call({"stride": 2}, input=SEQUENCE, weight=[[[0.5, 1.0]]], bias=[0.1]),),
    "nn.functional.conv_transpose2d": (
        call({"stride": 2}, input=[[[[0.1, 0.4], [0.7, -0.2]]]], weight=[[[[0.5, 1.0], [-0.5, 0.25]]]], bias=[0.1]),
    ),
    "nn.functional.conv_transpose3d": (call(input=VOLUME, weight=[[[[[0.5, 1.0]]]]], bias=[0.1]),),
    "nn.functional.cosine_embedding_loss": (
        call(input1=[[1.0, 2.5]], input2=[[0.5, -1.0]], target={"data": [1], "dtype": "int64"}),
    ),
    "nn.functional.embedding_bag": (
        call(input={"data": [[0, 2], [1, 1]], "dtype": "int64"}, weight=[[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]),
        call(
            {"max_norm": 0.5},
            input={"data": [[0, 2], [1, 1]], "dtype": "int64"},
            weight=[[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]],
        ),
    ),
    "nn.functional.fractional_max_pool2d": (
        call({"kernel_size": 2, "output_size": 2}, input=IMAGE),
        call({"kernel_size": 2, "output_size": 2, "return_indices": True}, input=IMAGE),
    ),
    "nn.functional.fractional_max_pool3d": (
        call({"kernel_size": 1, "output_size": 1}, input=VOLUME),
        call({"kernel_size": 1, "output_size": 1, "return_indices": True}, input=VOLUME),
    ),
    "nn.functional.gaussian_nll_loss": (
        call(input=ROW, target=[1.5, 2.0, 3.5], var=[0.5, 1.0, 2.0]),
        call({"var": 0.5}, input=ROW, target=[1.5, 2.0, 3.5]),
    ),
    "nn.functional.group_norm": (
        call({"num_groups": 2}, input=[[1.0, 2.5, -0.5, 3.0]], weight=[1.0, 0.5, 2.0, 1.5], bias=[0.0, 0.1, 0.2, 0.3]),
    ),
    "nn.functional.instance_norm": (
        call(input=SEQUENCE),
        call(input=SEQUENCE, running_mean=[0.1], running_var=[1.5]),
    ),
    "nn.functional.max_pool3d": (
        call({"kernel_size": 2}, input=VOLUME),
        call({"kernel_size": 2, "return_indices": True}, input=VOLUME),
    ),
    "nn.functional.max_unpool1d": (
        call({"kernel_size": 2}, input=[[[0.4, 0.8]]], indices={"data": [[[1, 3]]], "dtype": "int64"}),
    ),
    "nn.functional.max_unpool2d": (
        call({"kernel_size": 2}, input=[[[[0.7, 0.8]]]], indices={"data": [[[[4, 3]]]], "dtype": "int64"}),
    ),
    "nn.functional.max_unpool3d": (
        call({"kernel_size": 2}, input=[[[[[0.8]]]]], indices={"data": [[[[[3]]]]], "dtype": "int64"}),
    ),
    "nn.functional.pdist": (call(input=[[0.0, 0.5], [3.0, 4.0], [1.0, -1.0]]),),
    "nn.functional.pixel_shuffle": (call({"upscale_factor": 2}, input=[[[[1.0]], [[2.5]], [[3.0]], [[4.0]]]]),),
    "nn.functional.pixel_unshuffle": (call({"downscale_factor": 2}, input=[[[[1.0, 2.5], [3.0, 4.0]]]]),),
    "nn.functional.relu6": (call(input=[-1.5, 0.5, 2.0, 7.0]),),
    "nn.functional.triplet_margin_loss": (call(anchor=[[1.0, 2.5]], positive=[[1.5, 2.0]], negative=[[0.5, 3.0]]),),
    "nn.functional.triplet_margin_with_distance_loss": (
        call(anchor=[[1.0, 2.5]], positive=[[1.5, 2.0]], negative=[[0.5, 3.0]]),
    ),
    "nn.functional.upsample_bilinear": (call({"scale_factor": 2}, input=[[[[0.1, 0.4], [0.7, -0.2]]]]),),
    "nn.functional.upsample_nearest": (call({"scale_factor": 2}, input=[[[[0.1, 0.4], [0.7, -0.2]]]]),),
}
