"""The kernels as plain bytecode, for ports without the viper emitter: the same source, with pointers made of views."""

_EVERYTHING = 1 << 28
_VIPER = "@micropython.viper\n"
_HEAD = """from uctypes import addressof as int
from device_agent.runtimes.plan.portable import ptr8, ptr32
"""


def ptr8(address: int):  # type: ignore[no-untyped-def]
    """Memory from an address on, as bytes."""
    import uctypes

    return uctypes.bytearray_at(address, _EVERYTHING)


def ptr32(address: int):  # type: ignore[no-untyped-def]
    """Memory from an address on, as 32-bit words."""
    import uctypes

    return uctypes.struct(address, (uctypes.ARRAY | 0, _EVERYTHING >> 2 | uctypes.UINT32), uctypes.NATIVE)


class _Kernels:
    def __init__(self, names: dict) -> None:  # type: ignore[type-arg]
        for name in ("convolve", "rescale", "pool", "move", "softmax"):
            setattr(self, name, names[name])


def plain(source: str) -> str:
    """The source of the kernels for bytecode, as a module of its own: in it `int` of a buffer or pointer is its address."""
    return _HEAD + source.replace(_VIPER, "")


def kernels():  # type: ignore[no-untyped-def]
    """The functions of `kernels.py` as bytecode: those compiled beforehand, or compiled here."""
    try:
        from device_agent.runtimes.plan import bytecode  # type: ignore[attr-defined]  # made by device_agent.compiled

        return bytecode
    except ImportError:
        pass
    names: dict = {}  # type: ignore[type-arg]
    with open(__file__.rsplit("/", 1)[0] + "/kernels.py") as file:
        exec(plain(file.read()), names)
    return _Kernels(names)
