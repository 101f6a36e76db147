"""The kernels as plain bytecode, for ports without the viper emitter: the same source, with pointers made of views."""

import uctypes

_EVERYTHING = 1 << 28
_VIPER = "@micropython.viper\n"


def ptr8(address: int):  # type: ignore[no-untyped-def]
    """Memory from an address on, as bytes."""
    return uctypes.bytearray_at(address, _EVERYTHING)


def ptr32(address: int):  # type: ignore[no-untyped-def]
    """Memory from an address on, as 32-bit words."""
    return uctypes.struct(address, (uctypes.ARRAY | 0, _EVERYTHING >> 2 | uctypes.UINT32), uctypes.NATIVE)


class _Kernels:
    def __init__(self, names: dict) -> None:  # type: ignore[type-arg]
        for name in ("convolve", "rescale", "pool", "move", "softmax"):
            setattr(self, name, names[name])


def kernels() -> _Kernels:
    """The functions of `kernels.py`, compiled to bytecode; in them `int` of a buffer or pointer is its address."""
    names = {"ptr8": ptr8, "ptr32": ptr32, "int": uctypes.addressof}
    with open(__file__.rsplit("/", 1)[0] + "/kernels.py") as file:
        exec(file.read().replace(_VIPER, ""), names)
    return _Kernels(names)
