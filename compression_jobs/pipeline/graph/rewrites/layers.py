"""Rewrites that bring layers to one form: folded scales, explicit windows, plain dense layers.

Each takes a graph, changes it in place and says whether it did.
"""

from collections.abc import Callable

import numpy as np
from onnx import NodeProto

from compression_jobs.pipeline.graph.graph import Array, Graph, Shape, attributes, make_node

AFFINE = ("Mul", "Add", "Sub", "Div")
LAYERS = ("Conv", "ConvTranspose", "Gemm")
WINDOWED = ("Conv", "MaxPool", "AveragePool")
GLOBAL = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}
MOST_IN_A_ROW = 64  # numbers that a dense layer may scale one by one: its weights are their square

Replacement = Callable[[Graph, NodeProto], list[NodeProto] | None]


def replace_each(graph: Graph, op: str | tuple[str, ...], replacement: Replacement) -> bool:
    """Replace every node of an operator for which `replacement` gives new nodes."""
    ops = (op,) if isinstance(op, str) else op
    found: dict[str, list[NodeProto]] = {}
    for node in graph.nodes:
        fresh = replacement(graph, node) if node.op_type in ops else None
        if fresh is not None:
            found[node.name] = fresh
    graph.replace(found)
    return bool(found)


def dense_layers(graph: Graph) -> bool:
    """Write MatMul by a constant matrix as Gemm."""
    return replace_each(graph, "MatMul", _gemm_of_matmul)


def _gemm_of_matmul(graph: Graph, node: NodeProto) -> list[NodeProto] | None:
    weights = graph.constant(node, 1)
    if weights is None or weights.ndim != 2 or len(graph.shapes.get(node.input[0], ())) != 2:
        return None
    name = graph.add_initializer(f"{node.input[1]}_t", weights.T)
    return [make_node("Gemm", [node.input[0], name], list(node.output), node.name, transB=1)]


def plain_gemm(graph: Graph) -> bool:
    """Bring Gemm to weights of shape (out, in), transB = 1, alpha = beta = 1 and a bias of shape (out,)."""
    return replace_each(graph, "Gemm", _plain_gemm)


def _plain_gemm(graph: Graph, node: NodeProto) -> list[NodeProto] | None:
    options, weights = attributes(node), graph.constant(node, 1)
    bias = graph.constant(node, 2)
    has_bias = len(node.input) > 2 and bool(node.input[2])
    if weights is None or options.get("transA", 0) or (has_bias and bias is None):
        return None
    scaled = weights.T if not options.get("transB", 0) else weights
    outputs = scaled.shape[0]
    alpha, beta = options.get("alpha", 1.0), options.get("beta", 1.0)
    flat = bias is None or bias.shape == (outputs,)
    if options.get("transB", 0) and alpha == beta == 1.0 and flat:
        return None
    inputs = [
        node.input[0],
        graph.add_initializer(f"{node.name}_weight", (scaled * alpha).astype(weights.dtype)),
    ]
    if bias is not None:
        if bias.size not in (1, outputs) or bias.ndim > 2 or (bias.ndim == 2 and bias.shape[0] != 1):
            return None
        full = np.broadcast_to(bias.reshape(-1) * beta, (outputs,)).astype(weights.dtype)
        inputs.append(graph.add_initializer(f"{node.name}_bias", full))
    return [make_node("Gemm", inputs, list(node.output), node.name, transB=1)]


def fold_batch_norm(graph: Graph) -> bool:
    """Fold BatchNormalization into the layer before it (Jacob et al. 2018, section 3.2)."""
    return _fold_into_layer(graph, ("BatchNormalization",))


def fold_affine(graph: Graph) -> bool:
    """Fold multiplication and addition of one constant a channel into the layer before it."""
    return _fold_into_layer(graph, AFFINE)


def _fold_into_layer(graph: Graph, ops: tuple[str, ...]) -> bool:
    """Fold one operator at a time, so that chains after the same layer fold one after the other."""
    folded = False
    for node in graph.nodes:
        if node.op_type not in ops:
            continue
        match = scale_and_shift(graph, node)
        layer = graph.producers.get(match[0]) if match else None
        if match is None or layer is None or layer.op_type not in LAYERS or not graph.used_once(match[0]):
            continue
        fresh = _scaled_layer(graph, layer, node, match[1], match[2])
        if fresh is not None:
            graph.replace({layer.name: [fresh], node.name: []})
            folded = True
    return folded


