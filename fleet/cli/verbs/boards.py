"""`tinyfleet device bundle`: a folder or zip with everything a board needs, for mpremote."""

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from fleet.cli.output import console
from fleet.cli.server import find

boards = typer.Typer(no_args_is_help=True, help="Microcontrollers that run MicroPython.")

MAIN = "from device_agent.board_host import main\n\nmain()\n"
INSTRUCTIONS = """\
{device}: the Tinyfleet agent for {target}

1. The board runs MicroPython 1.24 or newer (https://micropython.org/download). Nothing is built; stock firmware does.
2. tinyfleet/wifi.json holds the network's name and password: {wifi}
3. Connect the board by USB, and in this folder run

       pip install mpremote
       mpremote mip install ntptime
       mpremote cp -r device_agent tinyfleet main.py :
       mpremote reset

   mpremote without arguments shows what the agent says; Ctrl-] leaves it.
4. The device appears in the dashboard as {device}.{broker}

An application is a file app.py beside main.py on the board:

       def work(agent, now_ms):
           prediction, outputs = agent.predict(read_sensor())
           return 1000  # milliseconds until the next call

tinyfleet/provision.json holds this device's credentials: treat the folder like a password. Names in a traceback are
short; names.json says what they stood for.
"""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@boards.command("bundle")
def bundle(
    target: Annotated[str, typer.Argument(help="esp32, esp32-s3 or rp2040")],
    device: Annotated[str, typer.Option(help="The device's name; it is enrolled under it.")],
    out: Annotated[Path | None, typer.Option(help="A new folder, or a file that ends with .zip.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="A group to join; give it once for each.")] = None,
    ssid: Annotated[str, typer.Option(help="The Wi-Fi network's name.")] = "",
    password: Annotated[str, typer.Option(help="The Wi-Fi network's password.")] = "",
    country: Annotated[str, typer.Option(help="Two letters; some radios need them.")] = "",
) -> None:
    """Enrol one device and write agent, provisioning file and instructions, ready to copy to a board."""
    from device_agent.compiled import ARCHITECTURES, compile_agent
    from device_agent.errors import AgentError

    if target not in ARCHITECTURES or target == "unix":
        able = ", ".join(sorted(set(ARCHITECTURES) - {"unix"}))
        raise typer.BadParameter(
            f"{target} has no agent for MicroPython; these do: {able}", param_hint="target"
        )
    made = out or Path(f"{device}-{target}")
    folder = made.with_suffix("") if made.suffix == ".zip" else made
    if made.exists() or folder.exists():
        raise typer.BadParameter(f"{made} exists already: choose another --out", param_hint="--out")
    draft = folder.with_name(folder.name + ".new")
    try:
        compile_agent(draft, target)
        provisioning = _enrol(draft, target, device, group or [])
        write_files(draft, target, provisioning, {"ssid": ssid, "password": password, "country": country})
        draft.rename(folder)
    except AgentError as error:
        raise typer.BadParameter(str(error)) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    if made.suffix == ".zip":
        shutil.make_archive(str(folder), "zip", folder)
        shutil.rmtree(folder)
    console.print(f"{made} is ready; README.txt in it says how to copy it to the board")


def _enrol(folder: Path, target: str, device: str, groups: list[str]) -> dict[str, object]:
    from device_agent.enrolment import enrol
    from fleet.cli.server import client

    body = {"target": target, "groups": groups, "labels": {}, "uses": 1}
    token: str = client().post("/enrolment-tokens", body)["token"]
    return enrol(find().url, token, device, folder / "tinyfleet")


def write_files(folder: Path, target: str, provisioning: dict[str, object], wifi: dict[str, str]) -> None:
    """What lies beside the agent and its provisioning file: main.py, the Wi-Fi's settings and README.txt."""
    (folder / "main.py").write_text(MAIN)
    (folder / "tinyfleet" / "wifi.json").write_text(json.dumps(wifi, indent=1) + "\n")
    broker = provisioning["broker"]
    host = broker["host"] if isinstance(broker, dict) else ""
    words = {
        "device": provisioning["device"],
        "target": target,
        "wifi": "filled in" if wifi["ssid"] else "FILL IT IN",
        "broker": f" Its broker is {host}:"
        " a board cannot reach that. Start the server with an address of your network and make the bundle again."
        if host in LOOPBACK
        else "",
    }
    (folder / "README.txt").write_text(INSTRUCTIONS.format(**words))
