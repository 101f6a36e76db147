"""What a board runs after power-up: `main.py` on its file system says `from device_agent.main import main; main()`.

Beside it lie `provision.json` and `wifi.json` in the folder `tinyfleet`, and, if there is one, the application: a module
`app` with a function `work(agent, now_ms)` that does one small thing and returns the milliseconds until the next.
"""

import gc
import json
import os
import sys
import time

from device_agent import boards
from device_agent.board_host import open_agent, run
from device_agent.provisioning import NotProvisioned
from device_agent.runtimes.plan.runtime import PlanRuntime

FOLDER = "tinyfleet"
RESTART_S = 10


def main(folder: str = FOLDER) -> None:
    """Network, clock, agent, application; whatever breaks is printed, and the chip starts again."""
    try:
        _run(os.getcwd().rstrip("/") + "/" + folder)  # the application may go elsewhere
    except NotProvisioned as error:
        print(error)
    except Exception as error:  # noqa: BLE001  nobody stands beside a device in the field
        sys.print_exception(error)  # type: ignore[attr-defined]
    print("starting again in %d s; Ctrl-C keeps the prompt" % RESTART_S)
    time.sleep(RESTART_S)
    boards.reset()


def _run(folder: str) -> None:
    network = boards.Network(_wifi(folder + "/wifi.json"))
    network.step(0)
    work = _application()  # type: ignore[no-untyped-call]
    agent = open_agent(folder, PlanRuntime(), restart=boards.reset)
    gc.collect()
    print("agent of", agent.device.name, "runs;", gc.mem_free(), "bytes of heap free")  # type: ignore[attr-defined]

    def going() -> bool:
        network.step(agent.clock.ticks_ms())
        return True

    run(agent, work, going)


def _wifi(path: str) -> dict:  # type: ignore[type-arg]
    try:
        with open(path) as file:
            settings = json.load(file)
        settings.get("ssid")
    except (OSError, ValueError, AttributeError) as error:
        raise NotProvisioned("%s cannot be read (%s): copy the bundle's folder tinyfleet" % (path, error))
    return settings  # type: ignore[no-any-return]


def _application():  # type: ignore[no-untyped-def]
    try:
        import app  # type: ignore[import-not-found]
    except ImportError:
        return None
    return app.work
