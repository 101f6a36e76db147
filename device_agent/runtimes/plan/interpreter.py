"""Runs plans on MicroPython: header read once, one arena, weights in RAM or streamed a tile at a time from flash."""

import gc
from array import array

from device_agent.runtimes.plan import kinds

# Left free when choosing between weights in RAM and streaming: the agent needs heap of its own.
RESERVE_BYTES = 48 * 1024
TILE_BYTES = 2048
# Named once: a tuple written inside `run` would be made anew each time.
_MANY = (list, tuple)
# Which word of a kind of operator says where its weights are.
_WEIGHTS = (20, 0, 0, 16, 4)


class Plan:
    """One loaded plan; `run` works in buffers of the caller and allocates nothing."""

    def __init__(self, kernels=None) -> None:  # type: ignore[no-untyped-def]
        self._kernels = kernels or _kernels()
        self._file = None
        self.unload()

    def load(self, path: str, stream=None) -> None:  # type: ignore[no-untyped-def]
        """Read the header, make the arena, and take the weights into RAM unless they would not fit.

        `stream` decides about the weights instead of the free heap. Raises PlanError, OSError or MemoryError.
        """
        self.unload()
        self._file = open(path, "rb")
        try:
            self._load(self._file, stream)
        except:
            self.unload()
            raise

    def _load(self, file, stream) -> None:  # type: ignore[no-untyped-def]
        arena, self._start, size, self.inputs, self.outputs, operators = _read(file)
        gc.collect()
        self.arena_bytes = arena
        self._arena = bytearray(arena)
        weights = None if stream else self._read_weights(size, stream is None)
        self.streams = weights is None
        if weights is None:
            rows = [words[21] for kind, words in operators if kind == kinds.CONVOLVE]
            self._tile = bytearray(max(rows + [TILE_BYTES]))
        else:
            file.close()
            self._file = None
        self._operators = [(kind, words, self._part(weights, kind, words)) for kind, words in operators]
        self._edges = [_crossing(0, edge[0], edge[1]) for edge in self.inputs]
        self._edges += [_crossing(edge[0], 0, edge[1]) for edge in self.outputs]

    def _read_weights(self, size: int, reserve: bool):  # type: ignore[no-untyped-def]
        """The weights, or None when they would not leave enough heap."""
        if reserve and gc.mem_free() < size + RESERVE_BYTES:
            return None
        try:
            weights = bytearray(size)
        except MemoryError:  # free, but in pieces
            return None
        self._file.seek(self._start)
        self._file.readinto(weights)
        return weights

    def _part(self, weights, kind: int, words):  # type: ignore[no-untyped-def]
        """The constants of an operator: None when they are streamed, anything when it has none."""
        if kind == kinds.RESCALE or kind == kinds.POOL or (kind == kinds.MOVE and not words[15]):
            return self._arena
        if weights is None:
            return None
        return memoryview(weights)[words[_WEIGHTS[kind]] :]

    def unload(self) -> None:
        """Free arena and weights; harmless when nothing is loaded."""
        if self._file is not None:
            self._file.close()
        self._file = self._arena = self._tile = None
        self._operators = self._edges = self.inputs = self.outputs = ()
        self.streams = False
        self.arena_bytes = 0
        gc.collect()

    def reset(self) -> None:
        """Forget what earlier runs have left."""
        for i in range(self.arena_bytes):
            self._arena[i] = 0

    def run(self, inputs, outputs) -> None:  # type: ignore[no-untyped-def]
        """Raw int8 tensors in, raw int8 tensors out: one buffer each, or a list of them where there are several."""
        kernels, arena = self._kernels, self._arena
        many = len(self.inputs)
        _check(inputs, self.inputs)
        _check(outputs, self.outputs)
        for i in range(many):
            data = inputs[i] if isinstance(inputs, _MANY) else inputs
            kernels.move(data, arena, arena, self._edges[i])
        for kind, words, constants in self._operators:
            if kind == kinds.CONVOLVE:
                self._convolve(words, constants)
            elif kind == kinds.RESCALE:
                kernels.rescale(arena, arena, 0, words)
            elif kind == kinds.POOL:
                kernels.pool(arena, arena, 0, words)
            elif kind == kinds.MOVE:
                kernels.move(arena, arena, self._fetch(words[16]) if constants is None else constants, words)
            else:
                kernels.softmax(arena, self._fetch(words[4]) if constants is None else constants, words)
        for i in range(len(self.outputs)):
            data = outputs[i] if isinstance(outputs, _MANY) else outputs
            kernels.move(arena, data, arena, self._edges[many + i])

    def _convolve(self, words, rows) -> None:  # type: ignore[no-untyped-def]
        if rows is not None:
            self._kernels.convolve(self._arena, rows, 0, words, 0, words[7])
            return
        first, step = 0, len(self._tile) // words[21]
        while first < words[7]:
            last = min(first + step, words[7])
            tile = self._fetch(words[20] + first * words[21])
            self._kernels.convolve(self._arena, tile, 0, words, first, last)
            first = last

    def _fetch(self, offset: int):  # type: ignore[no-untyped-def]
        """One tile of weights from the file."""
        self._file.seek(self._start + offset)
        self._file.readinto(self._tile)
        return self._tile


def _read(file) -> tuple:  # type: ignore[no-untyped-def, type-arg]
    """What the file says; a board has the code for that in memory for this call only."""
    from device_agent.runtimes.plan.layout import read

    return read(file)


def _kernels():  # type: ignore[no-untyped-def]
    """The kernels as machine code, or as bytecode where this port cannot run them."""
    try:
        from device_agent.runtimes.plan import kernels
    except (SyntaxError, ValueError):  # no viper emitter; compiled for another processor
        from device_agent.runtimes.plan import portable

        return portable.kernels()
    return kernels


def _crossing(source: int, target: int, size: int) -> array:  # type: ignore[type-arg]
    """The words of a move between a buffer of the caller and the arena."""
    return array("I", (source, target, 1, 1, 1, size, 0, 0, 0, 1, 0, 0, 0, 255, 128, 0, 0))


def _check(buffers, edges) -> None:  # type: ignore[no-untyped-def]
    many = isinstance(buffers, _MANY)
    if (len(buffers) if many else 1) != len(edges):
        raise kinds.PlanError("the plan takes %d buffers" % len(edges))
    for i in range(len(edges)):
        if len(buffers[i] if many else buffers) != edges[i][1]:
            raise kinds.PlanError("buffer %d is not of %d bytes" % (i, edges[i][1]))
