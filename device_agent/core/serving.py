"""A loaded model that answers requests, and the metrics window it fills."""
# mypy: disable-error-code="type-arg"

from device_agent.core import answers, ports
from device_agent.core.device import heap_free
from device_agent.core.metrics import Window

# Scores of more classes are not looked at one by one: that would cost more than the inference itself on a board.
MAX_SCORES = 4096


class Answer:
    """What the ring keeps of one prediction until its label comes."""

    def __init__(self, serving: "Serving", kind: "int | None", values: "list | tuple", scores: int) -> None:
        self.serving = serving
        self.kind = kind
        self.values = values
        self.scores = scores
        self.shadow: "Answer | None" = None  # what a model in the shadow said to the same input


class Serving:
    """One model in use: slot, artifact, runtime; `phase` is trial or live."""

    def __init__(
        self, app: str, runtime: ports.Runtime, slot: str, artifact: str, spec: dict, phase: str
    ) -> None:
        self.app = app
        self.runtime = runtime
        self.slot = slot
        self.artifact = artifact
        self.phase = phase
        self.task = spec.get("task", answers.CLASSIFICATION)
        names = spec.get("classes") or []
        self.names = [str(name) for name in names] if isinstance(names, list) else []
        self.window: "Window | None" = None

    def open_window(self, now_ms: int) -> Window:
        """The window being filled; a new one begins when there is none."""
        if self.window is None:
            self.window = Window(self.app, self.artifact, self.slot, self.phase, now_ms)
        return self.window

    def take_window(self) -> "Window | None":
        """End the window being filled and return it."""
        window, self.window = self.window, None
        return window

    def predict(self, x: object, clock: ports.Clock) -> "tuple[list, int, Answer]":
        """(outputs, latency in microseconds, what to remember); raises InputError, or what counts as an error of the model."""
        window = self.open_window(clock.ticks_ms())
        try:
            started = clock.ticks_us()
            outputs = self.runtime.run(x)
            latency_us = clock.ticks_us() - started
            answer = self._read(outputs, window)
        except ports.InputError:
            raise
        except Exception:
            window.failed()
            raise
        window.ran(latency_us, heap_free())
        return outputs, latency_us, answer

    def _read(self, outputs: list, window: Window) -> Answer:
        if self.task == answers.CLASSIFICATION and len(outputs[0]) <= MAX_SCORES:
            scores = answers.flat(outputs[0])
            kind, confidence = answers.top_class(scores)
            window.answered(self.name_of(kind), confidence)
            return Answer(self, kind, (), len(scores))
        values = answers.flat(outputs[0]) if self.task == answers.REGRESSION else ()
        return Answer(self, None, values, 0)

    def name_of(self, kind: int) -> str:
        """What the model calls a class."""
        return self.names[kind] if kind < len(self.names) else str(kind)

    def judge(self, answer: Answer, y: object, now_ms: int) -> "bool | None":
        """Whether the answer was right (None: not a question of right or wrong); raises ValueError for an odd `y`."""
        if answer.kind is not None:
            correct = answers.true_class(y, self.names, answer.scores) == answer.kind
            self.open_window(now_ms).judged(correct)
            return correct
        if answer.values:
            abs_err, sq_err = answers.errors(y, answer.values)
            self.open_window(now_ms).compared(abs_err, sq_err)
        return None
