"""HTTP on loopback for applications that are no Python: POST /predict, POST /reset, POST /label, POST /consent, GET /status."""

import json
import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from device_agent.core.agent import NoModel
from device_agent.errors import AgentError
from device_agent.host import Host
from device_agent.web import LOOPBACK

BODY_MAX_BYTES = 16 << 20
MAX_CONNECTIONS = 32
PATHS = "POST /predict, POST /reset, POST /label, POST /consent, GET /status"

log = logging.getLogger("device_agent")
Answer = tuple[int, dict[str, Any]]


class RequestError(Exception):
    """The request cannot be answered: status and sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def predict(host: Host, fields: dict[str, Any]) -> Answer:
    """`{"x": [...], "app": "main"}` -> prediction id, outputs, class (null unless the model classifies)."""
    if "x" not in fields:
        raise RequestError(400, "x is missing: the input as a (nested) list of numbers")
    try:
        prediction, outputs, kind = host.classify(fields["x"], _text(fields, "app"))
    except NoModel as error:
        raise RequestError(503, str(error)) from error
    lists = [output.tolist() if hasattr(output, "tolist") else list(output) for output in outputs]
    return 200, {"prediction": prediction, "outputs": lists, "class": kind}


def reset(host: Host, fields: dict[str, Any]) -> Answer:
    """`{"app": "main"}`: a new stream begins for a model that keeps a state between predictions."""
    host.reset(_text(fields, "app"))
    return 200, {"reset": True}


def label(host: Host, fields: dict[str, Any]) -> Answer:
    """`{"prediction": id, "y": truth}`."""
    if "prediction" not in fields or "y" not in fields:
        raise RequestError(
            400, "prediction and y are needed: the id that /predict answered with, and the truth"
        )
    if not host.label(fields["prediction"], fields["y"]):
        sentence = (
            f"prediction {fields['prediction']} is unknown, too old, labelled already, or of a replaced model"
        )
        raise RequestError(404, sentence[:200])
    return 200, {"labelled": fields["prediction"]}


def consent(host: Host, fields: dict[str, Any]) -> Answer:
    """`{"answer": "now" | "tonight" | "no", "app": "main"}`, to what `asks` of /status shows."""
    if not host.consent(_text(fields, "answer"), _text(fields, "app")):
        raise RequestError(404, "nothing waits for consent")
    return 200, {"consent": fields["answer"]}


def status(host: Host, fields: dict[str, Any]) -> Answer:
    """What is installed, what is going on, and the counters."""
    return 200, host.status()


ROUTES: dict[tuple[str, str], Callable[[Host, dict[str, Any]], Answer]] = {
    ("POST", "/predict"): predict,
    ("POST", "/reset"): reset,
    ("POST", "/label"): label,
    ("POST", "/consent"): consent,
    ("GET", "/status"): status,
}


class Handler(BaseHTTPRequestHandler):
    """One request, one answer in JSON, then the connection closes."""

    server: "Server"
    server_version = "tinyfleet-agent"
    timeout = 20

    def do_GET(self) -> None:
        """Answer a GET."""
        self._answer("GET")

    def do_POST(self) -> None:
        """Answer a POST."""
        self._answer("POST")

    def _answer(self, method: str) -> None:
        try:
            code, fields = self._call(method)
        except RequestError as error:
            code, fields = error.status, {"error": str(error)}
        except (ValueError, TypeError, OverflowError) as error:
            code, fields = 400, {"error": str(error)}
        except Exception as error:  # noqa: BLE001  whatever a runtime raises is this request's failure, not the agent's
            code, fields = 500, {"error": f"the model failed: {error}"}
        try:
            self._send(code, json.dumps(fields, allow_nan=False).encode())
        except ValueError:
            self._send(500, b'{"error": "the model answered with something that is no number"}')

    def _call(self, method: str) -> Answer:
        self._refuse_web_pages()
        path = urlsplit(self.path).path
        if (method, path) not in ROUTES:
            known = any(path == route for _, route in ROUTES)
            raise RequestError(
                405 if known else 404, f"{method} {path[:80]} is not there; this agent has {PATHS}"
            )
        fields = self._fields() if method == "POST" else {}
        return ROUTES[method, path](self.server.host, fields)

    def _refuse_web_pages(self) -> None:
        """A page in a browser on this device must not talk to the agent, not even under a rebound name."""
        name = urlsplit(f"//{self.headers.get('Host', 'localhost')}").hostname
        if name not in LOOPBACK or self.headers.get("Origin"):
            raise RequestError(403, "the agent answers programs on this device only")

    def _fields(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise RequestError(411, "Content-Length is missing")
        if len(length) > 12 or int(length) > BODY_MAX_BYTES:
            raise RequestError(413, f"the body has {length[:20]} bytes, {BODY_MAX_BYTES} are allowed")
        try:
            fields = json.loads(self.rfile.read(int(length)), parse_constant=_no_number)
        except TimeoutError as error:
            raise RequestError(408, f"the body did not come within {self.timeout} s") from error
        except (ValueError, RecursionError) as error:
            raise RequestError(400, f"the body is not JSON: {str(error)[:200]}") from error
        if not isinstance(fields, dict):
            raise RequestError(400, "the body is no JSON object")
        return fields

    def _send(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are the application's business; they stay out of the agent's log."""
        log.debug(format, *args)


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise RequestError(400, f"{name} is no text")
    return value


class Server(ThreadingHTTPServer):
    """Listens on 127.0.0.1 only, for a bounded number of connections at a time."""

    daemon_threads = True

    def __init__(self, host: Host, port: int) -> None:
        self.host = host
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except OSError as error:
            reason = error.strerror or error
            raise AgentError(f"port {port} of 127.0.0.1: {reason}; choose another with --http") from error

    def process_request(self, request: Any, client_address: Any) -> None:
        """Wait for a place, then answer in a thread."""
        self._places.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, then free the place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""
        log.debug("a connection of an application broke", exc_info=True)


def serve(host: Host, port: int) -> Server:
    """Start answering in a thread; raises AgentError when the port is taken."""
    server = Server(host, port)
    threading.Thread(target=server.serve_forever, args=(0.1,), name="device-agent-http", daemon=True).start()
    return server