def scale_and_shift(graph: Graph, node: NodeProto) -> tuple[str, Array, Array] | None:
    """`(input, scale, shift)` of `input * scale + shift`, one number a channel."""
    if node.op_type == "BatchNormalization":
        affine = batch_norm_affine(graph, node)
        return None if affine is None else (str(node.input[0]), *affine)
    place = next((i for i in (1, 0) if graph.constant(node, i) is not None), None)
    shape = graph.shapes.get(node.output[0])
    if place is None or shape is None or (place == 0 and node.op_type == "Div"):
        return None
    constant = graph.constant(node, place)
    values = None if constant is None else per_channel(constant, shape)
    if values is None or graph.shapes.get(node.input[1 - place]) != shape:
        return None
    one, zero = np.ones_like(values), np.zeros_like(values)
    scale, shift = {
        "Mul": (values, zero),
        "Div": (one / values if node.op_type == "Div" else one, zero),
        "Add": (one, values),
        "Sub": (one, -values) if place else (-one, values),
    }[node.op_type]
    return str(node.input[1 - place]), scale, shift


def per_channel(constant: Array, shape: Shape) -> Array | None:
    """The constant as one float64 a channel (axis 1), when it only varies along that axis."""
    if constant.dtype.kind != "f" or constant.ndim > len(shape) or len(shape) < 2:
        return None
    full = constant.reshape((1,) * (len(shape) - constant.ndim) + constant.shape)
    if full.size != full.shape[1] or full.shape[1] not in (1, shape[1]):
        return None
    return np.broadcast_to(full.reshape(-1).astype(np.float64), (shape[1],))


def batch_norm_affine(graph: Graph, node: NodeProto) -> tuple[Array, Array] | None:
    """`(scale, shift)` of a BatchNormalization in inference; None when it is not constant."""
    parameters = [graph.constant(node, position) for position in range(1, 5)]
    options = attributes(node)
    if options.get("training_mode", 0) or any(name for name in node.output[1:]):
        return None
    gamma, beta, mean, variance = (None if p is None else p.astype(np.float64) for p in parameters)
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    scale = gamma / np.sqrt(variance + options.get("epsilon", 1e-5))
    return scale, beta - mean * scale


def _scaled_layer(
    graph: Graph, layer: NodeProto, node: NodeProto, scale: Array, shift: Array
) -> NodeProto | None:
    weights, bias = graph.constant(layer, 1), graph.constant(layer, 2)
    options = attributes(layer)
    if weights is None or (bias is None and len(layer.input) > 2 and layer.input[2]):
        return None
    if layer.op_type == "Gemm" and (not options.get("transB") or {"alpha", "beta"} & set(options)):
        return None
    scaled = _scale_outputs(weights.astype(np.float64), scale, layer.op_type, options.get("group", 1))
    if scaled is None or (bias is not None and bias.shape != scale.shape):
        return None
    moved = shift if bias is None else bias.astype(np.float64) * scale + shift
    names = [
        graph.add_initializer(f"{layer.name}_weight", scaled.astype(weights.dtype)),
        graph.add_initializer(f"{layer.name}_bias", moved.astype(weights.dtype)),
    ]
    return make_node(layer.op_type, [layer.input[0], *names], [node.output[0]], layer.name, **options)


