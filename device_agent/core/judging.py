"""What becomes of a manifest that came: refused, waited out, or recorded and followed. A board loads this for each."""
# mypy: disable-error-code="type-arg"

from device_agent.core import offers, protocol, slots
from device_agent.core.intake import Intake

EXPIRED_LOOK_MS = 30000


def judge(intake: Intake, payload: bytes, digest: str) -> int:
    """Milliseconds until it is looked at again, 0 for never; raises OSError or MemoryError, and then nothing has changed."""
    try:
        _accept(intake, payload, digest)
    except offers.Refusal as refusal:
        _refuse(intake, refusal, payload, digest)
    except offers.Expired as expired:
        _wait_for_new(intake, expired, digest)
        return EXPIRED_LOOK_MS
    return 0


def _wait_for_new(intake: Intake, expired: offers.Expired, digest: str) -> None:
    if intake.waited_for != digest:
        intake.waited_for = digest
        intake.device.log("%s: waiting for a new signature: %s" % (intake.app.name, expired))
        # A hello without this manifest makes the server sign again.
        intake.device.hello_due = True


def _refuse(intake: Intake, refusal: offers.Refusal, payload: bytes, digest: str) -> None:
    intake.refused = digest
    intake.device.log("%s: a manifest is refused: %s" % (intake.app.name, refusal.reason))
    if refusal.code == "sequence":
        # A server with a restored database learns from hello which sequence to go on from.
        intake.device.hello_due = True
    message = offers.claim(payload)
    if message["delivery"]:
        message.update({"kind": protocol.STATUS_DELIVERY, "app": intake.app.name, "state": "rejected"})
        message.update({"reason": refusal.reason[:300], "code": refusal.code, "attempt": 1})
        intake.device.keep(message)


def _accept(intake: Intake, payload: bytes, digest: str) -> None:
    app = intake.app
    manifest = _read(payload, intake.device.trusted_keys())
    _check(manifest, app)
    intake.device.storage.write_atomic(slots.manifest_name(app.name), payload)
    record = intake.device.record.fields
    keys_before = record["keys"]
    record["keys"] = manifest.get("keys") or keys_before
    try:
        _follow(intake, manifest, {"sequence": manifest["sequence"], "manifest": digest})
    except (OSError, MemoryError):
        record["keys"] = keys_before
        raise


# Two functions, so that a board has the code of one check at a time in memory.


def _read(payload: bytes, keys: list) -> dict:
    from device_agent.core.trust import read_trusted

    return read_trusted(payload, keys)


def _check(manifest: dict, app) -> None:  # type: ignore[no-untyped-def]
    from device_agent.core.offers import check

    slot = slots.other(app.state["active"])
    check(manifest, app.device, app.name, app.state, app.runtime.format, slot)
    if offers.is_shadow(manifest) and app.installed() is None:
        raise offers.Refusal("shadow", "no model is installed that a shadow could run beside")


def _follow(intake: Intake, manifest: dict, fields: dict) -> None:
    """Raises OSError, and then nothing has changed."""
    state = intake.app.state
    current, outcome, installed = state["delivery"], state["outcome"], intake.app.installed()
    if current is not None and current["id"] == manifest["delivery"]:
        intake.app.change(fields)
        intake.app.delivery.signed_again(manifest)
        return
    here = installed is not None and installed["artifact"] == manifest["artifact"]["sha256"]
    ended = outcome is not None and outcome["delivery"] == manifest["delivery"]
    # Signed again after its end: only an artifact that got lost since is worth doing again.
    if ended and (here or outcome["state"] != "succeeded" or offers.is_shadow(manifest)):
        intake.app.change(fields)
        return
    if here:
        _already_installed(intake, manifest, fields)
    else:
        _start(intake, manifest, fields)


def _already_installed(intake: Intake, manifest: dict, fields: dict) -> None:
    state = intake.app.state
    held = dict(state["slots"])
    held[state["active"]] = offers.describe(manifest)
    outcome = {"delivery": manifest["delivery"], "state": "succeeded", "reason": "already installed"}
    fields.update({"slots": held, "outcome": outcome, "delivery": None})
    intake.app.change(fields)
    intake.app.delivery.abandon(manifest)
    intake.device.keep(intake.app.delivery.status("succeeded", "already installed"))


def _start(intake: Intake, manifest: dict, fields: dict) -> None:
    state = intake.app.state
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
    intake.app.change(fields)
    intake.app.delivery.begin(manifest)
