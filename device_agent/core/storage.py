"""Files in one folder, on CPython and on MicroPython's file systems (littlefs, FAT, POSIX)."""

import os

from device_agent.core import ports

# Missing files are the only error that has a meaning here; the number is the same on every port.
ENOENT = 2


def _flush(file) -> None:  # type: ignore[no-untyped-def]
    file.flush()
    if hasattr(os, "fsync"):
        os.fsync(file.fileno())
    elif hasattr(os, "sync"):
        os.sync()


class FileStorage(ports.Storage):
    """Storage over `open`; the folder is made when it is missing."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        try:
            os.mkdir(folder)
        except OSError:
            os.listdir(folder)  # raises the clearer error when it is no folder either

    def _count(self, data: bytes) -> None:
        self.writes += 1
        self.written_bytes += len(data)

    def path(self, name: str) -> str:
        """Where the file stands."""
        return self.folder + "/" + name

    def size(self, name: str) -> int:
        """Bytes in the file; 0 when there is none."""
        try:
            return int(os.stat(self.path(name))[6])
        except OSError as error:
            if error.errno == ENOENT:
                return 0
            raise

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        try:
            os.stat(self.path(name))
        except OSError:
            return False
        return True

    def read(self, name: str) -> "bytes | None":
        """The whole file, or None when there is none."""
        try:
            with open(self.path(name), "rb") as file:
                return bytes(file.read())
        except OSError as error:
            if error.errno == ENOENT:
                return None
            raise

    def append(self, name: str, pieces) -> None:  # type: ignore[no-untyped-def]
        """Add each of the pieces to the end of the file, making it when needed: one write to the flash, opened once."""
        self.writes += 1
        with open(self.path(name), "ab") as file:
            for piece in pieces:
                self.written_bytes += len(piece)
                file.write(piece)

    def write_at(self, name: str, offset: int, data: bytes) -> None:
        """Overwrite from `offset` on; a new file needs offset 0."""
        self._count(data)
        with open(self.path(name), "r+b" if self.exists(name) else "wb") as file:
            file.seek(offset)
            file.write(data)

    def sync(self, name: str) -> None:
        """Return when everything written to the file is on disk."""
        with open(self.path(name), "r+b") as file:
            _flush(file)
        self._sync_folder()

    def write_atomic(self, name: str, data: bytes) -> None:
        """Write new, flush, sync, rename: after a power cut either the old or the new file is there."""
        self._count(data)
        fresh = self.path(name + ".new")
        with open(fresh, "wb") as file:
            file.write(data)
            _flush(file)
        self._replace(fresh, self.path(name))
        self._sync_folder()

    def _replace(self, source: str, target: str) -> None:
        try:
            os.rename(source, target)
        except OSError:
            # FAT cannot rename onto a file. Whoever needs both halves safe keeps two files (see record.py).
            os.remove(target)
            os.rename(source, target)

    def _sync_folder(self) -> None:
        # The rename itself must survive the cut, too; only POSIX keeps it in the folder.
        if not hasattr(os, "fsync"):
            return
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def open_read(self, name: str):  # type: ignore[no-untyped-def]
        """The file opened for binary reading."""
        return open(self.path(name), "rb")

    def remove(self, name: str) -> None:
        """Delete the file; harmless when there is none."""
        try:
            os.remove(self.path(name))
        except OSError as error:
            if error.errno != ENOENT:
                raise

    def free_bytes(self) -> "int | None":
        """Bytes left in the file system."""
        if not hasattr(os, "statvfs"):
            return None
        facts = os.statvfs(self.folder)
        return int(facts[0] * facts[4])
