"""An ARM processor that runs the kernels of a real .mpy file, handed to the interpreter in place of the kernels module.

MicroPython's native functions take (function, number of arguments, keyword arguments, pointer to arguments) and find
the table of runtime functions at function -> context -> objects[0]. Of that table the kernels call only conversions of
arguments, here the identity, and the floor division of integers.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any

NAMES = ("convolve", "rescale", "pool", "move", "softmax")
VIPER = 4
CODE, STUBS, STACK, OBJECTS, DATA = 0x10000, 0x40000, 0x80000, 0x90000, 0x20000000
DATA_BYTES, ENTRIES = 4 << 20, 128
FROM_OBJECT, TO_OBJECT, CHECK_ARGUMENTS = 3, 4, 41


def functions(mpy: bytes) -> dict[str, bytes]:
    """Machine code of each kernel of a .mpy file of version 6."""
    reader = _Reader(mpy)
    assert reader.take(2) == b"M\x06"
    flags, _ = reader.take(2)
    if flags & 0x40:
        reader.number()
    strings, objects = reader.number(), reader.number()
    for _ in range(strings):
        size = reader.number()
        reader.take(0 if size & 1 else (size >> 1) + 1)
    for _ in range(objects):
        assert reader.take(1) in b"\x00\x01\x02\x03\x04"  # nothing but singletons and the table of functions
    code = [data for kind, data in reader.raw_code() if kind == VIPER]
    return dict(zip(NAMES, code, strict=True))


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self) -> int:
        value = 0
        while True:
            byte = self.take(1)[0]
            value = value << 7 | byte & 127
            if byte < 128:
                return value

    def raw_code(self) -> Iterator[tuple[int, bytes]]:
        head = self.number()
        kind, data = (head & 3) + 2, self.take(head >> 3)
        if kind != 2:
            self.number()  # flags, or where the prelude starts
        yield kind, data
        if head & 4:
            for _ in range(self.number()):
                yield from self.raw_code()


class Board:
    """The kernels as methods; buffers are copied into the board's memory and back."""

    def __init__(self, mpy: bytes) -> None:
        from unicorn import UC_ARCH_ARM, UC_HOOK_CODE, UC_MODE_MCLASS, UC_MODE_THUMB, Uc
        from unicorn import arm_const as registers

        self._registers: Any = registers
        self._counter: Any = None
        self._uc: Any = Uc(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS)
        for start, size in (
            (CODE, 0x10000),
            (STUBS, 0x1000),
            (STACK, 0x10000),
            (OBJECTS, 0x1000),
            (DATA, DATA_BYTES),
        ):
            self._uc.mem_map(start, size)
        self._starts = {}
        at = CODE
        for name, code in functions(mpy).items():
            self._uc.mem_write(at, code)
            self._starts[name] = at | 1
            at += len(code) + -len(code) % 16
        self._uc.mem_write(STUBS, b"\x70\x47\x00\xbf" * ENTRIES)  # bx lr; nop
        table = struct.pack(f"<{ENTRIES}I", *(STUBS + 4 * i + 1 for i in range(ENTRIES)))
        self._uc.mem_write(OBJECTS + 0x100, table)
        # function, its context at +4; the context's objects at +12; the first object is the table.
        self._uc.mem_write(
            OBJECTS, struct.pack("<8I", 0, OBJECTS + 8, 0, 0, 0, OBJECTS + 24, OBJECTS + 0x100, 0)
        )
        self._uc.hook_add(UC_HOOK_CODE, self._runtime, begin=STUBS, end=STUBS + 4 * ENTRIES - 1)

    def _runtime(self, uc: Any, address: int, size: int, data: object) -> None:
        entry = (address - STUBS) // 4
        if address % 4 or entry in (FROM_OBJECT, TO_OBJECT, CHECK_ARGUMENTS):
            return
        a, b = (
            _signed(uc.reg_read(getattr(self._registers, name)))
            for name in ("UC_ARM_REG_R0", "UC_ARM_REG_R1")
        )
        uc.reg_write(self._registers.UC_ARM_REG_R0, a // b & 0xFFFFFFFF)

    def counting(self) -> "Counter[tuple[int, int]]":
        """How often each block of the kernels' code runs from now on, by (address, bytes)."""
        from unicorn import UC_HOOK_BLOCK

        blocks: Counter[tuple[int, int]] = Counter()

        def ran(uc: Any, address: int, size: int, data: object) -> None:
            blocks[address, size] += 1

        if self._counter is not None:
            self._uc.hook_del(self._counter)
        self._counter = self._uc.hook_add(UC_HOOK_BLOCK, ran, begin=CODE, end=STUBS - 1)
        return blocks

    def code(self, address: int, size: int) -> bytes:
        """Machine code."""
        return bytes(self._uc.mem_read(address, size))

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self._call(self._starts[name], arguments)

    def _call(self, start: int, arguments: tuple[Any, ...]) -> None:
        places: dict[int, tuple[int, Any]] = {}
        at, values = DATA, []
        for argument in arguments:
            if isinstance(argument, int):
                values.append(argument)
                continue
            if id(argument) not in places:
                raw = bytes(memoryview(argument).cast("B"))
                self._uc.mem_write(at, raw)
                places[id(argument)] = (at, argument)
                at += len(raw) + 64 - len(raw) % 16
            values.append(places[id(argument)][0])
        r = self._registers
        self._uc.mem_write(OBJECTS + 0x800, struct.pack(f"<{len(values)}I", *values))
        for register, value in (
            (r.UC_ARM_REG_R0, OBJECTS),
            (r.UC_ARM_REG_R1, len(values)),
            (r.UC_ARM_REG_R2, 0),
            (r.UC_ARM_REG_R3, OBJECTS + 0x800),
            (r.UC_ARM_REG_SP, STACK + 0xF000),
            (r.UC_ARM_REG_LR, STUBS + 0xF01),
        ):
            self._uc.reg_write(register, value)
        self._uc.emu_start(start, STUBS + 0xF00)
        for place, argument in places.values():
            if isinstance(argument, bytearray):
                argument[:] = self._uc.mem_read(place, len(argument))


def _signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value
