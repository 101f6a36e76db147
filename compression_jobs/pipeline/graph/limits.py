"""How large and how odd a model may be, checked before anything is allocated for it."""

from math import prod

from onnx import TensorProto, helper

from compression_jobs.pipeline.errors import Refused

MAX_MODEL_BYTES = 512 << 20
MAX_NODES = 20_000
MAX_RANK = 8
# One gigabyte of float32: far beyond anything that a small device runs.
MAX_TENSOR_ELEMENTS = 1 << 28
OLDEST_OPSET = 7

BELOW_A_BYTE = {
    TensorProto.INT4,
    TensorProto.UINT4,
    TensorProto.FLOAT4E2M1,
    TensorProto.UINT2,
    TensorProto.INT2,
}
NOT_NUMBERS = {TensorProto.UNDEFINED, TensorProto.STRING}


def elements(dims: list[int] | tuple[int, ...], name: str) -> int:
    """The number of elements of a shape, refused when absurd."""
    count = prod(dims) if all(dim >= 0 for dim in dims) else -1
    if count < 0 or count > MAX_TENSOR_ELEMENTS or len(dims) > MAX_RANK:
        shape = list(dims[:MAX_RANK])
        raise Refused(
            f"its shape {shape} is not acceptable: at most {MAX_TENSOR_ELEMENTS} elements", node=name
        )
    return count


def tensor_bytes(tensor: TensorProto) -> int:
    """The bytes that a constant's shape and type ask for."""
    if tensor.data_type in NOT_NUMBERS or tensor.data_type not in helper.get_all_tensor_dtypes():
        raise Refused("its element type is not a number", node=tensor.name)
    count = elements(tuple(tensor.dims), tensor.name)
    if tensor.data_type in BELOW_A_BYTE:
        return (count + 1) // 2 if "4" in TensorProto.DataType.Name(tensor.data_type) else (count + 3) // 4
    return count * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def check_constant(tensor: TensorProto) -> None:
    """Refuse a constant whose shape promises more than its bytes can hold."""
    if tensor.data_type == TensorProto.STRING:
        elements(tuple(tensor.dims), tensor.name)
        return
    # The densest coding is a protobuf varint: one byte for eight bytes of int64.
    if tensor_bytes(tensor) > 8 * tensor.ByteSize():
        raise Refused(
            f"its shape {list(tensor.dims)} does not match its {tensor.ByteSize()} bytes of data",
            node=tensor.name,
        )
