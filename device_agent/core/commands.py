"""Commands from the server: each is done once and answered. A board loads `obey` for each."""
# mypy: disable-error-code="type-arg"

from device_agent.core import protocol
from device_agent.core.device import Device

MAX_BYTES = 4096
REMEMBERED = 16


class Commands:
    """What was done before."""

    def __init__(self, device: Device, apps: dict) -> None:
        self.device = device
        self.apps = apps
        self.asked: dict = {}  # what a person at the device is asked, by app
        # A restart command comes again when its answer was lost; this one is over.
        self.done = [device.record.fields.get("restarted", "")]


def obey(commands: Commands, payload: bytes, now_ms: int) -> None:
    """Do what one message asks for; commands done before, expired or not understood are left."""
    if len(payload) > MAX_BYTES:
        commands.device.log("a command of %d bytes is ignored, %d are allowed" % (len(payload), MAX_BYTES))
        return
    try:
        command = protocol.parse_command(payload)
    except protocol.ProtocolError as error:
        commands.device.log("a command is ignored: %s" % error)
        return
    utc, expires_at = commands.device.clock.utc(), command.get("expires_at")
    if utc is not None and isinstance(expires_at, int) and utc > expires_at:
        return
    done, is_question = command["id"] in commands.done, command["name"] == protocol.QUESTION
    if is_question and not done:
        _ask(commands, command)
    elif not done:
        remember(commands, command["id"])
        _do(commands, command, now_ms)
    elif not is_question:  # what a person said lies in the spool
        answer(commands, command["id"], True, "done before")


def remember(commands: Commands, number: str) -> None:
    """Remember a command, which may come again."""
    commands.done = commands.done[1 - REMEMBERED :] + [number]


def _ask(commands: Commands, command: dict) -> None:
    from device_agent.core.consent import ask

    ask(commands, command)


def _do(commands: Commands, command: dict, now_ms: int) -> None:
    number, name = command["id"], command["name"]
    if name == "selftest":
        _selftest(commands, command)
    elif name == "report_now":
        for app in commands.apps:
            commands.apps[app].rotate()
        answer(commands, number, True, "reported")
    elif name == "hello":
        commands.device.hello_due = True
        answer(commands, number, True, "said")
    else:
        _restart(commands, number, now_ms)


def _selftest(commands: Commands, command: dict) -> None:
    app = command.get("app") or next(iter(commands.apps))
    if not isinstance(app, str) or app not in commands.apps:
        answer(commands, command["id"], False, "this device has no such app")
        return
    commands.apps[app].prove(command["id"])


def _restart(commands: Commands, number: str, now_ms: int) -> None:
    if not commands.device.can_restart:
        answer(commands, number, False, "the host of this agent cannot restart it")
        return
    commands.device.record.fields["restarted"] = number
    try:
        commands.device.save()
    except (OSError, MemoryError) as error:
        answer(commands, number, False, "the state cannot be stored: %s" % error)
        return
    answer(commands, number, True, "restarting")
    commands.device.restart_soon(now_ms)


def answer(commands: Commands, number: str, ok: bool, text: str) -> None:
    """Tell the server how a command ended."""
    commands.device.say(
        {"kind": protocol.STATUS_ANSWER, "command": number, "ok": ok, "result": {"text": text}}
    )
