"""A new model beside the one that answers: it runs on the same inputs, later and when there is time, and is compared.

Inputs wait in a small buffer and are replayed one a step, so that no answer takes longer; when it is full, inputs are
passed over. The answers of the shadow go nowhere but into its counts. A board loads this while a shadow runs.
"""
# mypy: disable-error-code="type-arg"

import gc

from device_agent.core import ports
from device_agent.core.device import Device, heap_free
from device_agent.core.serving import Answer, Serving
from device_agent.core.trial import OUT_OF_TIME, RUNNING, STOP
from device_agent.core.trying import TRIAL_LOOK_MS

INPUTS_KEPT = 8
# Less heap than this beside both models is too little: the application and the agent come first. The largest piece counts, too.
SPARE_BYTES = 16 * 1024
PIECE_BYTES = 4096


class Waiting:
    """An input to replay, what the model that serves answered, and the truth when it came meanwhile."""

    def __init__(self, x: object, answer: Answer, latency_us: int) -> None:
        self.x = x
        self.answer = answer
        self.latency_us = latency_us
        self.truth: "tuple | None" = None


class Shadow:
    """The new model's `serving`, its trial's counts, and how it compares with the model that answers."""

    def __init__(self, delivery, serving: Serving, rules: dict, now_ms: int) -> None:  # type: ignore[no-untyped-def]
        from device_agent.core.trial import Trial  # a file of its own on boards, with other users

        self.delivery = delivery
        self.device: Device = delivery.device
        self.serving = serving
        self.trial = Trial(rules, now_ms)
        self.waiting: list[Waiting] = []
        self.compared = self.agreed = self.old_correct = self.old_us = self.new_us = 0

    # --- what the application does ---------------------------------------------------------------

    def saw(self, x: object, answer: Answer, latency_us: int) -> None:
        """The model that serves answered `x`."""
        free = heap_free() or SPARE_BYTES
        if len(self.waiting) >= (INPUTS_KEPT if free >= SPARE_BYTES else 1):
            return
        try:
            self.waiting.append(Waiting(kept(x), answer, latency_us))
        except MemoryError:
            pass  # the application needs it more

    def reset(self) -> None:
        """A new stream begins: what still waits belongs to the one before."""
        self.waiting.clear()
        self.serving.runtime.reset()

    def judged(self, answer: Answer, y: object, was_right: bool) -> None:
        """The truth about an answer of the model that serves is known."""
        for one in self.waiting:
            if one.answer is answer:
                one.truth = (y, was_right)
                return
        if answer.shadow is not None and answer.shadow.serving is self.serving:
            self._judge(answer.shadow, y, was_right)

    # --- steps -----------------------------------------------------------------------------------

    def step(self, now_ms: int) -> int:
        """Replay one input, and end the delivery when that decides; milliseconds to wait."""
        end, delivery = self._look(now_ms), self.delivery
        if end is not None:
            delivery.close_jobs()
            delivery.end(end[0], end[1], end[2])
        elif now_ms >= delivery.snapshot_ms:
            delivery.keep_snapshot(self, now_ms)
        return 0 if end or self.waiting else TRIAL_LOOK_MS

    def _look(self, now_ms: int) -> "tuple | None":
        """(how the delivery ends, the reason, evidence) when it is over."""
        try:
            self._replay()
        except MemoryError:
            return "failed", "in the shadow: the heap has no room for both models", self.evidence(False)
        verdict, reason = self.trial.verdict(now_ms)
        if verdict == RUNNING:
            return None
        end = "rolled_back" if verdict == STOP else "succeeded"
        return end, "in the shadow: " + reason, self.evidence(verdict != OUT_OF_TIME)

    def _replay(self) -> None:
        if not self.waiting:
            return
        one = self.waiting.pop(0)
        try:
            _, latency_us, answer = self.serving.predict(one.x, self.device.clock)
        except MemoryError:
            raise
        except ports.InputError:
            # The model that serves took this input, so the new one must as well.
            self.serving.open_window(self.device.clock.ticks_ms()).failed()
            self.trial.failed()
            return
        except Exception:  # noqa: BLE001  whatever a runtime raises counts against the model
            self.trial.failed()
            return
        self._compare(one, answer, latency_us)
        if self.serving.open_window(0).full():
            self.rotate()

    def _compare(self, one: Waiting, answer: Answer, latency_us: int) -> None:
        self.trial.ran(latency_us)
        self.old_us += one.latency_us
        self.new_us += latency_us
        old = one.answer
        old.shadow = answer
        if old.kind is not None and answer.kind is not None:
            self.compared += 1
            if old.serving.name_of(old.kind) == self.serving.name_of(answer.kind):
                self.agreed += 1
        if one.truth is not None:
            self._judge(answer, one.truth[0], one.truth[1])

    def _judge(self, answer: Answer, y: object, was_right: bool) -> None:
        try:
            correct = self.serving.judge(answer, y, self.device.clock.ticks_ms())
        except ValueError:
            correct = False  # the new model does not even know this class
        if correct is not None:
            self.trial.observe(correct)
            self.old_correct += 1 if was_right else 0

    # --- what is kept ----------------------------------------------------------------------------

    def rotate(self) -> None:
        """Spool the metrics so far."""
        window = self.serving.take_window()
        if window:
            self.device.report(window)

    def evidence(self, enough: bool) -> dict:
        """What the server keeps: the trial's counts, and beside them how both models compare; latencies are means."""
        message = self.trial.evidence(enough)
        n = max(self.trial.n, 1)
        message["compared"], message["agreed"] = self.compared, self.agreed
        message["old_correct"] = self.old_correct
        message["old_us"], message["new_us"] = self.old_us // n, self.new_us // n
        return message

    def snapshot(self, now_ms: int) -> dict:
        """The counts as JSON, so that a restart goes on with them."""
        counts = self.trial.snapshot(now_ms)
        counts["shadow"] = [self.compared, self.agreed, self.old_correct, self.old_us, self.new_us]
        return counts

    def restore(self, snapshot: dict, now_ms: int) -> None:
        """Continue from what `snapshot` returned before the restart."""
        self.trial.restore(snapshot, now_ms)
        self.compared, self.agreed, self.old_correct, self.old_us, self.new_us = snapshot["shadow"]

    def close(self) -> None:
        """Report and unload."""
        self.rotate()
        self.waiting = []
        self.serving.runtime.unload()


