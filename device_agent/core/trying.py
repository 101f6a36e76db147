"""A new model on trial: it answers, is counted, and is kept or taken back. A board loads this for the trial."""
# mypy: disable-error-code="type-arg"

from device_agent.core import slots
from device_agent.core.trial import OUT_OF_TIME, PASS, STOP

TRIAL_LOOK_MS = 250


class Trying:
    """The trial of the model that serves; `counts` is its Trial, which goes on from a snapshot if there is one."""

    def __init__(self, delivery, now_ms: int, snapshot: "dict | None") -> None:  # type: ignore[no-untyped-def]
        from device_agent.core.trial import Trial

        self.delivery = delivery
        self.app = delivery.app
        self.counts = Trial(delivery.manifest["trial"], now_ms)
        if snapshot:
            self.counts.restore(snapshot, now_ms)
        self.proof: "slots.Proof | None" = None
        self.act = self._step_count

    def step(self, now_ms: int) -> int:
        """Do one thing; milliseconds to wait."""
        return self.act(now_ms)

    def misfit(self) -> None:
        """An input does not fit the model: the caller's mistake, unless the model before would have taken it."""
        app = self.app
        slot, known = app.serving.slot, app.state["active"] or app.serving.slot
        if slots.inputs_differ(app.device.storage, app.name, slot, known):
            self.counts.failed()

    def snapshot(self, now_ms: int) -> dict:
        """The counts as JSON."""
        return self.counts.snapshot(now_ms)

    def close(self) -> None:
        """End what is open."""
        if self.proof is not None:
            self.proof.close()
            self.proof = None

    def _step_count(self, now_ms: int) -> int:
        verdict, reason = self.counts.verdict(now_ms)
        if verdict == STOP:
            self._roll_back(reason)
        elif verdict == PASS:
            self.delivery.commit(reason, self.counts.evidence(True), self.app.state["slots"])
        elif verdict == OUT_OF_TIME:
            self._prove_again(reason)
        elif now_ms >= self.delivery.snapshot_ms:
            self.delivery.keep_snapshot(self, now_ms)
        else:
            return TRIAL_LOOK_MS
        return 0

    def _prove_again(self, reason: str) -> None:
        device, serving = self.app.device, self.app.serving
        try:
            self.proof = slots.Proof(
                device.storage, device.clock, serving.runtime, self.app.name, serving.slot, 0
            )
        except OSError as error:
            self._roll_back("the self-test cannot be read: %s" % error)
            return
        self.out_of_time = reason
        self.act = self._step_prove

    def _step_prove(self, now_ms: int) -> int:
        proof = self.proof
        try:
            if proof is None or proof.step():
                return 0
        except Exception as error:  # noqa: BLE001  whatever the runtime raises: the model is not to be kept
            self._roll_back("self-test at the end of the trial: %s" % error)
            return 0
        self.delivery.commit(self.out_of_time, self.counts.evidence(False), self.app.state["slots"])
        return 0

    def _roll_back(self, reason: str) -> None:
        self.delivery.close_jobs()
        self.app.return_to_active()
        self.delivery.end("rolled_back", reason, self.counts.evidence(True))
