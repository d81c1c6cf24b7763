"""Which of PyTorch's modules the language has, and the function that each is: one line for each.

A line reads as the call that the module's `forward` makes: `x`, `y`, `z`, `u` are what it is called with, other words are attributes
of the module (its options, its weights), and what stands in quotes is itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_POOL: Final = "kernel_size, stride, padding"
_LOSS: Final = "reduction=reduction"
_SCALE: Final = "size=size, scale_factor=scale_factor, mode=mode, align_corners=align_corners"

_CALLS: Final[dict[str, str]] = {
    # Activations.
    "ReLU": "relu(x)", "ReLU6": "relu6(x)", "LeakyReLU": "leaky_relu(x, negative_slope)", "ELU": "elu(x, alpha)", "SELU": "selu(x)",
    "CELU": "celu(x, alpha)", "GELU": "gelu(x, approximate=approximate)", "SiLU": "silu(x)", "Mish": "mish(x)", "Sigmoid": "torch.sigmoid(x)",
    "Tanh": "torch.tanh(x)", "Softplus": "softplus(x, beta, threshold)", "Softsign": "softsign(x)", "Softshrink": "softshrink(x, lambd)",
    "Hardshrink": "hardshrink(x, lambd)", "Hardtanh": "hardtanh(x, min_val, max_val)", "Hardsigmoid": "hardsigmoid(x)",
    "Hardswish": "hardswish(x)", "Tanhshrink": "tanhshrink(x)", "Threshold": "threshold(x, threshold, value)", "LogSigmoid": "logsigmoid(x)",
    "Softmax": "softmax(x, dim=dim)", "LogSoftmax": "log_softmax(x, dim=dim)", "Softmin": "softmin(x, dim=dim)", "GLU": "glu(x, dim)",
    "PReLU": "prelu(x, weight)", "RReLU": "rrelu(x, lower, upper, training)",
    "Dropout": "dropout(x, p, training)", "Dropout1d": "dropout1d(x, p, training)", "Dropout2d": "dropout2d(x, p, training)",
    "Dropout3d": "dropout3d(x, p, training)", "AlphaDropout": "alpha_dropout(x, p, training)",
    "FeatureAlphaDropout": "feature_alpha_dropout(x, p, training)",
    # Pooling and padding.
    **{f"MaxPool{n}d": f"max_pool{n}d(x, {_POOL}, dilation, ceil_mode=ceil_mode, return_indices=return_indices)" for n in (1, 2, 3)},
    "AvgPool1d": f"avg_pool1d(x, {_POOL}, ceil_mode, count_include_pad)",
    **{f"AvgPool{n}d": f"avg_pool{n}d(x, {_POOL}, ceil_mode, count_include_pad, divisor_override)" for n in (2, 3)},
    **{f"Adaptive{kind}Pool{n}d": f"adaptive_{kind.lower()}_pool{n}d(x, output_size)" for kind in ("Avg", "Max") for n in (1, 2, 3)},
    **{f"LPPool{n}d": f"lp_pool{n}d(x, norm_type, kernel_size, stride, ceil_mode)" for n in (1, 2)},
    **{f"ZeroPad{n}d": "pad(x, padding)" for n in (1, 2, 3)},
    **{f"ConstantPad{n}d": "pad(x, padding, 'constant', value)" for n in (1, 2, 3)},
    **{f"{word}Pad{n}d": f"pad(x, padding, '{mode}')" for n in (1, 2, 3)
       for word, mode in (("Reflection", "reflect"), ("Replication", "replicate"), ("Circular", "circular"))},
    # Losses and distances.
    "L1Loss": f"l1_loss(x, y, {_LOSS})", "MSELoss": f"mse_loss(x, y, {_LOSS})", "SmoothL1Loss": f"smooth_l1_loss(x, y, {_LOSS}, beta=beta)",
    "HuberLoss": f"huber_loss(x, y, {_LOSS}, delta=delta)",
    "CrossEntropyLoss": f"cross_entropy(x, y, weight=weight, ignore_index=ignore_index, {_LOSS}, label_smoothing=label_smoothing)",
    "NLLLoss": f"nll_loss(x, y, weight=weight, ignore_index=ignore_index, {_LOSS})",
    "BCELoss": f"binary_cross_entropy(x, y, weight=weight, {_LOSS})",
    "BCEWithLogitsLoss": f"binary_cross_entropy_with_logits(x, y, weight=weight, pos_weight=pos_weight, {_LOSS})",
    "KLDivLoss": f"kl_div(x, y, {_LOSS}, log_target=log_target)",
    "PoissonNLLLoss": f"poisson_nll_loss(x, y, log_input=log_input, full=full, eps=eps, {_LOSS})",
    "GaussianNLLLoss": f"gaussian_nll_loss(x, y, z, full=full, eps=eps, {_LOSS})",
    "CosineEmbeddingLoss": f"cosine_embedding_loss(x, y, z, margin=margin, {_LOSS})",
    "MarginRankingLoss": f"margin_ranking_loss(x, y, z, margin=margin, {_LOSS})",
    "TripletMarginLoss": f"triplet_margin_loss(x, y, z, margin=margin, p=p, eps=eps, swap=swap, {_LOSS})",
    "HingeEmbeddingLoss": f"hinge_embedding_loss(x, y, margin=margin, {_LOSS})", "SoftMarginLoss": f"soft_margin_loss(x, y, {_LOSS})",
    "MultiLabelMarginLoss": f"multilabel_margin_loss(x, y, {_LOSS})",
    "MultiLabelSoftMarginLoss": f"multilabel_soft_margin_loss(x, y, weight=weight, {_LOSS})",
    "MultiMarginLoss": f"multi_margin_loss(x, y, p=p, margin=margin, weight=weight, {_LOSS})",
    "CTCLoss": f"ctc_loss(x, y, z, u, blank=blank, {_LOSS}, zero_infinity=zero_infinity)",
    "CosineSimilarity": "cosine_similarity(x, y, dim, eps)", "PairwiseDistance": "pairwise_distance(x, y, norm, eps, keepdim)",
    # Shapes.
    "Flatten": "torch.flatten(x, start_dim, end_dim)", "Unflatten": "torch.unflatten(x, dim, unflattened_size)",
    "PixelShuffle": "pixel_shuffle(x, upscale_factor)", "PixelUnshuffle": "pixel_unshuffle(x, downscale_factor)",
    "ChannelShuffle": "channel_shuffle(x, groups)",
    "Fold": "fold(x, output_size, kernel_size, dilation, padding, stride)",
    "Unfold": "unfold(x, kernel_size, dilation, padding, stride)",
    **dict.fromkeys(("Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d"), f"interpolate(x, {_SCALE})"),
    # With weights.
    "Linear": "linear(x, weight, bias)", "Bilinear": "bilinear(x, y, weight, bias)",
    "Embedding": "embedding(x, weight, padding_idx)",
    **{f"Conv{n}d": f"conv{n}d(x, weight, bias, stride, padding, dilation, groups)" for n in (1, 2, 3)},
    **{f"ConvTranspose{n}d": f"conv_transpose{n}d(x, weight, bias, stride, padding, output_padding, groups, dilation)" for n in (1, 2, 3)},
    "LayerNorm": "layer_norm(x, normalized_shape, weight, bias, eps)", "RMSNorm": "rms_norm(x, normalized_shape, weight, eps)",
    "GroupNorm": "group_norm(x, num_groups, weight, bias, eps)", "LocalResponseNorm": "local_response_norm(x, size, alpha, beta, k)",
    **{f"BatchNorm{n}d": "batch_norm(x, running_mean, running_var, weight, bias, batch_statistics, momentum, eps)" for n in (1, 2, 3)},
    **{f"InstanceNorm{n}d": "instance_norm(x, running_mean, running_var, weight, bias, batch_statistics, momentum, eps)" for n in (1, 2, 3)},
}  # fmt: skip

# Modules that are more than one call: run as PyTorch's own `forward`, on the weights of the program.
WHOLE: Final = frozenset(
    {"RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell", "MultiheadAttention", "TransformerEncoderLayer", "TransformerDecoderLayer",
     "TransformerEncoder", "TransformerDecoder", "Transformer", "EmbeddingBag", "Softmax2d", "Identity", "AdaptiveLogSoftmaxWithLoss"}
)  # fmt: skip
CONTAINERS: Final = ("Sequential", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict")
# Classes that are known and have no meaning here, with what to write.
OTHERS: Final[dict[str, str]] = {
    "DataParallel": "Leave it out: one worker computes the whole.",
    "SyncBatchNorm": "Write `nn.BatchNorm2d(…)`: one worker has the whole batch.",
    "TripletMarginWithDistanceLoss": "Write `relu(d(a, p) - d(a, n) + margin).mean()` with the distance in full.",
}


@dataclass(frozen=True, slots=True)
class Layer:
    """What a module's `forward` calls.

    Attributes:
        function: the catalogue name.
        inputs: how many tensors it is called with.
        options: the further positional arguments: attribute names, or values in quotes.
        keywords: keyword arguments by attribute.
    """

    function: str
    inputs: int
    options: tuple[str, ...]
    keywords: tuple[tuple[str, str], ...]


def _read(call: str) -> Layer:
    head = re.fullmatch(r"([\w.]+)\((.*)\)", call)
    if head is None:
        raise ValueError(call)
    parts = head[2].split(", ")
    inputs = [part for part in parts if part in ("x", "y", "z", "u")]
    keywords = tuple(tuple(part.split("=")) for part in parts if "=" in part)
    options = tuple(part for part in parts if part not in inputs and "=" not in part)
    name = head[1].removeprefix("torch.") if head[1].startswith("torch.") else f"nn.functional.{head[1]}"
    return Layer(name, len(inputs), options, keywords)


LAYERS: Final[dict[str, Layer]] = {name: _read(call) for name, call in _CALLS.items()}
