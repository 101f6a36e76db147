"""`python -m device_agent`: enrol a device, and run its agent."""

import argparse
import logging
import os
import signal
import sys
import time
from pathlib import Path

from device_agent import config
from device_agent.enrolment import enrol
from device_agent.errors import AgentError

log = logging.getLogger("device_agent")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 after a clean end, 2 when it cannot be done as asked."""
    options = _parser().parse_args(arguments)
    _log_to_stderr()
    try:
        if options.command == "enrol":
            return _enrol(options)
        return _run(options)
    except AgentError as error:
        log.error("%s", error)
        return 2


def _enrol(options: argparse.Namespace) -> int:
    device = enrol(options.server, options.token, options.device, _credentials(options))
    log.info(
        "%s is enrolled as %s; its file is %s",
        device["device"],
        device["target"],
        config.provision_file(_credentials(options)),
    )
    return 0


def _run(options: argparse.Namespace) -> int:
    if options.token and not config.provision_file(_credentials(options)).exists():
        if not options.server or not options.device:
            raise AgentError("--token needs --server and --device, too")
        _enrol(options)
    # Only now: enrolment needs no runtime, and importing one takes a second on a small board.
    from device_agent import host as hosts
    from device_agent import http

    host = hosts.open_host(options.state, _credentials(options), options.ask)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: host.stop())
    server = http.serve(host, options.http) if options.http is not None else None
    if server:
        log.info("answering applications on http://127.0.0.1:%d", server.server_address[1])
    try:
        host.run()
    except Exception:
        log.exception("the agent broke; start it again, it goes on where it was")
        return 1
    finally:
        if server:
            server.shutdown()
            server.server_close()
    if host.restart_asked:
        log.info("starting again")
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    log.info("stopped")
    return 0


def _credentials(options: argparse.Namespace) -> Path:
    folder: Path = options.credentials or options.state
    return folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m device_agent", description="The Tinyfleet agent of one device."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    enrolment = commands.add_parser("enrol", help="turn a one-time token into this device's credentials")
    _add_enrolment(enrolment, needed=True)
    run = commands.add_parser(
        "run", help="keep the device connected, install what it is told, answer applications"
    )
    _add_enrolment(run, needed=False)
    run.add_argument(
        "--http", type=_port, metavar="PORT", help="answer applications on this port of 127.0.0.1; 0: any"
    )
    run.add_argument(
        "--ask", action="store_true", help="a person here says when something is installed (POST /consent)"
    )
    return parser


def _add_enrolment(parser: argparse.ArgumentParser, needed: bool) -> None:
    when = "" if needed else " (enrols first when the state folder is not enrolled yet)"
    parser.add_argument(
        "--state", type=Path, required=True, help="folder that keeps credentials, models and reports"
    )
    parser.add_argument(
        "--credentials",
        type=Path,
        metavar="DIR",
        help="folder of provision.json, when the state folder may be lost",
    )
    parser.add_argument("--server", required=needed, metavar="URL", help="address of the Tinyfleet server")
    parser.add_argument("--token", required=needed, help=f"enrolment token{when}")
    parser.add_argument("--device", required=needed, metavar="NAME", help="the device's name")


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is no port (0 to 65535)")


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


if __name__ == "__main__":
    sys.exit(main())