def beside(app, install, now_ms: int) -> Shadow:  # type: ignore[no-untyped-def]
    """The proven model of an install in the shadow of what `app` serves; goes on from a snapshot if there is one.

    Raises MemoryError when both models leave too little of the heap.
    """
    gc.collect()
    free = heap_free()
    if free is not None and free < SPARE_BYTES:
        raise MemoryError("%d bytes of heap are left beside both, %d are needed" % (free, SPARE_BYTES))
    bytearray(PIECE_BYTES)
    manifest = install.manifest
    artifact = manifest["artifact"]["sha256"]
    serving = Serving(app.name, install.runtime, install.slot, artifact, install.spec, "shadow")
    made = Shadow(app.delivery, serving, manifest["trial"], now_ms)
    snapshot = app.state["delivery"].get("snapshot")
    if snapshot:
        made.restore(snapshot, now_ms)
    return made


def kept(x: object) -> object:
    """A copy of an input that the application may go on to overwrite."""
    if isinstance(x, (list, tuple)):
        return [kept(part) for part in x]
    if isinstance(x, dict):
        return {name: kept(x[name]) for name in x}
    if isinstance(x, (bytearray, memoryview)):
        return bytes(x)
    if hasattr(x, "copy"):  # a NumPy array
        return x.copy()
    if isinstance(x, (bytes, str, int, float)):
        return x
    return x[:] if hasattr(x, "append") else x  # type: ignore[index]  # an array.array
