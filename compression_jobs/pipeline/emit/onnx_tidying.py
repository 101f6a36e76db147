"""What is done to the nodes of an ONNX file before it is written: results keep their names, all else gets short ones."""

import onnx


def skip_identities(nodes: list[onnx.NodeProto], outputs: set[str]) -> None:
    """Let the last DequantizeLinear write each output itself."""
    makers = {node.output[0]: node for node in nodes}
    for node in [node for node in nodes if node.op_type == "Identity"]:
        readers = sum(list(other.input).count(node.input[0]) for other in nodes)
        if readers == 1 and node.input[0] not in outputs:
            makers[node.input[0]].output[0] = node.output[0]
            nodes.remove(node)


def shorten(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], kept: set[str]) -> None:
    """Number all inner tensors: on small models long names would weigh more than the weights."""
    short: dict[str, str] = {name: name for name in kept}

    def number(name: str) -> str:
        if name not in short:
            fresh = f"{len(short):x}"
            short[name] = fresh if fresh not in kept else f"{fresh}_"
        return short[name]

    for tensor in constants:
        tensor.name = number(tensor.name)
    for node in nodes:
        for names in (node.input, node.output):
            names[:] = [number(name) if name else "" for name in names]
