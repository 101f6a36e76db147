"""Files in a real folder, and the whole agent on them."""

import os

from device_agent.core.storage import FileStorage
from tests.device_agent.core.portable import bench


class Folder:
    """A new folder that goes away again."""

    def __enter__(self):
        self.path = "/tmp/tinyfleet-" + "".join("%02x" % byte for byte in os.urandom(6))
        return FileStorage(self.path)

    def __exit__(self, *problem):
        for name in os.listdir(self.path):
            os.remove(self.path + "/" + name)
        os.rmdir(self.path)


def test_files_are_written_read_overwritten_and_removed():
    with Folder() as storage:
        assert storage.read("x") is None and storage.size("x") == 0 and not storage.exists("x")
        storage.append("x", (b"he", b"llo"))
        storage.append("x", (b" world",))
        storage.write_at("x", 6, b"there, all")
        storage.sync("x")
        assert storage.read("x") == b"hello there, all" and storage.size("x") == 16
        storage.write_atomic("x", b"new")
        assert storage.read("x") == b"new" and storage.exists("x") and not storage.exists("x.new")
        file = storage.open_read("x")
        assert file.read(2) == b"ne"
        file.close()
        storage.remove("x")
        storage.remove("x")
        assert not storage.exists("x") and storage.free_bytes() > 0


def test_what_is_no_folder_is_refused():
    with Folder() as storage:
        storage.write_atomic("file", b"")
        try:
            FileStorage(storage.path("file"))
        except OSError:
            return
    raise AssertionError("took a file for a folder")


def test_the_agent_installs_tries_and_restarts_on_real_files():
    with Folder() as storage:
        b = bench.Bench()
        b.storage = storage
        b.boot()
        b.deliver(bench.model(1), "first")
        b.run(lambda: b.ended("first"))
        b.deliver(bench.model(2), "second", trial=bench.TRIAL)
        b.run(lambda: b.serving() == 2)
        b.boot()
        b.run(lambda: b.serving() == 2)
        b.work(10)
        b.run(lambda: b.ended("second"))
        b.boot()
        b.run(lambda: b.serving() == 2)
        assert b.agent.apps["main"].installed()["delivery"] == "second"
