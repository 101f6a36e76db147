"""Tiny float `.tflite` files, written through LiteRT's own schema."""

import random

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

OP, OPTIONS = schema.BuiltinOperator, schema.BuiltinOptions


def write(shapes, operators, inputs, outputs, constants=None):
    """A model of `operators` = (code, inputs, outputs, options); tensors are float32, numbered by `shapes`."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.description, model.buffers = 3, "tiny", [schema.BufferT()]
    graph.inputs, graph.outputs = inputs, outputs
    graph.tensors = [
        _tensor(model, index, shape, (constants or {}).get(index)) for index, shape in enumerate(shapes)
    ]
    codes = sorted({code for code, *_ in operators})
    model.operatorCodes = [_code(code) for code in codes]
    graph.operators = [_operator(codes, *operator) for operator in operators]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(model, index, shape, data):
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = f"t{index}", list(shape), schema.TensorType.FLOAT32
    tensor.buffer = 0
    if data is not None:
        buffer = schema.BufferT()
        buffer.data = list(data.tobytes())
        tensor.buffer = len(model.buffers)
        model.buffers.append(buffer)
    return tensor


def _code(code):
    made = schema.OperatorCodeT()
    made.builtinCode, made.deprecatedBuiltinCode, made.version = code, min(code, 127), 1
    made.customCode = "magic" if code == OP.CUSTOM else None
    return made


def _operator(codes, code, inputs, outputs, options=None):
    made = schema.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = codes.index(code), inputs, outputs
    if options is not None:
        made.builtinOptions = options
        made.builtinOptionsType = getattr(OPTIONS, type(options).__name__.removesuffix("T"))
    return made


def convolution():
    options = schema.Conv2DOptionsT()
    options.padding, options.strideW, options.strideH = schema.Padding.SAME, 1, 1
    return options


def random_network(seed):
    """Shapes, operators, inputs and outputs of eight operators with branches and long-lived tensors."""
    chance = random.Random(seed)
    shapes, operators = [(1, chance.choice([8, 9, 16]), 8, chance.choice([3, 4, 8]))], []
    for _ in range(8):
        source = chance.choice(range(max(0, len(shapes) - 3), len(shapes)))
        shape, made = shapes[source], len(shapes)
        twins = [index for index in range(made) if shapes[index] == shape]
        kind = chance.choice(["relu", "add", "concat", "pool"])
        if kind == "relu" or (kind == "pool" and min(shape[1:3]) < 2):
            shapes.append(shape)
            operators.append((OP.RELU, [source], [made], None))
        elif kind == "add":
            shapes.append(shape)
            operators.append((OP.ADD, [source, chance.choice(twins)], [made], schema.AddOptionsT()))
        elif kind == "concat":
            options = schema.ConcatenationOptionsT()
            options.axis = 3
            shapes.append((*shape[:3], 2 * shape[3]))
            operators.append((OP.CONCATENATION, [source, chance.choice(twins)], [made], options))
        else:
            options = schema.Pool2DOptionsT()
            options.padding, options.strideW, options.strideH = schema.Padding.VALID, 2, 2
            options.filterWidth = options.filterHeight = 2
            shapes.append((1, shape[1] // 2, shape[2] // 2, shape[3]))
            operators.append((OP.MAX_POOL_2D, [source], [made], options))
    read = {index for _, inputs, _, _ in operators for index in inputs}
    return shapes, operators, [0], [index for index in range(1, len(shapes)) if index not in read]
