"""What a delivery does when the heap is exhausted: first without the model that serves, then in a fresh heap.

A heap in pieces may have no hole for a buffer although enough of it is free; only a new start mends that.
"""

AFRESH_MS = 60000
NO_ANSWERS = "the heap has no room beside the model that serves: no answers until the new one is here"
AFRESH = "the heap is in pieces: the agent starts again, and installs before it serves"


def made(delivery, now_ms: int) -> bool:  # type: ignore[no-untyped-def]
    """Make room for the attempt under way; False when all was tried."""
    if delivery.aside or delivery.app.serving is None:
        return _starts_afresh(delivery, now_ms)
    delivery.begin_again()
    delivery.app.stop_serving()
    delivery.aside = True
    delivery.aside_ms = now_ms
    _say(delivery, NO_ANSWERS)
    return True


def _starts_afresh(delivery, now_ms: int) -> bool:  # type: ignore[no-untyped-def]
    """Once an attempt, and where the host can do that."""
    device, state = delivery.device, delivery.app.state["delivery"]
    if not device.can_restart or state.get("afresh") == state["attempt"]:
        return False
    if delivery.install is not None:
        delivery.install.close()
        delivery.install = None
    try:
        delivery.change_state({"afresh": state["attempt"], "state": "downloading", "boots": 0})
    except (OSError, MemoryError):
        return False
    _say(delivery, AFRESH)
    device.restart_soon(now_ms)
    delivery.retry_at(now_ms + AFRESH_MS)  # should the host not do it
    return True


def keep_clear(delivery) -> None:  # type: ignore[no-untyped-def]
    """After a start: what was begun afresh goes on before the model that serves is loaded."""
    state = delivery.app.state["delivery"]
    delivery.aside = state.get("afresh") == state["attempt"]
    # As long as it may take to come online again.
    delivery.aside_ms = delivery.device.clock.ticks_ms() + AFRESH_MS


def in_vain(delivery, now_ms: int) -> bool:  # type: ignore[no-untyped-def]
    """Whether there is no connection that the model that serves would make room for."""
    return not delivery.device.online and now_ms >= delivery.aside_ms


def _say(delivery, text: str) -> None:  # type: ignore[no-untyped-def]
    try:
        delivery.log(text)
        delivery.device.say(delivery.status("downloading", text))
    except MemoryError:
        pass  # what was said is being done
