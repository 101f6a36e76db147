"""`tinyfleet up`: the embedded stack on this machine, until Ctrl-C."""

import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.text import Text

from fleet.cli.output import console
from fleet.cli.ports import Ports, recalled
from fleet.cli.stack import ANYWHERE, DEMO_NEEDS, GIVEN_SERVICES, Reach, Stack, check_installed
from fleet.cli.supervisor import StartError

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

VarOption = Annotated[
    Path, typer.Option("--var", envvar="TINYFLEET_VAR", help="Folder that keeps everything.")
]
PortOption = Annotated[int, typer.Option("--port", help="Port of the pages and the API; 0 for any free one.")]
MqttPortOption = Annotated[
    int, typer.Option("--mqtt-port", help="Port of the MQTT broker; 0 for any free one.")
]


def up(
    var: VarOption = Path("var"),
    port: PortOption = 8000,
    mqtt_port: MqttPortOption = 1883,
    redis_port: Annotated[
        int, typer.Option(help="Port of Valkey, on loopback only; 0 for any free one.")
    ] = 0,
    listen: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets others in.")] = "127.0.0.1",
    public_url: Annotated[
        str, typer.Option(help="Where others reach it, when not at the address it listens on.")
    ] = "",
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate for web and MQTT.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Key of the certificate.")] = None,
) -> None:
    """Start the whole stack on this machine, and watch it until Ctrl-C."""
    reach = Reach(listen, _public(listen, public_url, port), _certificate(tls_cert, tls_key))
    given = {name: os.environ[name] for name in GIVEN_SERVICES if os.environ.get(name)}
    stack = Stack(var, Ports(port, mqtt_port, redis_port), reach, env=given, say=say)
    serve(stack)


def demo(
    var: VarOption = Path("var"),
    port: Annotated[
        int | None,
        typer.Option(
            help="Port of the pages; else that of the last start, 8000, or with --once any free one."
        ),
    ] = None,
    mqtt_port: Annotated[
        int | None,
        typer.Option(
            help="Port of the broker; else that of the last start, 1883, or with --once any free one."
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Write demo.json, stop everything, and exit 0 if all was right.")
    ] = False,
) -> None:
    """Start the stack and play the whole story on it: train, compress, roll out, watch, take back."""
    check_installed(DEMO_NEEDS)
    from fleet.cli.demo.command import demo as play

    last = recalled(var)
    web, broker = (0, 0) if once else (last.web or 8000, last.mqtt or 1883)
    chosen = Ports(web if port is None else port, broker if mqtt_port is None else mqtt_port)
    for number in STOPS:
        signal.signal(number, _interrupt)
    say(f"starting in {var.absolute()}")
    with Stack(var, chosen, say=say) as stack:
        code = play(stack, console, once)
    raise typer.Exit(code)


def serve(stack: Stack) -> None:
    """Start a stack, say where it is, and return when a signal has stopped it."""
    stopping = threading.Event()
    _stop_on_signals(stack, stopping)
    say(f"starting in {stack.var}")
    try:
        stack.start()
    except KeyboardInterrupt:
        say("stopped before it was ready")
        return
    greet(stack)
    say("Ctrl-C stops everything.")
    while not stopping.wait(1.0):
        pass
    say("stopping")
    stack.stop()
    say("stopped")


def greet(stack: Stack) -> None:
    """Say where the pages are and how to log in."""
    say(f"pages  {stack.public_url}")
    say(f"log-in {stack.first_words or 'user admin; the password is in ' + str(stack.var / 'admin.json')}")
    say(f"MQTT   {stack.env['MQTT_URL'].rpartition('@')[2].rpartition('//')[2]}")
    say(f"logs   {stack.supervisor.logs}")
    if stack.reach.listen != "127.0.0.1" and stack.reach.tls is None:
        say("passwords cross the network unencrypted: give --tls-cert and --tls-key")


def say(line: str) -> None:
    """One line on the console, never read as markup."""
    console.print(Text(line), soft_wrap=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _stop_on_signals(stack: Stack, stopping: threading.Event) -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        if stopping.is_set():
            # Asked twice: no child is waited for any longer.
            stack.supervisor.kill_all()
            return
        stopping.set()
        if not stack.ready:
            raise KeyboardInterrupt

    for number in STOPS:
        signal.signal(number, stop)


def _certificate(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise StartError("--tls-cert and --tls-key belong together; give both")
    for file in (certificate, key):
        if not os.access(file, os.R_OK):
            raise StartError(f"{file} cannot be read; name the certificate and key as PEM files")
    return certificate.absolute(), key.absolute()


def _public(listen: str, public_url: str, port: int) -> str:
    if public_url or listen not in ANYWHERE:
        return public_url
    raise StartError(
        f"others reach this machine under a name that --listen {listen} does not tell; "
        f"add --public-url http://NAME:{port}"
    )
