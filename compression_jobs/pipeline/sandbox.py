"""Runs one function on hostile files in a child process with hard limits.

`python -m compression_jobs.pipeline.sandbox` is the child: it reads a request from standard input, puts
the limits on itself, and writes one JSON answer to the file descriptor named in the request.
"""

import contextlib
import ctypes
import importlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from compression_jobs.pipeline.errors import Cancelled, PipelineError, SandboxError, from_dict

KEPT_LOG_BYTES = 16 << 10
POLL_SECONDS = 0.25
PR_SET_PDEATHSIG = 1

# Settings and secrets of the server stay out of a process that runs hostile models.
INHERITED_ENVIRONMENT = (
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "LC_ALL",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
)
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Limits:
    """Ceilings for one child.

    `memory_bytes` is address space: importing torch and onnxruntime takes 0.65 GiB of it, either
    interpreter of TFLite 0.12 GiB. `output_bytes` bounds the answer, `file_bytes` each file written.
    """

    seconds: float = 120
    memory_bytes: int = 4 << 30
    output_bytes: int = 64 << 20
    file_bytes: int = 2 << 30


def run_limited(
    function: Callable[..., Any],
    *args: Any,
    limits: Limits = Limits(),
    cancelled: Callable[[], bool] | None = None,
) -> Any:
    """Call `function(*args)` in a limited child and return what it returns.

    The function is found again by its name; arguments and result are JSON or paths. A PipelineError of
    the child is raised here as it was; running out of limits, a crash or any other exception is a
    SandboxError; `cancelled()` is asked four times a second and raises Cancelled.
    """
    name = _importable_name(function)
    answer_fd, child_fd = os.pipe()
    try:
        process = _start(child_fd)
    except BaseException:
        os.close(answer_fd)
        raise
    finally:
        os.close(child_fd)
    request = {
        "function": name,
        "args": args,
        "limits": asdict(limits),
        "fd": child_fd,
        "parent": os.getpid(),
    }
    try:
        with os.fdopen(answer_fd, "rb", buffering=0) as answer:
            _send(process, json.dumps(request, default=_to_json).encode())
            received, log = _collect(process, answer, name, limits, cancelled)
            code = _wait(process, name, limits)
    finally:
        _kill(process)
    return _outcome(received, log, code, name, limits)


def _importable_name(function: Callable[..., Any]) -> str:
    name = f"{function.__module__}:{function.__qualname__}"
    if "<" in name or function.__module__ == "__main__":
        raise ValueError(f"{name} cannot be imported by name in a child process; use a function of a module")
    return name


