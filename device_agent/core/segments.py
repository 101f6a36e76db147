"""Coding `segments`: the artifact as byte ranges, each raw, a codebook with Huffman codes, or sparse.

Han et al. 2016, "Deep Compression", section 4, with canonical Huffman codes. Written by the compression pipeline.
One segment after the other, little-endian, until the artifact is complete:

    kind u8 (0 raw, 1 dense, 2 sparse), width u8 (bytes of an element: 1, 2, 4, 8), entries u16, gaps u16, count u32
    codebook: entries x width bytes
    lengths of the codes of the entries, then of the gaps: four bits each, low half first, 0 for unused; each padded
    raw: count x width bytes
    dense: one code an element, most significant bit first, padded to a byte
    sparse: a gap code, then an entry code, and so on. A gap of g < 255 is g elements of zero and an element from the
        codebook, 255 is 255 of zero and no element; a gap that reaches the end of the segment has no element. With
        0 entries elements come as they are, width x 8 bits.

The tables of one segment take 4.5 KiB at most.
"""

import struct
from array import array

from device_agent.core.decoding import PIECE_BYTES, CodingError, Plain

RAW, DENSE, SPARSE = 0, 1, 2
HEAD_FORMAT = "<BBHHI"
HEAD_BYTES = 10
WIDTHS = (1, 2, 4, 8)
MAX_ENTRIES = 512
MAX_GAPS = 256
LONG_GAP = 255
MAX_CODE_BITS = 15

# No step of a decoder reads more: a gap, and a raw element of eight bytes.
LOOKAHEAD_BYTES = 16
# At the end codes may still lie in bits that were read ahead.
READ_AHEAD_BYTES = 3
_TABLE_BITS = 8


class Code:
    """A canonical Huffman code: shorter codes first, those of one length in the order of their symbols."""

    def __init__(self, lengths: bytes) -> None:
        self.counts = [0] * (MAX_CODE_BITS + 1)
        for length in lengths:
            self.counts[length] += 1
        self.counts[0] = 0
        self.first = [0] * (MAX_CODE_BITS + 1)
        code = 0
        for length in range(1, MAX_CODE_BITS + 1):
            code = (code + self.counts[length - 1]) << 1
            self.first[length] = code
            if code + self.counts[length] > 1 << length:
                raise CodingError("a Huffman code of a segment has more words than fit")
        in_order = [
            symbol for bits in range(1, 16) for symbol in range(len(lengths)) if lengths[symbol] == bits
        ]
        self.symbols = array("H", in_order)
        self.table = self._short_codes()

    def _short_codes(self) -> "array[int]":
        """By the next eight bits: symbol x 16 + length of its code; 0 where the code is longer, or is none."""
        table = array("H", [0] * (1 << _TABLE_BITS))
        place = 0
        for length in range(1, _TABLE_BITS + 1):
            spare = _TABLE_BITS - length
            for rank in range(self.counts[length]):
                start = (self.first[length] + rank) << spare
                for index in range(start, start + (1 << spare)):
                    table[index] = self.symbols[place] << 4 | length
                place += 1
        return table

    def long_code(self, bits: int) -> int:
        """Symbol x 16 + length of the code that fifteen bits begin with, when it is longer than eight."""
        place = 0
        for length in range(1, MAX_CODE_BITS + 1):
            rank = (bits >> (MAX_CODE_BITS - length)) - self.first[length]
            if length > _TABLE_BITS and 0 <= rank < self.counts[length]:
                return self.symbols[place + rank] << 4 | length
            place += self.counts[length]
        raise CodingError("a segment holds bits that are no code")


class Bits:
    """Bytes that came, read bit by bit; beyond the end lie zeros, and `check` tells."""

    def __init__(self) -> None:
        self.data = b""
        self.at = 0
        self._word = 0
        self._held = 0

    def append(self, data: bytes) -> None:
        """Add bytes that came behind what is still unread."""
        self.data = self.data[self.at :] + bytes(data)
        self.at = 0

    def left(self) -> int:
        """Whole bytes that are unread."""
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        """The next bytes, at most `count`; only between codes."""
        taken = self.data[self.at : self.at + count]
        self.at += len(taken)
        return taken

    def _fill(self, bits: int) -> None:
        while self._held < bits:
            byte = self.data[self.at] if self.at < len(self.data) else 0
            self._word = self._word << 8 | byte
            self._held += 8
            self.at += 1

    def symbol(self, code: Code) -> int:
        """Read one code."""
        self._fill(MAX_CODE_BITS)
        found = code.table[(self._word >> (self._held - _TABLE_BITS)) & 255]
        if not found:
            found = code.long_code(self._word >> (self._held - MAX_CODE_BITS))
        self._held -= found & 15
        self._word &= (1 << self._held) - 1
        return found >> 4

    def elements(self, code: Code, book: bytes, width: int, room: int, reserve: int) -> bytearray:
        """Read at most `room` codes while more than `reserve` bytes are left; the entries of the codebook they name."""
        data, at, word, held, table = self.data, self.at, self._word, self._held, code.table
        size = len(data)
        piece = bytearray()
        while room and size - at > reserve:
            while held < MAX_CODE_BITS:
                word = word << 8 | (data[at] if at < size else 0)
                held += 8
                at += 1
            found = table[(word >> (held - _TABLE_BITS)) & 255]
            if not found:
                found = code.long_code(word >> (held - MAX_CODE_BITS))
            held -= found & 15
            word &= (1 << held) - 1
            place = (found >> 4) * width
            piece.extend(book[place : place + width])
            room -= 1
        self.at, self._word, self._held = at, word, held
        return piece

    def byte(self) -> int:
        """Read eight bits."""
        self._fill(8)
        self._held -= 8
        found = self._word >> self._held
        self._word &= (1 << self._held) - 1
        return found

    def settle(self) -> None:
        """Give whole bytes that were read ahead back; raises CodingError when more was read than came."""
        ahead = self._held & ~7
        self.at -= ahead >> 3
        self._word >>= ahead
        self._held -= ahead
        if self.at > len(self.data):
            raise CodingError("the segments end early")

    def align(self) -> None:
        """Skip the padding at the end of a segment."""
        self._word = self._held = 0


