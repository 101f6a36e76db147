"""One small function an operator: what a `.tflite` says becomes operators of the QuantGraph."""

from collections.abc import Callable
from typing import Literal

from ai_edge_litert import schema_py_generated as schema

from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph import tflite_moves, tflite_states
from compression_jobs.pipeline.graph.quant_arithmetic import QMIN
from compression_jobs.pipeline.graph.quant_windows import same_padding
from compression_jobs.pipeline.graph.tflite_importer import Importer, UnsupportedError
from compression_jobs.pipeline.graph.tflite_moves import reshaped
from compression_jobs.pipeline.graph.tflite_reading import Node


def _conv(importer: Importer, node: Node) -> None:
    depthwise = node.kind == "DEPTHWISE_CONV_2D"
    kind = q.DepthwiseConv if depthwise else q.Conv
    source, taken = importer.window_source(node, None)
    weights = importer.weights(node, kind.channel_axis)
    if len(weights.values.shape) != 4 or len(source.shape) != 4:
        raise UnsupportedError("its input or weights do not have four dimensions")
    stride = node.options.StrideH(), node.options.StrideW()
    dilation = node.options.DilationHFactor(), node.options.DilationWFactor()
    kernel = int(weights.values.shape[1]), int(weights.values.shape[2])
    padding = taken or _padding(node, source, kernel, stride, dilation)
    activation, target = importer.activation(node.options), importer.target(node)
    importer.add(
        kind(node.label, (source.name,), target.name, weights, activation, stride, padding, dilation)
    )


def _padding(node: Node, source: q.Tensor, kernel: q.Pair, stride: q.Pair, dilation: q.Pair) -> q.Padding:
    if min(*kernel, *stride, *dilation) < 1:
        raise UnsupportedError("its window, stride or dilation is smaller than 1")
    if node.options.Padding() == schema.Padding.VALID:
        return 0, 0, 0, 0
    return same_padding((source.shape[1], source.shape[2]), kernel, stride, dilation)


def _pool(importer: Importer, node: Node) -> None:
    mode: Literal["average", "max"] = "max" if node.kind == "MAX_POOL_2D" else "average"
    source, taken = importer.window_source(node, QMIN) if mode == "max" else (importer.source(node), None)
    if len(source.shape) != 4:
        raise UnsupportedError("its input does not have four dimensions")
    kernel = node.options.FilterHeight(), node.options.FilterWidth()
    stride = node.options.StrideH(), node.options.StrideW()
    padding = taken or _padding(node, source, kernel, stride, (1, 1))
    importer.clamped(
        node,
        lambda target: importer.add(
            q.Pool(node.label, (source.name,), target.name, mode, kernel, stride, padding)
        ),
    )


def _fully_connected(importer: Importer, node: Node) -> None:
    if node.options.WeightsFormat() != schema.FullyConnectedOptionsWeightsFormat.DEFAULT:
        raise UnsupportedError("its weights are shuffled")
    weights = importer.weights(node, 0)
    if len(weights.values.shape) != 2:
        raise UnsupportedError("its weights do not have two dimensions")
    outputs, inputs = weights.values.shape
    source = importer.source(node)
    if source.size != inputs:
        raise UnsupportedError(
            f"{source.size} inputs meet weights for {inputs}: only one row has an int8 form here"
        )
    activation, target = importer.activation(node.options), importer.target(node)
    flat = reshaped(importer, node, source, (1, inputs), "flat")
    result = target if len(target.shape) == 2 else importer.between(target, (1, outputs), "flat")
    importer.add(q.FullyConnected(node.label, (flat.name,), result.name, weights, activation))
    if result is not target:
        importer.add(q.Reshape(f"{node.label}/shape", (result.name,), target.name))


def _arithmetic(kind: type[q.Add] | type[q.Sub] | type[q.Mul]) -> Callable[[Importer, Node], None]:
    def handle(importer: Importer, node: Node) -> None:
        sources = tuple(importer.source(node, position).name for position in range(2))
        activation, target = importer.activation(node.options), importer.target(node)
        importer.add(kind(node.label, sources, target.name, activation))

    return handle


def _concat(importer: Importer, node: Node) -> None:
    sources = tuple(importer.source(node, position).name for position in range(len(node.inputs)))
    rank = len(importer.graph.tensors[sources[0]].shape)
    axis = node.options.Axis() % rank
    importer.clamped(node, lambda target: importer.add(q.Concat(node.label, sources, target.name, axis)))


def _mean(importer: Importer, node: Node) -> None:
    source, target = importer.source(node), importer.target(node)
    axes = sorted({axis % len(source.shape) for axis in importer.numbers(node, 1)})
    if axes != list(range(1, len(source.shape) - 1)) or len(source.shape) not in (3, 4):
        raise UnsupportedError("only means over height and width have an int8 form here")
    channels = source.shape[-1]
    if len(source.shape) == 3:
        source = reshaped(importer, node, source, (1, 1, *source.shape[1:]), "picture")
    plain = target.shape in ((1, channels), (1, 1, 1, channels))
    result = target if plain else importer.between(target, (1, channels), "flat")
    importer.add(q.Mean(node.label, (source.name,), result.name))
    if result is not target:
        importer.add(q.Reshape(f"{node.label}/shape", (result.name,), target.name))


def _softmax(importer: Importer, node: Node) -> None:
    source, target = importer.source(node), importer.target(node)
    if node.options.Beta() != 1.0:
        raise UnsupportedError(f"its beta is {node.options.Beta()}, only 1 has an int8 form here")
    if (target.scale, target.zero_point) != (q.SOFTMAX_SCALE, q.SOFTMAX_ZERO_POINT):
        raise UnsupportedError("the scale of its result is not 1/256")
    importer.add(q.Softmax(node.label, (source.name,), target.name))


def _rectify(activation: q.Activation) -> Callable[[Importer, Node], None]:
    def handle(importer: Importer, node: Node) -> None:
        source, target = importer.source(node), importer.target(node)
        if not source.same_scale(target):
            scaled = importer.between(target, source.shape, "scaled")
            importer.add(q.LookUp(scaled.name, (source.name,), scaled.name, "requantize"))
            source = scaled
        importer.add(q.Clamp(node.label, (source.name,), target.name, activation))

    return handle


def _look_up(function: q.Function) -> Callable[[Importer, Node], None]:
    def handle(importer: Importer, node: Node) -> None:
        source, target = importer.source(node), importer.target(node)
        alpha = float(node.options.Alpha()) if function == "leaky_relu" else 0.0
        importer.add(q.LookUp(node.label, (source.name,), target.name, function, alpha))

    return handle


def _inner_dequantize(importer: Importer, node: Node) -> None:
    raise UnsupportedError("the model goes back to floats before its end")


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {
    **tflite_moves.HANDLERS,
    **tflite_states.HANDLERS,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _conv,
    "FULLY_CONNECTED": _fully_connected,
    "ADD": _arithmetic(q.Add),
    "SUB": _arithmetic(q.Sub),
    "MUL": _arithmetic(q.Mul),
    "CONCATENATION": _concat,
    "MAX_POOL_2D": _pool,
    "AVERAGE_POOL_2D": _pool,
    "MEAN": _mean,
    "SOFTMAX": _softmax,
    "RELU": _rectify("relu"),
    "RELU6": _rectify("relu6"),
    "LOGISTIC": _look_up("logistic"),
    "TANH": _look_up("tanh"),
    "LEAKY_RELU": _look_up("leaky_relu"),
    "HARD_SWISH": _look_up("hard_swish"),
    "QUANTIZE": _look_up("requantize"),
    "DEQUANTIZE": _inner_dequantize,
}
