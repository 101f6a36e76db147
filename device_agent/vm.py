"""`micropython -m device_agent.vm --state DIR`: the agent of a board, in MicroPython's Unix port.

`--rows FILE` plays an application in the same process: each line of the file is `{"x": input, "y": truth}`, the input as
numbers or as a hexadecimal text of raw bytes; all are predicted at `--rate` a second, for ever, and every second one is
labelled.
"""

import json
import sys

from device_agent.board_host import open_agent, run
from device_agent.core.agent import NoModel
from device_agent.provisioning import NotProvisioned
from device_agent.runtimes.plan.runtime import PlanRuntime

USAGE = "usage: micropython -m device_agent.vm --state DIR [--rows FILE] [--rate N]"
RATE = 10
NO_MODEL_WAIT_MS = 500
LABEL_EVERY = 2


class Workload:
    """Goes round a file of rows, one in memory at a time."""

    def __init__(self, path: str, rate: int) -> None:
        self.path = path
        self.pause_ms = 1000 // rate
        self.file = open(path)
        self.count = 0

    def __call__(self, agent, now_ms: int) -> int:  # type: ignore[no-untyped-def]
        """Predict one row; milliseconds until the next."""
        line = self.file.readline()
        if not line:
            self.file.close()
            self.file = open(self.path)
            return 0 if self.count else NO_MODEL_WAIT_MS
        row = json.loads(line)
        x = row["x"]
        try:
            prediction, _ = agent.predict(bytes.fromhex(x) if isinstance(x, str) else x)
        except NoModel:
            return NO_MODEL_WAIT_MS
        self.count += 1
        if self.count % LABEL_EVERY == 0:
            agent.label(prediction, row["y"])
        return self.pause_ms


def options_of(arguments: "list[str]") -> "dict[str, str]":
    """`--name value` pairs; raises ValueError with the usage."""
    options = {"--rate": str(RATE), "--rows": ""}
    names, values = arguments[::2], arguments[1::2]
    known = all(name in ("--state", "--rows", "--rate") for name in names)
    if len(names) != len(values) or "--state" not in names or not known:
        raise ValueError(USAGE)
    for i in range(len(names)):
        options[names[i]] = values[i]
    if not 0 < int(options["--rate"]) <= 1000:
        raise ValueError("--rate is 1 to 1000")
    return options


def main(arguments: "list[str]") -> int:
    """Run until the process is ended; 2 when it cannot start, 3 when it is to be started again."""
    asked: list[bool] = []
    try:
        options = options_of(arguments)
        work = Workload(options["--rows"], int(options["--rate"])) if options["--rows"] else None
        agent = open_agent(options["--state"], PlanRuntime(), restart=lambda: asked.append(True))
    except (NotProvisioned, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        run(agent, work, lambda: not asked)
    except KeyboardInterrupt:
        agent.close()
        return 0
    return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