class Segments(Plain):
    """Decodes `segments`; what it holds beside the tables is the chunk that was fed."""

    def __init__(self, total_bytes: int) -> None:
        super().__init__(total_bytes)
        self._bits = Bits()
        self._unclaimed = total_bytes  # of the artifact, in segments that are still to come
        self._left = 0  # elements of this segment
        self._zeros = 0  # of them, zeros to write next
        self._element_due = False
        self._expect_head()

    def feed(self, data: bytes):  # type: ignore[no-untyped-def]
        """Yield the pieces these bytes decode to; iterate to the end before the next call."""
        self._bits.append(data)
        while self._given < self._total and self._bits.left() > LOOKAHEAD_BYTES:
            piece = self._step(LOOKAHEAD_BYTES)
            if piece:
                yield self._checked(piece)
        self._refuse_rest()

    def _rest(self):  # type: ignore[no-untyped-def]
        while self._given < self._total:
            piece = self._step(-READ_AHEAD_BYTES)
            if piece:
                yield self._checked(piece)
        self._refuse_rest()

    def _refuse_rest(self) -> None:
        if self._given == self._total and self._bits.left():
            raise CodingError("bytes follow after the end of the segments")

    # --- the start of a segment ------------------------------------------------------------------

    def _expect_head(self) -> None:
        self._bits.align()
        self._gather(HEAD_BYTES, self._begin)

    def _gather(self, count: int, then) -> None:  # type: ignore[no-untyped-def]
        self._wanted, self._then, self._step = count, then, self._step_gather
        self._gathered = b""

    def _step_gather(self, reserve: int) -> bytes:
        taken = self._bits.take(self._wanted - len(self._gathered))
        self._gathered += taken
        if len(self._gathered) == self._wanted:
            self._then(self._gathered)
        elif not taken:
            raise CodingError("the segments end early")
        return b""

    def _begin(self, head: bytes) -> None:
        kind, width, entries, gaps, count = struct.unpack(HEAD_FORMAT, head)
        sound = kind <= SPARSE and width in WIDTHS and entries <= MAX_ENTRIES and gaps <= MAX_GAPS
        if not sound or (kind == RAW and entries) or (kind == DENSE and not entries):
            raise CodingError("a segment begins with what is no head of one")
        if not 0 < count * width <= self._unclaimed:
            raise CodingError("a segment is empty or more than the %d bytes of the artifact" % self._total)
        if (kind == SPARSE) != (gaps > 0):
            raise CodingError("a segment begins with what is no head of one")
        self._unclaimed -= count * width
        self._width, self._left, self._entries, self._gap_count = width, count, entries, gaps
        self._body = (self._step_raw, self._step_dense, self._step_sparse)[kind]
        self._gather(entries * width + (entries + 1) // 2 + (gaps + 1) // 2, self._read_tables)
        if kind == RAW:
            self._step = self._body

    def _read_tables(self, tables: bytes) -> None:
        entries = self._entries
        book = entries * self._width
        lengths = _halves(tables[book:])
        after = entries + entries % 2
        self._book = tables[:book]
        self._code = Code(lengths[:entries])
        self._gap_code = Code(lengths[after : after + self._gap_count])
        self._step = self._body

    # --- its elements ----------------------------------------------------------------------------

    def _step_raw(self, reserve: int) -> bytes:
        piece = self._bits.take(min(self._left * self._width, PIECE_BYTES))
        if not piece:
            raise CodingError("the segments end early")
        # An element may be torn at the end of a chunk, so bytes are counted from here on.
        self._left, self._width = self._left * self._width - len(piece), 1
        return self._ended(bytearray(piece))

    def _step_dense(self, reserve: int) -> bytes:
        bits, width = self._bits, self._width
        room = min(PIECE_BYTES // width, self._left)
        piece = bits.elements(self._code, self._book, width, room, reserve)
        bits.settle()
        self._left -= len(piece) // width
        return self._ended(piece)

    def _step_sparse(self, reserve: int) -> bytes:
        bits, width = self._bits, self._width
        piece = bytearray()
        room = PIECE_BYTES // width
        while room and self._left and bits.left() > reserve:
            if not self._zeros and not self._element_due:
                self._read_gap()
            run = min(self._zeros, room)
            piece.extend(bytes(run * width))
            self._zeros -= run
            if self._element_due and run < room and not self._zeros:
                piece.extend(self._element())
                self._element_due = False
                run += 1
            room -= run
            self._left -= run
        bits.settle()
        return self._ended(piece)

    def _read_gap(self) -> None:
        gap = self._bits.symbol(self._gap_code)
        if gap > self._left:
            raise CodingError("zeros reach beyond the end of their segment")
        self._zeros = gap
        self._element_due = gap < LONG_GAP and gap < self._left

    def _element(self) -> bytes:
        if not self._entries:
            return bytes([self._bits.byte() for _ in range(self._width)])
        place = self._bits.symbol(self._code) * self._width
        return self._book[place : place + self._width]

    def _ended(self, piece: bytearray) -> bytes:
        if not self._left:
            self._expect_head()
        return bytes(piece)


def _halves(packed: bytes) -> bytes:
    """Two numbers below sixteen out of each byte."""
    found = bytearray()
    for byte in packed:
        found.append(byte & 15)
        found.append(byte >> 4)
    return bytes(found)
