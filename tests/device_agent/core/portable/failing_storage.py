"""Storage that loses power, or is full."""

import io

from device_agent.core import ports


class PowerCut(BaseException):
    """The power is gone; nothing may catch this but the test."""


LOST, HALF, KEPT = 0, 1, 2  # what becomes of writes that were not synced, and of the one under way


class BenchStorage(ports.Storage):
    """Files in memory; dies at the `cut_at`-th write, flush, rename or removal, or is full from there on."""

    def __init__(self):
        self.files = {}
        self.durable = {}
        self.operations = 0
        self.cut_at = 0
        self.mode = LOST
        self.full = False
        self.starved = 0  # how many openings and writes from now on find no heap
        self.full_at = 0  # the write from which on there is no room, until `full` is taken back

    def _operation(self):
        self.operations += 1
        return self.operations == self.cut_at

    def power_cut(self):
        if self.mode == LOST:
            self.files = dict(self.durable)
        self.durable = dict(self.files)
        self.cut_at = 0
        raise PowerCut()

    def _starve(self):
        if self.starved:
            self.starved -= 1
            raise MemoryError()

    def _write(self, name, before, data, after):
        self._starve()
        if self.operations + 1 == self.full_at:
            self.full, self.full_at = True, 0
        if self.full:
            self.files[name] = before + data[: len(data) // 2]
            raise OSError(28)
        if self._operation():
            if self.mode != LOST:
                keep = data if self.mode == KEPT else data[: len(data) // 2]
                self.files[name] = before + keep + after[len(keep) :]
            self.power_cut()
        self.files[name] = before + data + after[len(data) :]

    def append(self, name, pieces):
        for piece in pieces:
            self._write(name, self.files.get(name, b""), bytes(piece), b"")

    def write_at(self, name, offset, data):
        whole = self.files.get(name, b"")
        assert offset <= len(whole)
        self._write(name, whole[:offset], bytes(data), whole[offset:])

    def sync(self, name):
        if name not in self.files:
            raise OSError(2)
        if self._operation():
            self.power_cut()
        self.durable[name] = self.files[name]

    def write_atomic(self, name, data):
        self._write(name + ".new", b"", data, b"")
        self.sync(name + ".new")
        if self._operation():
            if self.mode == KEPT:
                self._rename(name)
            self.power_cut()
        self._rename(name)

    def _rename(self, name):
        self.files[name] = self.durable[name] = self.files.pop(name + ".new")
        self.durable.pop(name + ".new", None)

    def remove(self, name):
        if name in self.files:
            if self._operation():
                self.power_cut()
            self.files.pop(name)
            self.durable.pop(name, None)

    def read(self, name):
        return self.files.get(name)

    def size(self, name):
        return len(self.files.get(name, b""))

    def exists(self, name):
        return name in self.files

    def open_read(self, name):
        self._starve()
        if name not in self.files:
            raise OSError(2)
        return io.BytesIO(self.files[name])

    def path(self, name):
        return name

    def free_bytes(self):
        return 1000000
