"""The plan file: a quantised graph laid out for a board, written by the server and read by both interpreters.

    magic "TFPL" | version u16: 2 if it keeps a state, else 1 | operators u16 | arena u32 | weights offset u32 | weights u32 | inputs u16 | outputs u16
    then each input and output:  arena offset u32 | bytes u32 | zero point + 128 u32 | scale f32
    then each operator:          kind u16 | words u16 | the words, u32 each (their names: `words.py`)
    then, aligned to 16 bytes, the weights

Everything is little-endian. Activations lie in the arena as *unsigned* bytes, the int8 value plus 128, and so do
weights and zero points: kernels then never sign-extend, and every word is a non-negative number below 2^31 (a 32-bit
load on a 64-bit port does not sign-extend either). All arithmetic is TensorFlow Lite's.

A plan that keeps a state has operators that read what the run before left in the arena: the arena is zeros after loading
and after a reset, and a run leaves it as it is. Nothing else says where a state lies.

Kernels are machine code without bounds: what `read` lets through cannot make them leave the arena or the weights.
"""

import struct
from array import array

from device_agent.runtimes.plan.kinds import PlanError

MAGIC = b"TFPL"
VERSION = 2
HEADER = "<4sHHIIIHH"
HEADER_BYTES = 24
EDGE = "<IIIf"
OPERATOR = "<HH"

# Kernels read whole groups of eight weights; the arena ends with room for the last one's overhang.
GROUP = 8
SLACK = 8

# A weighted operator has one row a channel: bias + 2^30 (never negative), multiplier, left shift * 64 + right shift,
# then its weights in groups of eight, or of four for a depthwise convolution.
ROW_HEAD = 12

# A softmax table: 256 exponentials and the reciprocal's two constants, u32 each.
SOFTMAX_TABLE = 258
# Sums of more exponentials would leave 31 bits.
SOFTMAX_WIDTH = 4095

# In the order of the kinds.
WORD_COUNTS = b"\x1a\x16\x0f\x11\x05"  # 26, 22, 15, 17, 5


def read(file) -> tuple:  # type: ignore[no-untyped-def, type-arg]
    """(arena bytes, weights offset, weights bytes, inputs, outputs, operators) of an open plan; raises PlanError.

    Inputs and outputs are (arena offset, bytes, zero point + 128, scale), operators are (kind, array of words).
    """
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(HEADER_BYTES)
    if len(head) < HEADER_BYTES or head[:4] != MAGIC:
        raise PlanError("this is no plan: it does not start with TFPL")
    _, version, count, arena, start, weights, inputs, outputs = struct.unpack(HEADER, head)
    if not 0 < version <= VERSION:
        raise PlanError("the plan has version %d, this interpreter knows %d" % (version, VERSION))
    if start + weights != size:
        raise PlanError("the plan has %d bytes, its header says %d" % (size, start + weights))
    if not inputs or not outputs or arena >> 31:
        raise PlanError("the plan has no input or output, or a huge arena")
    edges = [_edge(file, arena) for _ in range(inputs + outputs)]
    operators = [_operator(file, arena, weights, i) for i in range(count)]
    return arena, start, weights, edges[:inputs], edges[inputs:], operators


def _edge(file, arena: int) -> tuple:  # type: ignore[no-untyped-def, type-arg]
    edge = struct.unpack(EDGE, _take(file, 16))
    # A scale is compared both ways round, because NaN is neither.
    if not edge[1] or edge[0] + edge[1] + SLACK > arena or edge[2] > 255 or not 0 < edge[3] < 1e38:
        raise PlanError("an input or output has no place or no scale")
    return edge


def _operator(file, arena: int, weights: int, index: int) -> tuple:  # type: ignore[no-untyped-def, type-arg]
    kind, count = struct.unpack(OPERATOR, _take(file, 4))
    if kind >= len(WORD_COUNTS) or count != WORD_COUNTS[kind]:
        raise PlanError("operator %d is of an unknown kind" % index)
    words = array("I", _take(file, 4 * count))
    places, constants = CHECKS[kind](words)
    start, size = constants
    good = max(words) < 1 << 31 and start % 4 == 0 and start + size <= weights
    for offset, bytes_ in places:
        good = good and bytes_ > 0 and offset + bytes_ + SLACK <= arena
    if not good:
        raise PlanError("operator %d leaves the arena or the weights" % index)
    return kind, words


def _take(file, size: int) -> bytes:  # type: ignore[no-untyped-def]
    data: bytes = file.read(size)
    if len(data) != size:
        raise PlanError("the plan is cut short")
    return data


# Each returns the (offset, bytes) that an operator reads and writes in the arena, and the one in the weights.
# A place of -1 bytes refuses the operator.
REFUSED = (0, -1)


def _convolve(w) -> tuple:  # type: ignore[no-untyped-def, type-arg]
    window, row, times = w[8] * w[9] * w[4], w[21] - ROW_HEAD, w[25]
    if w[24]:
        # The last window starts inside; only windows of one position are runs of bytes.
        good = w[8] * w[9] == 1 and (w[5] - 1) * w[10] < w[2] and (w[6] - 1) * w[11] < w[3]
        scratch = (w[0], w[2] * w[3] * w[4])
    else:
        good, scratch = True, (w[23], window)
    if times:
        good = good and w[7] == w[4] * times and row >= w[8] * w[9]
    else:
        good = good and row == w[22] * GROUP and window <= row < window + GROUP
    good = good and w[21] % 4 == 0 and w[8] > 0 and w[9] > 0
    source, target = (w[0], w[2] * w[3] * w[4]), (w[1], w[5] * w[6] * w[7])
    return (source, target, scratch if good else REFUSED), (w[20], w[7] * w[21])


def _rescale(w) -> tuple:  # type: ignore[no-untyped-def, type-arg]
    size = w[3] * w[4]
    good = w[11] < 3 and w[5] > 0
    for i in (13, 16, 19):
        good = good and w[i + 1] < 31 and w[i + 2] < 32
    return ((w[0], size * w[5]), (w[1], size), (w[2], size) if good else REFUSED), (0, 0)


def _pool(w) -> tuple:  # type: ignore[no-untyped-def, type-arg]
    good = w[4] == w[7]
    for size, out, kernel, stride, pad in ((2, 5, 8, 10, 12), (3, 6, 9, 11, 13)):
        # Every window holds at least one value that is no padding.
        good = good and w[pad] < w[kernel] < 65536 and (w[out] - 1) * w[stride] - w[pad] < w[size]
    return ((w[0], w[2] * w[3] * w[4]), (w[1], w[5] * w[6] * w[7]) if good else REFUSED), (0, 0)


def _move(w) -> tuple:  # type: ignore[no-untyped-def, type-arg]
    source, target, size = 1, w[5], 1
    for i in range(4):
        size *= w[2 + i]
        source += (w[2 + i] - 1) * w[6 + i]
        if i < 3:
            target += (w[2 + i] - 1) * w[10 + i]
    return ((w[0], source), (w[1], target) if size > 0 else REFUSED), (w[16], 256 if w[15] else 0)


def _softmax(w) -> tuple:  # type: ignore[no-untyped-def, type-arg]
    size = w[2] * w[3] if w[3] <= SOFTMAX_WIDTH else 0
    return ((w[0], size), (w[1], size)), (w[4], 4 * SOFTMAX_TABLE)


CHECKS = (_convolve, _rescale, _pool, _move, _softmax)
