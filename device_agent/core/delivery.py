"""What happens to one app's model: an accepted manifest is installed, tried, and kept or taken back.

Every change that must survive a power cut is one write of the state record; the message about it comes after, and
`hello` repeats it when the message was lost.
"""
# mypy: disable-error-code="type-arg"

from device_agent.core import offers, protocol, room
from device_agent.core.backoff import BackOff
from device_agent.core.install import InstallFailed

TYPE_CHECKING = False  # MicroPython has no `typing`; a board loads these only while it needs them
if TYPE_CHECKING:
    from device_agent.core.install import Install
    from device_agent.core.shadow import Shadow
    from device_agent.core.trying import Trying

ATTEMPTS = 3
RETRY_MS = 30000
RETRY_LIMIT_MS = 600000
# Restarts in a row, without a while of good running between them, before the new model is held to be the reason.
CRASH_BOOTS = 3
SNAPSHOT_MS = 60000
STORAGE_RETRY_MS = 5000
IDLE_MS = 60000


class Delivery:
    """The delivery of one app that is under way, if there is one."""

    def __init__(self, app) -> None:  # type: ignore[no-untyped-def]
        self.app = app
        self.device = app.device
        self.manifest: dict = {}
        self.install: "Install | None" = None
        self.aside = False  # the model that serves made room for the one that comes
        self.aside_ms = 0  # until then even without a connection
        self.retry = BackOff(self.device.jitter, RETRY_MS, RETRY_LIMIT_MS)
        self.retry_ms = 0
        self.trying: "Trying | None" = None
        self.shadow: "Shadow | None" = None
        self.snapshot_ms = 0
        self.ending: "dict | None" = None
        self.act = self._step_idle

    # --- what the app and the agent call ---------------------------------------------------------

    def step(self, now_ms: int) -> int:
        """Do one thing; milliseconds to wait."""
        return self.act(now_ms)

    def take_chunk(self, sha256: str, chunk_bytes: int, chunk: int, payload: bytes, now_ms: int) -> None:
        """A chunk came."""
        if self.install is None:
            return
        try:
            self.install.receive(sha256, chunk_bytes, chunk, payload, now_ms)
        except InstallFailed as error:
            self._attempt_failed(error, now_ms)
        except MemoryError:
            self._make_room(now_ms)

    def reconnected(self) -> None:
        """The connection is new."""
        if self.install is not None:
            self.install.reconnected()

    def ran(self, latency_us: int) -> None:
        """The model that serves gave an answer."""
        if self.trying is not None:
            self.trying.counts.ran(latency_us)

    def failed(self) -> None:
        """The model that serves failed to answer."""
        if self.trying is not None:
            self.trying.counts.failed()

    def misfit(self) -> None:
        """An input does not fit the model that serves."""
        if self.trying is not None:
            self.trying.misfit()

    def observe(self, correct: bool) -> None:
        """The truth about an answer of the model that serves is known."""
        if self.trying is not None:
            self.trying.counts.observe(correct)

    def close(self, now_ms: int) -> None:
        """An orderly end: a trial goes on from here after the next start."""
        counts = self.trying or self.shadow
        if counts is not None and self.ending is None:
            self.keep_snapshot(counts, now_ms)

    # --- after a restart -------------------------------------------------------------------------

    def resume(self) -> "str | None":
        """Go on with a delivery that a restart interrupted; returns the slot on trial, if there is one."""
        state = self.app.state["delivery"]
        if state is None:
            return None
        manifest = self._stored()
        if manifest is None:
            # The retained manifest comes again and is followed anew.
            self.app.state.update({"delivery": None, "manifest": None})
            return None
        self.manifest = manifest
        if state["boots"] > CRASH_BOOTS:
            word = "rolled_back" if state["state"] == "trial" else "failed"
            self.end(word, "crash loop: %d restarts in state %s" % (state["boots"], state["state"]))
            return None
        if state["state"] != "trial" or offers.is_shadow(manifest):
            self.act = self._step_begin
            room.keep_clear(self)
            return None
        slot: str = state["slot"]
        return slot

    def count_boot(self) -> None:
        """Before the boot is recorded: a model that is being tested or tried may be why there was a restart."""
        state = self.app.state["delivery"]
        if state is not None and state["state"] in ("testing", "trial"):
            state["boots"] += 1

    def _stored(self) -> "dict | None":
        from device_agent.core.trust import stored

        return stored(self.device.storage, self.app.name, self.app.state["manifest"])

    def resume_trial(self, now_ms: int) -> None:
        """The slot on trial serves again."""
        snapshot = self.app.state["delivery"].get("snapshot")
        self._begin_trial(self._new_trial(now_ms, snapshot), now_ms)

    def lost_trial(self, reason: str) -> None:
        """The slot on trial cannot be loaded any more."""
        self.end("rolled_back", "after a restart the model on trial cannot be loaded: " + reason)
        self.app.return_to_active()

    # --- what the intake calls --------------------------------------------------------------------

    def signed_again(self, manifest: dict) -> None:
        """The delivery under way goes on with a newer manifest; a new way to the bytes begins the download again."""
        before, self.manifest = self.manifest, manifest
        if self.install is not None and before["transport"] != manifest["transport"]:
            self.begin_again()

    def begin(self, manifest: dict) -> None:
        """A new delivery was recorded: install it."""
        self.abandon(manifest)
        self.retry.reset()
        self.device.say(self.status("offered", ""))
        self.act = self._step_begin

    def abandon(self, manifest: dict) -> None:
        """Another manifest took over: stop what is under way; a model on trial no longer serves."""
        self.close_jobs()
        self.manifest = manifest
        serving = self.app.serving
        if serving is not None and serving.slot != self.app.state["active"]:
            self.app.return_to_active()
        self.act = self._step_idle

    def ends(self) -> bool:
        """Whether an end waits for being stored; nothing new begins before."""
        return self.ending is not None

    def busy(self) -> bool:
        """Whether something is under way."""
        return not (self.install is None and self.trying is None and self.shadow is None)

    def close_jobs(self) -> None:
        """Stop whatever is under way."""
        for job in (self.install, self.trying, self.shadow):
            if job is not None:
                job.close()
        self.install = self.trying = self.shadow = None
        if self.aside:
            self.aside = False
            self.app.return_to_active()

    # --- downloading, verifying, testing ---------------------------------------------------------

    def _step_idle(self, now_ms: int) -> int:
        return IDLE_MS

    def _step_begin(self, now_ms: int) -> int:
        from device_agent.core.install import Install

        slot, runtime = self.app.state["delivery"]["slot"], self.app.runtime.fresh()
        self.install = Install(self.device, runtime, self.app.name, slot, self.manifest, self._entered)
        self.act = self._step_install
        return 0

    def _entered(self, state: str, progress: "dict | None") -> None:
        if state == "testing":
            # Loading may crash the interpreter itself: the next boot must know what it was at.
            self.change_state({"state": "testing"})
        message = self.status(state, "")
        if progress:
            message["progress"] = progress
        self.device.say(message)

    def change_state(self, fields: dict) -> None:
        """Change what is recorded of the delivery under way; raises OSError."""
        delivery = dict(self.app.state["delivery"])
        delivery.update(fields)
        self.app.change({"delivery": delivery})

    def _step_install(self, now_ms: int) -> int:
        install = self.install
        if install is None:
            return 0
        try:
            if self.aside and install.download is not None and room.in_vain(self, now_ms):
                self.begin_again()
                return 0
            wait = install.step(now_ms)
            if wait is None:
                self._proven(install, now_ms)
            return wait or 0
        except InstallFailed as error:
            self._attempt_failed(error, now_ms)
        except OSError as error:
            self._attempt_failed(InstallFailed("storage: %s" % error, True), now_ms)
        except MemoryError:
            self._make_room(now_ms)
        return 0

    def _make_room(self, now_ms: int) -> None:
        """The heap is exhausted: this attempt goes on where there is more of it, or is over."""
        if not room.made(self, now_ms):
            self._attempt_failed(InstallFailed("the heap is exhausted", True), now_ms)

    def begin_again(self) -> None:
        """The same attempt from its beginning; whole chunks and files that are on disk stay good."""
        self.close_jobs()
        self.act = self._step_begin

    def _attempt_failed(self, error: InstallFailed, now_ms: int) -> None:
        self.close_jobs()
        attempt = self.app.state["delivery"]["attempt"]
        self.log("attempt %d failed: %s" % (attempt, error.reason))
        if not error.again or attempt >= ATTEMPTS:
            self.end("failed", error.reason)
            return
        try:
            self.change_state({"attempt": attempt + 1, "state": "downloading", "boots": 0})
        except (OSError, MemoryError):
            pass  # one attempt more than intended after a restart, at worst
        self.retry_at(now_ms + self.retry.wait_ms())

    def retry_at(self, time_ms: int) -> None:
        """Begin an attempt then."""
        self.retry_ms = time_ms
        self.act = self._step_retry

    def _step_retry(self, now_ms: int) -> int:
        if now_ms < self.retry_ms:
            return self.retry_ms - now_ms
        self.act = self._step_begin
        return 0

    def _proven(self, install: "Install", now_ms: int) -> None:
        """The new model passed its self-test: let it serve, on trial unless the manifest says not to."""
        slot = install.slot
        if offers.is_shadow(self.manifest):
            self._begin_shadow(install, now_ms)
            return
        self.aside = False
        held = dict(self.app.state["slots"])
        held[slot] = offers.describe(self.manifest)
        trying = None
        if self.manifest["trial"] is not None:
            trying = self._new_trial(now_ms, None)
            delivery = dict(self.app.state["delivery"])
            delivery.update({"state": "trial", "boots": 0, "snapshot": None})
            self.app.change({"slots": held, "delivery": delivery})
        self.install = None
        self.app.serve(install.runtime, slot, self.manifest["artifact"]["sha256"], install.spec, "trial")
        if trying is None:
            self.commit("installed without trial", None, held)
            return
        self._begin_trial(trying, now_ms)
        self.device.say(self.status("trial", ""))

    # --- trial, shadow ---------------------------------------------------------------------------

    def _new_trial(self, now_ms: int, snapshot: "dict | None") -> "Trying":
        from device_agent.core.trying import Trying

        return Trying(self, now_ms, snapshot)

    def _begin_trial(self, trying: "Trying", now_ms: int) -> None:
        self.trying = trying
        self.snapshot_ms = now_ms + SNAPSHOT_MS
        self.act = trying.step

    def _begin_shadow(self, install: "Install", now_ms: int) -> None:
        from device_agent.core.shadow import beside

        if self.aside:
            self.aside = False
            self.app.return_to_active()
        try:
            if self.app.serving is None:
                raise MemoryError("the one that serves does not fit in any more")
            self.shadow = beside(self.app, install, now_ms)
        except MemoryError as error:
            raise InstallFailed("in the shadow: the heap has no room for both models; %s" % error, False)
        self.install = None
        # Only a while of good running takes back restarts here: each one begins with the self-test again.
        self.change_state({"state": "trial"})
        self.snapshot_ms = now_ms + SNAPSHOT_MS
        self.act = self.shadow.step
        self.device.say(self.status("trial", "in the shadow"))

    def keep_snapshot(self, counts: "Trying | Shadow", now_ms: int) -> None:
        """It has run well for a while: a restart goes on from here, and is no sign of a crash loop."""
        self.snapshot_ms = now_ms + SNAPSHOT_MS
        try:
            self.change_state({"snapshot": counts.snapshot(now_ms), "boots": 0})
        except (OSError, MemoryError) as error:
            self.log("the trial cannot be stored: %s" % error)

    # --- ends ------------------------------------------------------------------------------------

    def commit(self, reason: str, evidence: "dict | None", held: dict) -> None:
        """The model that serves is the one to keep."""
        self.close_jobs()
        self.app.rotate()
        if self.app.serving is not None:
            self.app.serving.phase = "live"
        fields = {"active": self.app.state["delivery"]["slot"], "slots": held}
        self.end("succeeded", reason, evidence, fields)

    def end(
        self, state: str, reason: str, evidence: "dict | None" = None, fields: "dict | None" = None
    ) -> None:
        """Record how the delivery ended, then say so; tried again until it is stored."""
        delivery = self.app.state["delivery"]
        if fields is None:
            # Whatever the slot of a delivery without success holds, it shall never serve.
            held = self.app.state["slots"]
            fields = {"slots": {name: held[name] for name in held if name != delivery["slot"]}}
        fields["delivery"] = None
        fields["outcome"] = {"delivery": delivery["id"], "state": state, "reason": reason}
        message = self.status(state, reason)
        message["evidence"] = evidence
        self.ending = {"fields": fields, "message": message}
        self.retry_ms = 0
        self.act = self._step_ending

    def _step_ending(self, now_ms: int) -> int:
        ending = self.ending
        if ending is None:
            return 0
        if now_ms < self.retry_ms:
            return self.retry_ms - now_ms
        try:
            self.app.change(ending["fields"])
        except (OSError, MemoryError) as error:
            self.log("the end of a delivery cannot be stored: %s" % error)
            self.retry_ms = now_ms + STORAGE_RETRY_MS
            return STORAGE_RETRY_MS
        self.ending = None
        self.act = self._step_idle
        self.log("%s: %s" % (ending["message"]["state"], ending["message"]["reason"]))
        self.device.keep(ending["message"])
        return 0

    # --- words -----------------------------------------------------------------------------------

    def status(self, state: str, reason: str) -> dict:
        """The status message about the delivery under way."""
        delivery = self.app.state["delivery"]
        message = {"kind": protocol.STATUS_DELIVERY, "app": self.app.name}
        message.update({"state": state, "reason": reason[:300]})
        if self.manifest:
            message["delivery"] = self.manifest["delivery"]
            message["artifact"] = self.manifest["artifact"]["sha256"]
            message["sequence"] = self.manifest["sequence"]
            message["shadow"] = offers.is_shadow(self.manifest)
        message["attempt"] = delivery["attempt"] if delivery else 1
        return message

    def log(self, text: str) -> None:
        """A line for a person."""
        self.device.log("%s: %s" % (self.app.name, text))
