"""Commands from the server: each is done once and answered."""
# mypy: disable-error-code="type-arg"

from device_agent.core import protocol
from device_agent.core.device import Device

MAX_BYTES = 4096
REMEMBERED = 16
# Long enough for the answer to leave before the agent does.
RESTART_MS = 2000


class Commands:
    """Takes command messages; `restart_ms` is when the host is to start the agent again, or None."""

    def __init__(self, device: Device, apps: dict, can_restart: bool) -> None:
        self.device = device
        self.apps = apps
        self.can_restart = can_restart
        self.restart_ms: "int | None" = None
        self.asked: dict = {}  # what a person at the device is asked, by app
        # A restart command comes again when its answer was lost; this one is over.
        self.done = [device.record.fields.get("restarted", "")]

    def take(self, payload: bytes, now_ms: int) -> None:
        """Do what one message asks for; commands done before, expired or not understood are left."""
        if len(payload) > MAX_BYTES:
            self.device.log("a command of %d bytes is ignored, %d are allowed" % (len(payload), MAX_BYTES))
            return
        try:
            command = protocol.parse_command(payload)
        except protocol.ProtocolError as error:
            self.device.log("a command is ignored: %s" % error)
            return
        utc, expires_at = self.device.clock.utc(), command.get("expires_at")
        if utc is not None and isinstance(expires_at, int) and utc > expires_at:
            return
        done, is_question = command["id"] in self.done, command["name"] == protocol.QUESTION
        if is_question and not done:
            from device_agent.core.consent import ask

            ask(self, command)
        elif not done:
            self.is_done(command["id"])
            self._do(command, now_ms)
        elif not is_question:  # what a person said lies in the spool
            self.answer(command["id"], True, "done before")

    def is_done(self, number: str) -> None:
        """Remember a command, which may come again."""
        self.done = self.done[1 - REMEMBERED :] + [number]

    def _do(self, command: dict, now_ms: int) -> None:
        number, name = command["id"], command["name"]
        if name == "selftest":
            self._selftest(command)
        elif name == "report_now":
            for app in self.apps:
                self.apps[app].rotate()
            self.answer(number, True, "reported")
        elif name == "hello":
            self.device.hello_due = True
            self.answer(number, True, "said")
        else:
            self._restart(number, now_ms)

    def _selftest(self, command: dict) -> None:
        app = command.get("app") or next(iter(self.apps))
        if not isinstance(app, str) or app not in self.apps:
            self.answer(command["id"], False, "this device has no such app")
            return
        self.apps[app].prove(command["id"])

    def _restart(self, number: str, now_ms: int) -> None:
        if not self.can_restart:
            self.answer(number, False, "the host of this agent cannot restart it")
            return
        self.device.record.fields["restarted"] = number
        try:
            self.device.save()
        except OSError as error:
            self.answer(number, False, "the state cannot be stored: %s" % error)
            return
        self.answer(number, True, "restarting")
        self.restart_ms = now_ms + RESTART_MS

    def answer(self, number: str, ok: bool, text: str) -> None:
        """Tell the server how a command ended."""
        self.device.say(
            {"kind": protocol.STATUS_ANSWER, "command": number, "ok": ok, "result": {"text": text}}
        )
