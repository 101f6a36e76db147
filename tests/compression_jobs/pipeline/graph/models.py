"""Tiny models for the tests of the graph, built by hand or exported by torch."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def weights(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def build(
    nodes, constants=None, inputs=(("x", (1, 2, 6, 6)),), outputs=(("y", None),), opset=17, ir=8, **more
):
    """A model of `nodes` = (op, inputs, outputs, options) tuples."""
    made = [
        helper.make_node(op, ins, outs, name=options.pop("name", ""), **options)
        for op, ins, outs, options in ((op, ins, outs, dict(options)) for op, ins, outs, options in nodes)
    ]
    graph = helper.make_graph(
        made,
        "tiny",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, more.get("out_type", FLOAT), shape) for name, shape in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in more.get("domains", ()))]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir)


def save(tmp_path, model, name="m.onnx"):
    path = tmp_path / name
    path.write_bytes(model.SerializeToString())
    return path


def ops(graph):
    return [node.op_type for node in graph.nodes]


def save_external(tmp_path, model, **entries):
    """The model with its weight `w` in `m.onnx.data`, the entry's fields replaced by `entries`."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    tensor = next(t for t in model.graph.initializer if t.name == "w")
    content = tensor.raw_data
    (tmp_path / "m.onnx.data").write_bytes(content)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    fields = {"location": "m.onnx.data", "offset": "0", "length": str(len(content))} | entries
    for key, value in fields.items():
        tensor.external_data.add(key=key, value=value)
    return save(tmp_path, model)


def conv_net(**more):
    return build(
        [
            ("Conv", ["x", "w", "b"], ["c"], {"pads": [1, 1, 1, 1], "name": "conv"}),
            ("Relu", ["c"], ["r"], {"name": "relu"}),
            ("GlobalAveragePool", ["r"], ["g"], {"name": "pool"}),
            ("Flatten", ["g"], ["y"], {"name": "flat"}),
        ],
        {"w": weights(4, 2, 3, 3), "b": weights(4)},
        **more,
    )
