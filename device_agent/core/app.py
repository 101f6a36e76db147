"""One app of a device: its state, the model that serves it, and the delivery that changes it."""
# mypy: disable-error-code="type-arg"

from device_agent.core import ports, slots
from device_agent.core.delivery import Delivery
from device_agent.core.device import Device
from device_agent.core.download import Hashing
from device_agent.core.intake import Intake
from device_agent.core.protocol import STATUS_ANSWER
from device_agent.core.ring import Ring
from device_agent.core.serving import Answer, Serving

LOAD_RETRY_MS = 1000
# Tries to load in a full heap before a slot is given up, or the agent started again for what served a moment ago.
LOAD_TRIES = 10


class App:
    """What serves now and what it shall be replaced with."""

    def __init__(self, device: Device, name: str, runtime: ports.Runtime, ring: Ring) -> None:
        self.device = device
        self.name = name
        self.runtime = runtime  # never loaded itself: `fresh` makes those that are
        self.ring = ring  # of all apps' predictions
        self.state = device.record.app(name)
        self.serving: "Serving | None" = None
        self.loading: "Hashing | None" = None
        self.load_slot: "str | None" = None  # what is to be loaded
        self.load_ms = 0
        self.patience = 0  # tries left
        # Whether what is to be loaded served a moment ago: then a full heap is no reason to give it up.
        self.returns = False
        self.proof: "slots.Proof | None" = None
        self.proof_command = ""
        self.delivery = Delivery(self)
        self.intake = Intake(self)

    # --- state -----------------------------------------------------------------------------------

    def change(self, fields: dict) -> None:
        """Change the app's part of the state record durably; raises OSError and changes nothing then."""
        before = dict(self.state)
        self.state.update(fields)
        try:
            self.device.save()
        except (OSError, MemoryError):
            self.state.clear()
            self.state.update(before)
            raise

    def installed(self) -> "dict | None":
        """What the active slot holds, None while there is none."""
        found: "dict | None" = self.state["slots"].get(self.state["active"])
        return found

    def facts(self) -> dict:
        """This app's part of `hello`."""
        installed, delivery = self.installed(), self.state["delivery"]
        return {
            "installed": installed,
            "sequence": self.state["sequence"],
            "manifest": self.state["manifest"],
            "delivery": delivery and {"id": delivery["id"], "state": delivery["state"]},
            "outcome": self.state["outcome"],
            "serving": self.serving is not None,
        }

    def status(self) -> dict:
        """This app's part of what a person at the device wants to know."""
        serving, delivery = self.serving, self.state["delivery"]
        window = serving and serving.window
        return {
            "installed": self.installed(),
            "slot": serving and serving.slot,
            "phase": serving and serving.phase,
            "artifact": serving and serving.artifact,
            "state": delivery["state"] if delivery else "idle",
            "delivery": delivery and delivery["id"],
            "outcome": self.state["outcome"],
            "n": window.n if window else 0,
            "errors": window.errors if window else 0,
        }

    def close(self, now_ms: int) -> None:
        """An orderly end."""
        self.rotate()
        self.delivery.close(now_ms)

    # --- serving ---------------------------------------------------------------------------------

    def serve(self, runtime: ports.Runtime, slot: str, artifact: str, spec: dict, phase: str) -> None:
        """Let a loaded model answer from now on; the one before is unloaded."""
        self.stop_serving()
        self._stop_loading()
        self.serving = Serving(self.name, runtime, slot, artifact, spec, phase)

    def stop_serving(self) -> None:
        """Report and unload the model that answers."""
        self.stop_proof("the model was replaced")
        if self.serving is not None:
            self.rotate()
            self.serving.runtime.unload()
            self.serving = None
            self.ring.forget(self)

    def rotate(self) -> None:
        """Spool the metrics so far; the next request begins a new window."""
        window = self.serving and self.serving.take_window()
        if window:
            self.device.report(window)
        if self.delivery.shadow is not None:
            self.delivery.shadow.rotate()

    def predict(self, x: object) -> "tuple[list, Answer]":
        """Outputs and what to remember; raises what the runtime raises. There must be a model that serves."""
        serving = self.serving
        if serving is None:
            raise ValueError("no model serves " + self.name)
        try:
            outputs, latency_us, answer = serving.predict(x, self.device.clock)
        except ports.InputError:
            self.delivery.misfit()
            raise
        except Exception:
            self.delivery.failed()
            raise
        self.delivery.ran(latency_us)
        if self.delivery.shadow is not None:
            self.delivery.shadow.saw(x, answer, latency_us)
        if serving.open_window(0).full():
            self.rotate()
        return outputs, answer

    def silence(self) -> str:
        """Why there is no model to answer."""
        if self.delivery.aside:
            return "the model makes room for the next one"
        return "no model installed yet" if self.load_slot is None else "the model is being loaded"

    def reset(self) -> None:
        """Let the models forget what earlier inputs have left."""
        if self.serving is not None:
            self.serving.runtime.reset()
        if self.delivery.shadow is not None:
            self.delivery.shadow.reset()

    def label(self, answer: Answer, y: object) -> bool:
        """Take the truth about an answer into account; False when another model serves by now."""
        serving = self.serving
        if serving is None or answer.serving is not serving:
            return False
        correct = serving.judge(answer, y, self.device.clock.ticks_ms())
        if correct is not None:
            self.delivery.observe(correct)
        if self.delivery.shadow is not None:
            self.delivery.shadow.judged(answer, y, bool(correct))
        return True

    # --- steps -----------------------------------------------------------------------------------

    def start(self) -> None:
        """After the boot was recorded: load what shall serve, go on with what was interrupted."""
        self._load(self.delivery.resume() or self.state["active"], False)

    def step(self, now_ms: int) -> int:
        """Do one thing; milliseconds to wait."""
        slot, load_wait = self.load_slot, self.load_ms - now_ms
        if slot is not None and (load_wait <= 0 or not self.returns):
            return load_wait if load_wait > 0 else self._step_loading(slot)
        if self.proof is not None:
            return self._step_proof()
        wait = self.intake.step(now_ms)
        if slot is not None:
            wait = min(wait, load_wait)
        return min(wait, self.delivery.step(now_ms)) if wait else 0

    def _load(self, slot: "str | None", returns: bool) -> None:
        self._stop_loading()
        self.load_slot, self.load_ms = slot, 0
        self.patience, self.returns = LOAD_TRIES, returns

    def _stop_loading(self) -> None:
        self.load_slot = None
        if self.loading is not None:
            self.loading.close()
            self.loading = None

    def _step_loading(self, slot: str) -> int:
        try:
            if self.loading is None:
                self.loading = Hashing(self.device.storage, slots.file_name(self.name, slot, slots.MODEL))
            digest = self.loading.step()
            if digest is None:
                return 0
            self._stop_loading()
            self._load_checked(slot, digest)
        except Exception as error:  # noqa: BLE001  whatever a runtime raises: this slot cannot serve
            self._stop_loading()
            if not isinstance(error, MemoryError) or not self._wait_for_room(slot):
                self._lost(slot, str(error))
        return 0

    def _wait_for_room(self, slot: str) -> bool:
        """Try again soon; what served a moment ago gets a new start of the agent after a while, where the host can do that."""
        if self.patience == 1 and not self.returns:
            return False
        now_ms = self.device.clock.ticks_ms()
        self.load_slot, self.load_ms = slot, now_ms + LOAD_RETRY_MS
        if self.patience == 1:
            return True
        self.patience -= 1
        if self.patience == 1 and self.returns:
            self.device.log("%s: the heap has no room for the model that served" % self.name)
            if self.device.can_restart:
                self.device.restart_soon(now_ms)
        return True

    def _load_checked(self, slot: str, digest: str) -> None:
        held = self.state["slots"][slot]["artifact"]
        if digest != held:
            raise ValueError("the file is not the artifact that was installed")
        if self.delivery.aside:
            return
        runtime = self.runtime.fresh()
        spec = slots.load(self.device.storage, runtime, self.name, slot)
        on_trial = slot != self.state["active"]
        self.serve(runtime, slot, held, spec, "trial" if on_trial else "live")
        if on_trial:
            self.delivery.resume_trial(self.device.clock.ticks_ms())

    def _lost(self, slot: str, reason: str) -> None:
        """A slot that was proven cannot be loaded any more."""
        self.device.log("%s: slot %s cannot be used: %s" % (self.name, slot, reason))
        if slot != self.state["active"]:
            self.delivery.lost_trial(reason)
            return
        left = {name: held for name, held in self.state["slots"].items() if name != slot}
        spare = slots.other(slot)
        # Without a digest the retained manifest is followed again, which brings the lost artifact back.
        self.device.hello_due = True
        fields = {"slots": left, "active": spare if self._may_serve(spare, left) else None, "manifest": None}
        try:
            self.change(fields)
        except (OSError, MemoryError) as error:
            self.device.log("%s: the state cannot be stored: %s" % (self.name, error))
            self.state.update(fields)
        self._load(self.state["active"], False)

    def _may_serve(self, slot: str, held: dict) -> bool:
        delivery = self.state["delivery"]
        return slot in held and not (delivery and delivery["slot"] == slot)

    def return_to_active(self) -> None:
        """Serve the committed slot again, at once; with none the app is empty."""
        self.stop_serving()
        slot = self.state["active"]
        if slot is None:
            return
        try:
            runtime = self.runtime.fresh()
            spec = slots.load(self.device.storage, runtime, self.name, slot)
            self.serve(runtime, slot, self.state["slots"][slot]["artifact"], spec, "live")
        except MemoryError:
            self._load(slot, True)
        except Exception as error:  # noqa: BLE001  as at boot: this slot cannot serve
            self._lost(slot, str(error))

    # --- self-test on command --------------------------------------------------------------------

    def prove(self, command: str) -> None:
        """Run the self-test of the model that serves, and answer the command with the outcome."""
        self.stop_proof("another self-test was asked for")
        serving = self.serving
        if serving is None:
            self._answer(command, False, self.silence())
            return
        self.proof_command = command
        try:
            device = self.device
            self.proof = slots.Proof(
                device.storage, device.clock, serving.runtime, self.name, serving.slot, 0
            )
        except (OSError, MemoryError) as error:
            self._answer(command, False, str(error))

    def _step_proof(self) -> int:
        proof = self.proof
        try:
            if proof is None or proof.step():
                return 0
        except Exception as error:  # noqa: BLE001  whatever the runtime raises is the answer
            self.stop_proof(str(error))
            return 0
        self.proof = None
        proof.close()
        self._answer(self.proof_command, True, "%d samples agree" % proof.samples)
        return 0

    def stop_proof(self, reason: str) -> None:
        """End a self-test that was asked for, unsuccessfully."""
        if self.proof is not None:
            self.proof.close()
            self.proof = None
            self._answer(self.proof_command, False, reason)

    def _answer(self, command: str, ok: bool, text: str) -> None:
        self.device.say({"kind": STATUS_ANSWER, "command": command, "ok": ok, "result": {"text": text}})
