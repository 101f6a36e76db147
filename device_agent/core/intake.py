"""Manifests that come for one app: judged, and recorded when they are to be followed."""
# mypy: disable-error-code="type-arg"

from device_agent.core import offers, protocol, slots

EXPIRED_LOOK_MS = 30000
STORAGE_RETRY_MS = 5000
IDLE_MS = 60000


class Intake:
    """Holds at most one manifest until it is accepted, refused, or no longer expired."""

    def __init__(self, app) -> None:  # type: ignore[no-untyped-def]
        self.app = app
        self.device = app.device
        self.offer: "bytes | None" = None
        self.look_ms = 0
        self.refused = ""  # digest of the manifest refused last, so that it is said once
        self.waited_for = ""

    def take(self, payload: bytes) -> None:
        """A manifest came; an empty one (nothing is desired) changes nothing, because nobody signed it."""
        if payload:
            self.offer = bytes(payload)  # a view of the transport's buffer is good for this call only
            self.look_ms = 0

    def step(self, now_ms: int) -> int:
        """Judge what came; milliseconds to wait."""
        if self.offer is None or self.app.delivery.ends():
            return IDLE_MS
        if now_ms < self.look_ms:
            return self.look_ms - now_ms
        payload, self.offer = self.offer, None
        digest = offers.digest_of(payload)
        if digest in (self.app.state["manifest"], self.refused):
            return 0
        try:
            self._judge(payload, digest)
        except offers.Refusal as refusal:
            self._refuse(refusal, payload, digest)
        except offers.Expired as expired:
            self._wait_for_new(expired, digest)
            self._look_again(payload, now_ms + EXPIRED_LOOK_MS)
        except (OSError, MemoryError) as error:
            self.device.log("%s: a manifest cannot be taken in: %s" % (self.app.name, error))
            self._look_again(payload, now_ms + STORAGE_RETRY_MS)
        return 0

    def _look_again(self, payload: bytes, at_ms: int) -> None:
        self.offer = payload
        self.look_ms = at_ms

    def _wait_for_new(self, expired: offers.Expired, digest: str) -> None:
        if self.waited_for != digest:
            self.waited_for = digest
            self.device.log("%s: waiting for a new signature: %s" % (self.app.name, expired))
            # A hello without this manifest makes the server sign again.
            self.device.hello_due = True

    def _refuse(self, refusal: offers.Refusal, payload: bytes, digest: str) -> None:
        self.refused = digest
        self.device.log("%s: a manifest is refused: %s" % (self.app.name, refusal.reason))
        if refusal.code == "sequence":
            # A server with a restored database learns from hello which sequence to go on from.
            self.device.hello_due = True
        message = offers.claim(payload)
        if message["delivery"]:
            message.update({"kind": protocol.STATUS_DELIVERY, "app": self.app.name, "state": "rejected"})
            message.update({"reason": refusal.reason[:300], "code": refusal.code, "attempt": 1})
            self.device.keep(message)

    def _judge(self, payload: bytes, digest: str) -> None:
        app = self.app
        manifest = self._read(payload)
        self._check(manifest)
        self.device.storage.write_atomic(slots.manifest_name(app.name), payload)
        record = self.device.record.fields
        keys_before = record["keys"]
        record["keys"] = manifest.get("keys") or keys_before
        try:
            self._follow(manifest, {"sequence": manifest["sequence"], "manifest": digest})
        except (OSError, MemoryError):
            record["keys"] = keys_before
            raise

    # Two functions, so that a board has the code of one check at a time in memory.

    def _read(self, payload: bytes) -> dict:
        from device_agent.core.trust import read_trusted

        return read_trusted(payload, self.device.trusted_keys())

    def _check(self, manifest: dict) -> None:
        from device_agent.core.offers import check

        app = self.app
        slot = slots.other(app.state["active"])
        check(manifest, self.device, app.name, app.state, app.runtime.format, slot)
        if offers.is_shadow(manifest) and app.installed() is None:
            raise offers.Refusal("shadow", "no model is installed that a shadow could run beside")

    def _follow(self, manifest: dict, fields: dict) -> None:
        """Raises OSError, and then nothing has changed."""
        state = self.app.state
        current, outcome, installed = state["delivery"], state["outcome"], self.app.installed()
        if current is not None and current["id"] == manifest["delivery"]:
            self.app.change(fields)
            self.app.delivery.signed_again(manifest)
            return
        here = installed is not None and installed["artifact"] == manifest["artifact"]["sha256"]
        ended = outcome is not None and outcome["delivery"] == manifest["delivery"]
        # Signed again after its end: only an artifact that got lost since is worth doing again.
        if ended and (here or outcome["state"] != "succeeded" or offers.is_shadow(manifest)):
            self.app.change(fields)
            return
        if here:
            self._already_installed(manifest, fields)
        else:
            self._start(manifest, fields)

    def _already_installed(self, manifest: dict, fields: dict) -> None:
        state = self.app.state
        held = dict(state["slots"])
        held[state["active"]] = offers.describe(manifest)
        outcome = {"delivery": manifest["delivery"], "state": "succeeded", "reason": "already installed"}
        fields.update({"slots": held, "outcome": outcome, "delivery": None})
        self.app.change(fields)
        self.app.delivery.abandon(manifest)
        self.device.keep(self.app.delivery.status("succeeded", "already installed"))

    def _start(self, manifest: dict, fields: dict) -> None:
        state = self.app.state
        slot = slots.other(state["active"])
        # From here on the idle slot is being overwritten: nothing proven is in it any more.
        held = {name: state["slots"][name] for name in state["slots"] if name != slot}
        delivery = {
            "id": manifest["delivery"],
            "state": "downloading",
            "slot": slot,
            "attempt": 1,
            "boots": 0,
        }
        fields.update({"slots": held, "delivery": delivery})
        self.app.change(fields)
        self.app.delivery.begin(manifest)
