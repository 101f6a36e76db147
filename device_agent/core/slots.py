"""The two slots of one app: which files they are and what runs from them."""
# mypy: disable-error-code="type-arg"

import json

from device_agent.core import ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_agent.core.selftest import SelfTest

MODEL = "model"
SELF_TEST = "selftest"
SPEC = "spec"
SPEC_MAX_BYTES = 65536


def file_name(app: str, slot: str, part: str) -> str:
    """Name of one file of a slot."""
    return app + "." + slot + "." + part


def manifest_name(app: str) -> str:
    """The file that keeps the manifest being followed."""
    return app + ".manifest"


def other(slot: "str | None") -> str:
    """The slot that is idle while `slot` is in use."""
    return "b" if slot == "a" else "a"


def read_spec(storage: ports.Storage, app: str, slot: str) -> dict:
    """The signature_spec of what is in the slot; raises ValueError when it is no JSON object."""
    data = storage.read(file_name(app, slot, SPEC))
    try:
        spec = json.loads((data or b"").decode())
    except RuntimeError:  # nested too deeply
        raise ValueError("the signature spec is nested too deeply")
    if not isinstance(spec, dict):
        raise ValueError("the signature spec is no JSON object")
    return spec


def inputs_differ(storage: ports.Storage, app: str, slot: str, known: str) -> bool:
    """Whether the model of a slot wants inputs of other shapes than that of the slot that applications know."""
    try:
        wanted, had = [
            [one["shape"] for one in read_spec(storage, app, name)["inputs"]] for name in (slot, known)
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return False  # a specification that names no inputs accuses nobody
    return wanted != had


def load(storage: ports.Storage, runtime: ports.Runtime, app: str, slot: str) -> dict:
    """Load the model of a slot into `runtime` and return its spec; raises whatever goes wrong."""
    spec = read_spec(storage, app, slot)
    runtime.load(storage.path(file_name(app, slot, MODEL)), spec)
    return spec


class TooSlow(Exception):
    """The model is right, but misses its deadline."""


class Proof:
    """The self-test of a slot, one sample a step, in time when there is a deadline."""

    def __init__(
        self,
        storage: ports.Storage,
        clock: ports.Clock,
        runtime: ports.Runtime,
        app: str,
        slot: str,
        deadline_us: int,
    ) -> None:
        self.clock = clock
        self.runtime = runtime
        self.deadline_us = deadline_us
        self.late = 0
        self.samples = 0
        self.file = storage.open_read(file_name(app, slot, SELF_TEST))
        self.test: "SelfTest | None" = None

    def step(self) -> bool:
        """Run one sample; True while others are left. Raises whatever says that the model is not to be trusted."""
        if self.test is None:
            from device_agent.core.selftest import SelfTest

            self.test = SelfTest(self.file)
            return True
        started = self.clock.ticks_us()
        more = self.test.run_next(self.runtime)
        self.samples += 1
        if self.deadline_us and self.clock.ticks_us() - started > self.deadline_us * self.test.header.runs:
            self.late += 1
        if not more and self.late > self.samples // 2:
            text = "%d of %d self-test samples took longer than %d us"
            raise TooSlow(text % (self.late, self.samples, self.deadline_us))
        return more

    def close(self) -> None:
        """Close the file."""
        self.file.close()
