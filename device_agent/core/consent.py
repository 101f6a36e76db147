"""Consent of a person at the device: what the server asks, and what the person says; a board loads this for each only."""
# mypy: disable-error-code="type-arg"

from device_agent.core import protocol
from device_agent.core.commands import Commands, answer, remember

ANSWERS = ("now", "tonight", "no")


def ask(commands: Commands, command: dict) -> None:
    """Keep a question until somebody answers; one that names no delivery takes the one before back."""
    app, args = command.get("app"), command.get("args")
    if not isinstance(app, str) or app not in commands.apps or not isinstance(args, dict):
        answer(commands, command["id"], False, "this device has no such app")
    elif not args.get("delivery"):
        commands.asked.pop(app, None)
        answer(commands, command["id"], True, "taken back")
    else:
        question = {name: args.get(name) for name in ("model", "version", "bytes")}
        question["command"] = command["id"]
        commands.asked[app] = question
        named = (app, question["model"], question["version"])
        commands.device.log("%s: %s version %s waits for consent: now, tonight or no" % named)


def say(commands: Commands, app: str, said: object) -> bool:
    """Tell the server what a person said; False when nothing waits for consent, ValueError for anything else."""
    if said not in ANSWERS:
        raise ValueError("the answer is one of " + ", ".join(ANSWERS))
    question = commands.asked.pop(app, None)
    if question is None:
        return False
    remember(commands, question["command"])
    # Spooled, because the question may come again before the answer arrives.
    result = {"consent": said}
    commands.device.keep(
        {"kind": protocol.STATUS_ANSWER, "command": question["command"], "ok": True, "result": result}
    )
    return True
