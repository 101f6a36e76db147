"""From an accepted manifest to a loaded model that passed its self-test: downloading, verifying, testing."""
# mypy: disable-error-code="type-arg"

import json

from device_agent.core import coding, ports, slots
from device_agent.core.chunks import DownloadFailed
from device_agent.core.device import Device
from device_agent.core.download import Hashing

TYPE_CHECKING = False  # MicroPython has no `typing`; a board loads this only while it fetches
if TYPE_CHECKING:
    from device_agent.core.download import Download

PROGRESS_MS = 5000


class InstallFailed(Exception):
    """This attempt is over; `again` says whether another one may help."""

    def __init__(self, reason: str, again: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.again = again


class Install:
    """One attempt to fill a slot. A file that is already there (idle slot, earlier attempt) is not fetched."""

    def __init__(  # type: ignore[no-untyped-def]
        self, device: Device, runtime: ports.Runtime, app: str, slot: str, manifest: dict, entered
    ) -> None:
        self.device = device
        self.runtime = runtime
        self.app = app
        self.slot = slot
        self.manifest = manifest
        self.entered = entered  # called with (state, progress or None); may raise OSError
        self.spec: dict = {}
        self.parts = self._parts()
        self.hashing: "Hashing | None" = None
        self.download: "Download | None" = None
        self.fetched = False
        self.proof: "slots.Proof | None" = None
        self.said_ms = 0
        self.said_done = 0
        self.act = self._step_spec

    def _parts(self) -> list[tuple[dict, str, str, int]]:
        """(blob, file part, sha256 and bytes of the file) of all that is to be fetched, the model last."""
        manifest = self.manifest
        artifact, test = manifest["artifact"], manifest["self_test"]
        parts = [
            (test, slots.SELF_TEST, test["sha256"], test["bytes"]),
            (manifest["transport"], slots.MODEL, artifact["sha256"], artifact["bytes"]),
        ]
        blob = manifest["signature_spec"].get("blob")
        if blob is not None:
            parts.insert(0, (blob, slots.SPEC, blob["sha256"], blob["bytes"]))
        return parts

    def _file(self, part: str) -> str:
        return slots.file_name(self.app, self.slot, part)

    # --- what the delivery calls -----------------------------------------------------------------

    def step(self, now_ms: int) -> "int | None":
        """Do one thing; milliseconds to wait, or None when `runtime` holds the proven model. Raises InstallFailed or MemoryError."""
        try:
            return self.act(now_ms)
        except DownloadFailed as error:
            raise InstallFailed(str(error), True)
        except OSError as error:
            raise InstallFailed("storage: %s" % error, True)

    def receive(self, sha256: str, chunk_bytes: int, chunk: int, payload: bytes, now_ms: int) -> None:
        """A chunk came. Raises InstallFailed or MemoryError."""
        if self.download is None:
            return
        try:
            self.download.receive(sha256, chunk_bytes, chunk, payload, now_ms)
        except DownloadFailed as error:
            raise InstallFailed(str(error), True)
        except OSError as error:
            raise InstallFailed("storage: %s" % error, True)

    def reconnected(self) -> None:
        """The connection is new."""
        if self.download is not None:
            self.download.reconnected()

    def close(self) -> None:
        """Give up; what was fetched stays on disk."""
        self._close_files()
        self.runtime.unload()

    def _close_files(self) -> None:
        for job in (self.download, self.hashing, self.proof):
            if job is not None:
                job.close()
        self.download = self.hashing = self.proof = None

    # --- downloading and verifying ---------------------------------------------------------------

    def _step_spec(self, now_ms: int) -> "int | None":
        spec = self.manifest["signature_spec"]
        if "blob" not in spec:
            data = json.dumps(spec).encode()
            if self.device.storage.read(self._file(slots.SPEC)) != data:
                self.device.storage.write_atomic(self._file(slots.SPEC), data)
        self.act = self._step_compare
        return 0

    def _step_compare(self, now_ms: int) -> "int | None":
        """Is the file already what it shall be?"""
        _, part, sha256, size = self.parts[0]
        if self.hashing is None:
            if self.device.storage.size(self._file(part)) != size:
                return self._differs()
            if self.fetched and part == slots.MODEL:
                self.entered("verifying", None)
            self.hashing = Hashing(self.device.storage, self._file(part))
        digest = self.hashing.step()
        if digest is None:
            return 0
        self.hashing = None
        if digest != sha256:
            return self._differs()
        self.parts.pop(0)
        self.fetched = False
        self.act = self._step_compare if self.parts else self._step_load
        return 0

    def _differs(self) -> int:
        part = self.parts[0][1]
        if self.fetched:
            # Each chunk was right, so the coding or the signed index describes another file.
            self.device.storage.remove(self._file(part))
            raise InstallFailed("the %s is not what the manifest says" % part, True)
        self.act = self._step_download
        return 0

    def _step_download(self, now_ms: int) -> "int | None":
        device = self.device
        if self.download is None:
            self.entered("downloading", None)
            self.said_ms = now_ms
            self.download = self._begin_download()
        wait = self.download.step(now_ms, device.online)
        if wait is None:
            self.download = None
            self.fetched = True
            self.act = self._step_compare
            return 0
        self._tell_progress(now_ms)
        return wait

    def _begin_download(self) -> "Download":
        blob, part, _, size = self.parts[0]
        device = self.device
        name = blob.get("coding", "none")
        # Before the code, while the heap still has large holes.
        decoder = None if name == "none" else coding.decoder(name, size)
        from device_agent.core.download import Download

        return Download(
            blob, decoder, self._file(part), device.storage, device.transport, device.jitter, device
        )

    def _tell_progress(self, now_ms: int) -> None:
        if self.download is None or now_ms - self.said_ms < PROGRESS_MS or self.parts[0][1] != slots.MODEL:
            return
        done, total = self.download.progress()
        if done != self.said_done:
            self.said_ms, self.said_done = now_ms, done
            self.entered("downloading", {"done": done, "total": total})

    # --- testing ---------------------------------------------------------------------------------

    def _step_load(self, now_ms: int) -> "int | None":
        self.entered("testing", None)
        self.act = self._step_open
        return 0

    def _step_open(self, now_ms: int) -> "int | None":
        device = self.device
        try:
            self.spec = slots.load(device.storage, self.runtime, self.app, self.slot)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  whatever a runtime raises means that it does not run here
            raise InstallFailed("the model cannot be loaded: %s" % error, isinstance(error, OSError))
        trial = self.manifest["trial"] or {}
        deadline = trial.get("deadline_us") or 0
        self.proof = slots.Proof(device.storage, device.clock, self.runtime, self.app, self.slot, deadline)
        self.act = self._step_prove
        return 0

    def _step_prove(self, now_ms: int) -> "int | None":
        try:
            more = self.proof is not None and self.proof.step()
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  a mismatch, a broken file, a crash: it is not to be trusted
            raise InstallFailed("self-test: %s" % error, False)
        if more:
            return 0
        self._close_files()
        return None