def _scale_outputs(weights: Array, scale: Array, op: str, groups: int) -> Array | None:
    if op != "ConvTranspose":
        return weights * scale.reshape(-1, *[1] * (weights.ndim - 1)) if len(weights) == len(scale) else None
    inputs, outputs = weights.shape[0], weights.shape[1]
    if inputs % groups or outputs * groups != len(scale):
        return None
    kernel = weights.shape[2:]
    grouped = weights.reshape(groups, inputs // groups, outputs, *kernel)
    return np.asarray(grouped * scale.reshape(groups, 1, outputs, *[1] * len(kernel))).reshape(weights.shape)


def batch_norm_to_conv(graph: Graph) -> bool:
    """Write a BatchNormalization that no layer could take as a layer of its own."""
    return replace_each(graph, "BatchNormalization", _layer_of_affine)


def affine_to_conv(graph: Graph) -> bool:
    """Write a constant factor or term for each channel as a layer that takes in those behind it.

    It is a depthwise convolution of kernel 1, or for rows of few numbers a dense layer.
    """
    written = False
    for name in [node.name for node in graph.nodes if node.op_type in AFFINE]:
        node = next((node for node in graph.nodes if node.name == name), None)
        fresh = None if node is None else _layer_of_affine(graph, node)
        if fresh is not None:
            graph.replace({name: fresh})
            fold_affine(graph)
            written = True
    return written


def _layer_of_affine(graph: Graph, node: NodeProto) -> list[NodeProto] | None:
    shape = graph.shapes.get(node.output[0], ())
    affine = scale_and_shift(graph, node)
    is_row = len(shape) == 2 and shape[1] <= MOST_IN_A_ROW
    if (
        affine is None
        or not (is_row or len(shape) in (3, 4))
        or graph.dtypes.get(node.output[0]) != "float32"
    ):
        return None
    source, scale, shift = affine
    if is_row:
        names = [
            graph.add_initializer(f"{node.name}_weight", np.diag(scale).astype(np.float32)),
            graph.add_initializer(f"{node.name}_bias", shift.astype(np.float32)),
        ]
        return [make_node("Gemm", [source, *names], [node.output[0]], node.name, transB=1)]
    kernel = [1] * (len(shape) - 2)
    names = [
        graph.add_initializer(f"{node.name}_weight", scale.reshape(-1, 1, *kernel).astype(np.float32)),
        graph.add_initializer(f"{node.name}_bias", shift.astype(np.float32)),
    ]
    options = {"kernel_shape": kernel, "group": len(scale)}
    return [make_node("Conv", [source, *names], [node.output[0]], node.name, **options)]


def reduction_to_pool(graph: Graph) -> bool:
    """Write the mean or maximum over all spatial axes as a global pool, and a Reshape where they vanish."""
    return replace_each(graph, tuple(GLOBAL), _global_pool)


def _global_pool(graph: Graph, node: NodeProto) -> list[NodeProto] | None:
    shape, after = graph.shapes.get(node.input[0], ()), graph.shapes.get(node.output[0])
    options = attributes(node)
    given = graph.constant(node, 1) if len(node.input) > 1 else options.get("axes")
    if given is None or after is None or len(shape) not in (3, 4):
        return None
    axes = sorted(int(axis) % len(shape) for axis in given)
    if axes != list(range(2, len(shape))):
        return None
    if options.get("keepdims", 1):
        return [make_node(GLOBAL[node.op_type], [node.input[0]], [node.output[0]], node.name)]
    pooled = graph.fresh_name(f"{node.output[0]}_pooled")
    wanted = graph.add_initializer(f"{node.name}_shape", np.array(after, np.int64))
    return [
        make_node(GLOBAL[node.op_type], [node.input[0]], [pooled], node.name),
        make_node("Reshape", [pooled, wanted], [node.output[0]], graph.fresh_name(f"{node.name}_reshape")),
    ]


def explicit_windows(graph: Graph) -> bool:
    """State kernel, strides, dilations and pads of convolutions and pools, in place of `auto_pad`."""
    return replace_each(graph, WINDOWED, _explicit_window)


def _explicit_window(graph: Graph, node: NodeProto) -> list[NodeProto] | None:
    options, shape = attributes(node), graph.shapes.get(node.input[0])
    weights = graph.shapes.get(node.input[1]) if node.op_type == "Conv" else None
    kernel = options.get("kernel_shape") or (list(weights[2:]) if weights else None)
    if shape is None or kernel is None:
        return None
    stated = {"kernel_shape": kernel, "strides": options.get("strides", [1] * len(kernel))}
    if node.op_type == "Conv":
        stated["group"] = options.get("group", 1)
    if node.op_type != "AveragePool":
        stated["dilations"] = options.get("dilations", [1] * len(kernel))
    dilations = stated.get("dilations", [1] * len(kernel))
    stated["pads"] = _explicit_pads(options, shape[2:], kernel, stated["strides"], dilations)
    wanted = {name: value for name, value in options.items() if name != "auto_pad"} | stated
    if wanted == options:
        return None
    return [make_node(node.op_type, list(node.input), list(node.output), node.name, **wanted)]


def _explicit_pads(
    options: dict[str, object], sizes: Shape, kernel: list[int], strides: list[int], dilations: list[int]
) -> list[int]:
    mode = options.get("auto_pad", "NOTSET")
    if mode == "NOTSET":
        pads = options.get("pads")
        return list(pads) if isinstance(pads, list) else [0] * (2 * len(kernel))
    if mode == "VALID":
        return [0] * (2 * len(kernel))
    begins, ends = [], []
    for size, window, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (window - 1) * dilation + 1 - size, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return begins + ends


def fold_pads(graph: Graph) -> bool:
    """Fold a zero Pad of the spatial axes into the convolution that reads it."""
    folded = False
    for node in graph.nodes:
        maker = graph.producers.get(node.input[0]) if node.op_type == "Conv" else None
        extra = _zero_pads(graph, maker) if maker is not None else None
        if maker is None or extra is None or not graph.used_once(node.input[0]):
            continue
        options = attributes(node)
        options["pads"] = [own + more for own, more in zip(options["pads"], extra, strict=True)]
        inputs = [maker.input[0], *node.input[1:]]
        fresh = make_node("Conv", inputs, list(node.output), node.name, **options)
        graph.replace({maker.name: [], node.name: [fresh]})
        folded = True
    return folded


def _zero_pads(graph: Graph, node: NodeProto) -> list[int] | None:
    pads, value = graph.constant(node, 1), graph.constant(node, 2)
    has_value = len(node.input) > 2 and bool(node.input[2])
    if node.op_type != "Pad" or pads is None or attributes(node).get("mode", "constant") != "constant":
        return None
    if (has_value and (value is None or value.any())) or len(node.input) > 3:
        return None
    half = len(pads) // 2
    begins, ends = [int(p) for p in pads[:half]], [int(p) for p in pads[half:]]
    if any(begins[:2] + ends[:2]) or min(begins + ends) < 0:
        return None
    return begins[2:] + ends[2:]


def plain_clips(graph: Graph) -> bool:
    """Write Clip from 0 without a ceiling as Relu, and Min(Relu(x), c) as Clip(x, 0, c)."""
    return replace_each(graph, ("Clip", "Min"), _plain_clip)


def _plain_clip(graph: Graph, node: NodeProto) -> list[NodeProto] | None:
    if node.op_type == "Clip":
        low, high = clip_bounds(graph, node)
        relu = low == 0 and high == float("inf") and graph.dtypes.get(node.input[0]) == "float32"
        return [make_node("Relu", [node.input[0]], list(node.output), node.name)] if relu else None
    ceiling, maker = graph.constant(node, 1), graph.producers.get(node.input[0])
    if (
        maker is None
        or maker.op_type != "Relu"
        or ceiling is None
        or ceiling.size != 1
        or len(node.input) != 2
    ):
        return None
    bounds = [
        graph.add_initializer(f"{node.name}_min", np.zeros((), ceiling.dtype)),
        graph.add_initializer(f"{node.name}_max", ceiling.reshape(())),
    ]
    return [make_node("Clip", [maker.input[0], *bounds], list(node.output), node.name)]


def clip_bounds(graph: Graph, node: NodeProto) -> tuple[float | None, float | None]:
    """The constant bounds of a Clip, infinite where absent, None where computed."""
    bounds: list[float | None] = []
    for position, absent in ((1, float("-inf")), (2, float("inf"))):
        given = position < len(node.input) and bool(node.input[position])
        value = graph.constant(node, position)
        bounds.append(
            absent if not given else None if value is None or value.size != 1 else float(value.item())
        )
    low, high = bounds
    return low, float("inf") if high is not None and high >= np.finfo(np.float32).max else high