def _start(child_fd: int) -> "subprocess.Popen[bytes]":
    environment = {name: os.environ[name] for name in INHERITED_ENVIRONMENT if name in os.environ}
    # Each thread of glibc's allocator reserves 64 MiB of address space of its own.
    environment |= ONE_THREAD | {"MALLOC_ARENA_MAX": "2"}
    environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return subprocess.Popen(
        [sys.executable, "-m", "compression_jobs.pipeline.sandbox"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[child_fd],
        env=environment,
        start_new_session=True,
    )


def _send(process: "subprocess.Popen[bytes]", request: bytes) -> None:
    assert process.stdin is not None
    # A child that died at once says why in its exit code.
    with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
        stdin.write(request)


def _collect(
    process: "subprocess.Popen[bytes]",
    answer: IO[bytes],
    name: str,
    limits: Limits,
    cancelled: Callable[[], bool] | None,
) -> tuple[bytes, bytes]:
    """Read the answer and the end of the log until both are closed, within the limits."""
    assert process.stdout is not None
    received, log = bytearray(), bytearray()
    deadline = time.monotonic() + limits.seconds
    with selectors.DefaultSelector() as selector, process.stdout as output:
        selector.register(answer, selectors.EVENT_READ, received)
        selector.register(output, selectors.EVENT_READ, log)
        while selector.get_map():
            for key, _ in selector.select(POLL_SECONDS):
                chunk = os.read(key.fd, 1 << 16)
                key.data.extend(chunk)
                if not chunk:
                    selector.unregister(key.fileobj)
            del log[:-KEPT_LOG_BYTES]
            _check_limits(received, deadline, name, limits, cancelled)
    return bytes(received), bytes(log)


def _check_limits(
    received: bytearray, deadline: float, name: str, limits: Limits, cancelled: Callable[[], bool] | None
) -> None:
    if len(received) > limits.output_bytes:
        raise SandboxError(f"{_short(name)} answered with more than {limits.output_bytes} bytes")
    if time.monotonic() > deadline:
        raise _out_of_time(name, limits)
    if cancelled is not None and cancelled():
        raise Cancelled(f"{_short(name)} was cancelled")


def _out_of_time(name: str, limits: Limits) -> SandboxError:
    return SandboxError(
        f"{_short(name)} took more than {limits.seconds:g} s", remedy="use a smaller model or fewer rows"
    )


def _wait(process: "subprocess.Popen[bytes]", name: str, limits: Limits) -> int:
    try:
        return process.wait(timeout=limits.seconds)
    except subprocess.TimeoutExpired:  # it closed both pipes and goes on
        raise _out_of_time(name, limits) from None


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End the child and whatever it started; its session is its own, so nothing else is hit."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def _outcome(received: bytes, log: bytes, code: int, name: str, limits: Limits) -> Any:
    if code != 0 or not received:
        raise _death(code, log, name, limits)
    answer = json.loads(received)
    if "error" in answer:
        error = from_dict(answer["error"])
        if "trace" in answer:
            error.add_note(answer["trace"])
        raise error
    return _from_json(answer["result"])


def _death(code: int, log: bytes, name: str, limits: Limits) -> SandboxError:
    text = log.decode(errors="replace").strip()
    memory = f"{limits.memory_bytes / (1 << 30):.3g} GiB"
    if code == -signal.SIGXCPU:
        return _out_of_time(name, limits)
    if code == -signal.SIGKILL:
        reason = "was killed, most likely because the machine ran out of memory"
    elif code < 0:
        reason = f"crashed ({signal.strsignal(-code) or f'signal {-code}'}) while it used the file"
        if "bad_alloc" in text:
            reason = f"needs more than {memory} of memory"
    else:
        reason = f"ended with exit code {code} and no answer"
    error = SandboxError(f"{_short(name)} {reason}", remedy="the file may be damaged or too large")
    error.add_note(text)
    return error


def _short(name: str) -> str:
    return name.rpartition(":")[2].lstrip("_").replace("_", " ")


def _to_json(value: Any) -> Any:
    if isinstance(value, Path):
        return {"$path": str(value.absolute())}
    if hasattr(value, "tolist"):  # NumPy arrays and scalars, without importing NumPy for a model's facts
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot cross into a limited child; pass JSON or a path")


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if isinstance(value, dict):
        if set(value) == {"$path"}:
            return Path(value["$path"])
        return {key: _from_json(item) for key, item in value.items()}
    return value


def main() -> None:
    """Serve one request as the limited child."""
    request = json.loads(sys.stdin.buffer.read())
    limits = Limits(**request["limits"])
    _die_with(request["parent"])
    _limit_self(limits)
    answer = _call(request["function"], _from_json(request["args"]), limits)
    with os.fdopen(request["fd"], "wb") as out:
        out.write(answer)
    sys.stdout.flush()
    os._exit(0)  # threads of native libraries must not hold up or change the end


def _die_with(parent: int) -> None:
    """Make sure that this process ends when `parent` does, even by kill -9."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _limit_self(limits: Limits) -> None:
    processor_seconds = int(limits.seconds) + 1
    for what, ceiling in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, processor_seconds),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        allowed = ceiling if hard == resource.RLIM_INFINITY else min(ceiling, hard)
        # macOS refuses some of these; wall time still holds there.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(what, (allowed, allowed))


def _call(name: str, args: list[Any], limits: Limits) -> bytes:
    try:
        module, _, qualified = name.partition(":")
        function: Any = importlib.import_module(module)
        for part in qualified.split("."):
            function = getattr(function, part)
        return json.dumps({"result": function(*args)}, default=_to_json).encode()
    except PipelineError as error:
        return json.dumps({"error": error.as_dict()}).encode()
    except MemoryError:
        memory = f"{limits.memory_bytes / (1 << 30):.3g} GiB"
        failure = SandboxError(
            f"{_short(name)} needs more than {memory} of memory", remedy="use a smaller file"
        )
        return json.dumps({"error": failure.as_dict()}).encode()
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
        reason = f"{_short(name)} failed: {type(error).__name__}: {error}"[:2000]
        trace = traceback.format_exc()[-8000:]
        return json.dumps({"error": SandboxError(reason).as_dict(), "trace": trace}).encode()


if __name__ == "__main__":
    main()
