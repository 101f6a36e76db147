"""Models in the manner of exporters that are not installed here, and of every opset, built by hand."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.compression_jobs.pipeline.graph.models import weights

node = helper.make_node
# The IR version that went with an opset.
IR = {7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}  # fmt: skip


def model(nodes, constants, input_shape, output_shape, opset):
    """A model with one input x and one output y."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output_shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR[opset])
    if IR[opset] < 4:  # constants had to be listed as inputs, too
        for name, value in constants.items():
            listed = helper.make_tensor_value_info(name, TensorProto.FLOAT, np.asarray(value).shape)
            made.graph.input.append(listed)
    return made


def conv_net(opset):
    """Convolution, normalisation, pooling, clipping, a mean and a dense layer as they are written at that opset."""
    axes_inputs, as_inputs = opset >= 18, opset >= 13
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4, kernel_shape=[3, 3]),
        node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["n"]),
        node("Relu", ["n"], ["r"]),
        node("MaxPool", ["r"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Dropout", ["m"], ["d"]),
        node("Clip", ["d", "low", "high"], ["e"])
        if opset >= 11
        else node("Clip", ["d"], ["e"], min=0.0, max=6.0),
        node("ReduceMean", ["e", "hw"], ["g"], keepdims=0)
        if axes_inputs
        else node("ReduceMean", ["e"], ["g"], keepdims=0, axes=[2, 3]),
        node("Unsqueeze", ["g", "one"], ["u"]) if as_inputs else node("Unsqueeze", ["g"], ["u"], axes=[1]),
        node("Squeeze", ["u", "one"], ["q"]) if as_inputs else node("Squeeze", ["u"], ["q"], axes=[1]),
        node("Gemm", ["q", "dense", "bias"], ["h"], transB=1),
        node("Softmax", ["h"], ["y"], axis=1),
    ]
    constants = {"w": weights(4, 2, 3, 3), "b": weights(4), "scale": weights(4), "shift": weights(4)}
    constants |= {"mean": weights(4), "var": weights(4) ** 2 + 0.1}
    constants |= {"dense": weights(3, 4), "bias": weights(3)}
    constants |= {"low": np.float32(0), "high": np.float32(6)} if opset >= 11 else {}
    constants |= {"hw": np.array([2, 3])} if axes_inputs else {}
    constants |= {"one": np.array([1])} if as_inputs else {}
    return model(nodes, constants, ("N", 2, 8, 8), ("N", 3), opset)


def enlarging(opset):
    """Upsampling, padding, cutting and splitting as they are written at that opset."""
    constants = {}
    if opset < 9:
        nodes = [node("Upsample", ["x"], ["u"], scales=[1.0, 1.0, 2.0, 2.0])]
    else:
        constants["times"] = np.array([1, 1, 2, 2], np.float32)
        constants |= {"no_roi": np.zeros(0, np.float32)} if opset >= 11 else {}
        old = {9: node("Upsample", ["x", "times"], ["u"]), 10: node("Resize", ["x", "times"], ["u"])}
        new = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        nodes = [old.get(opset) or node("Resize", ["x", "no_roi", "times"], ["u"], **new)]
    if opset < 11:
        nodes += [node("Pad", ["u"], ["p"], pads=[0, 0, 1, 1, 0, 0, 1, 1])]
    else:
        nodes += [node("Pad", ["u", "pads"], ["p"])]
        constants["pads"] = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    if opset < 10:
        nodes += [node("Slice", ["p"], ["s"], axes=[2], starts=[1], ends=[9])]
    else:
        nodes += [node("Slice", ["p", "from", "to", "axes"], ["s"])]
        constants |= {"from": np.array([1]), "to": np.array([9]), "axes": np.array([2])}
    if opset < 13:
        nodes += [node("Split", ["s"], ["one", "two"], axis=1, split=[1, 1])]
    else:
        nodes += [node("Split", ["s", "parts"], ["one", "two"], axis=1)]
        constants["parts"] = np.array([1, 1])
    nodes += [node("Concat", ["two", "one"], ["y"], axis=1)]
    return model(nodes, constants, ("N", 2, 8, 8), ("N", 2, 8, 18), opset)


def tf2onnx_net(opset):
    """What tf2onnx makes of a Keras net: channels last around each convolution, a Flatten that computes its shape."""
    slicing = (
        node("Slice", ["sizes"], ["batch"], axes=[0], starts=[0], ends=[1])
        if opset < 10
        else node("Slice", ["sizes", "zero", "one", "zero"], ["batch"])
    )
    nodes = [
        node("Transpose", ["x"], ["t"], "model/conv2d/Conv2D__6", perm=[0, 3, 1, 2]),
        node(
            "Conv",
            ["t", "w"],
            ["c"],
            "model/conv2d/Conv2D",
            auto_pad="SAME_UPPER",
            strides=[2, 2],
            kernel_shape=[3, 3],
        ),
        node("Reshape", ["conv_bias", "as_image"], ["b"], "model/conv2d/BiasAdd__7"),
        node("Add", ["c", "b"], ["a"], "model/conv2d/BiasAdd"),
        node("Relu", ["a"], ["r"], "model/conv2d/Relu"),
        node("Transpose", ["r"], ["last"], "model/conv2d/Relu__9", perm=[0, 2, 3, 1]),
        node("Shape", ["last"], ["sizes"], "model/flatten/Shape"),
        slicing,
        node("Concat", ["batch", "flat"], ["shape"], "model/flatten/Reshape/shape", axis=0),
        node("Reshape", ["last", "shape"], ["f"], "model/flatten/Reshape"),
        node("MatMul", ["f", "dense"], ["d"], "model/dense/MatMul"),
        node("Add", ["d", "bias"], ["l"], "model/dense/BiasAdd"),
        node("Softmax", ["l"], ["y"], "model/dense/Softmax", axis=1),
    ]
    constants = {
        "w": weights(4, 3, 3, 3),
        "conv_bias": weights(4),
        "dense": weights(64, 10),
        "bias": weights(10),
    }
    constants |= {"as_image": np.array([1, 4, 1, 1]), "flat": np.array([64])}
    constants |= {"zero": np.array([0]), "one": np.array([1])} if opset >= 10 else {}
    return model(nodes, constants, ("unk__1", 8, 8, 3), ("unk__2", 10), opset)


def paddle_net():
    """What paddle2onnx makes of PP-OCR's direction classifier: opset 11, weights in Constants, hard swish written out."""
    one = {"kernel_shape": [1, 1]}
    nodes = [
        node("Conv", ["x", "conv1_weights"], ["c"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["n"], momentum=0.9),
        node("Add", ["n", "three"], ["n3"]),
        node("Clip", ["n3", "low", "high"], ["n6"]),
        node("Mul", ["n", "n6"], ["nn"]),
        node("Div", ["nn", "six"], ["swish"]),
        node("Conv", ["swish", "depthwise"], ["d"], kernel_shape=[3, 3], pads=[1] * 4, group=8),
        node("GlobalAveragePool", ["d"], ["g"]),
        node("Conv", ["g", "squeeze"], ["s"], **one),
        node("Reshape", ["squeeze_bias", "as_image"], ["sb"]),
        node("Add", ["s", "sb"], ["s1"]),
        node("Relu", ["s1"], ["s2"]),
        node("Conv", ["s2", "excite"], ["e"], **one),
        node("Reshape", ["excite_bias", "as_image"], ["eb"]),
        node("Add", ["e", "eb"], ["e1"]),
        node("HardSigmoid", ["e1"], ["e2"], alpha=0.2, beta=0.5),
        node("Mul", ["d", "e2"], ["se"]),
        node("GlobalAveragePool", ["se"], ["gg"]),
        node("Flatten", ["gg"], ["ff"], axis=1),
        node("MatMul", ["ff", "fc"], ["m"]),
        node("Add", ["m", "fc_bias"], ["l"]),
        node("Softmax", ["l"], ["p"], axis=1),
        node("Identity", ["p"], ["y"]),
    ]
    return model([*_paddle_weights(), *nodes], {}, ("N", 3, "h", "w"), ("N", 2), 11)


def _paddle_weights():
    arrays = {
        "conv1_weights": weights(8, 3, 3, 3),
        "scale": weights(8),
        "shift": weights(8),
        "mean": weights(8),
    }
    arrays |= {
        "var": weights(8) ** 2 + 0.1,
        "three": np.full(1, 3, np.float32),
        "six": np.full(1, 6, np.float32),
    }
    arrays |= {"low": np.float32(0), "high": np.float32(6), "depthwise": weights(8, 1, 3, 3)}
    arrays |= {"squeeze": weights(2, 8, 1, 1), "squeeze_bias": weights(2), "excite": weights(8, 2, 1, 1)}
    arrays |= {"excite_bias": weights(8), "as_image": np.array([1, -1, 1, 1])}
    arrays |= {"fc": weights(8, 2), "fc_bias": weights(2)}
    return [node("Constant", [], [k], value=numpy_helper.from_array(v, k)) for k, v in arrays.items()]
