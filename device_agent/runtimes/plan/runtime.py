"""Plans as a runtime of the agent: the kernels under MicroPython, the NumPy twin under CPython."""

import sys

from device_agent.core import ports

if sys.implementation.name == "micropython":
    from device_agent.runtimes.plan.interpreter import Plan
else:
    from device_agent.runtimes.plan.twin import Plan  # type: ignore[assignment]


class PlanRuntime(ports.Runtime):
    """One plan; real numbers become int8 at its inputs and numbers again at its outputs."""

    name = "micropython"
    format = "plan"

    def __init__(self) -> None:
        self._plan = Plan()
        self._inputs = self._outputs = []  # type: ignore[var-annotated]
        self._evens: "tuple | None" = None  # type: ignore[type-arg]

    def fresh(self) -> "PlanRuntime":
        """Another empty runtime of this kind."""
        return PlanRuntime()

    def load(self, path: str, signature: dict) -> None:  # type: ignore[type-arg]
        """Load a plan; raises ValueError when it is none, or not what the signature says."""
        self.unload()
        self._plan.load(path)
        try:
            _check_signature(self._plan.inputs, signature.get("inputs"), "input")
            _check_signature(self._plan.outputs, signature.get("outputs"), "output")
            self._evens = _normalisation(signature.get("normalisation"), signature.get("inputs"))
        except ValueError:
            self.unload()
            raise
        self._inputs = [bytearray(edge[1]) for edge in self._plan.inputs]
        self._outputs = [bytearray(edge[1]) for edge in self._plan.outputs]

    def unload(self) -> None:
        """Free the model."""
        self._plan.unload()
        self._inputs = self._outputs = []

    def reset(self) -> None:
        """Forget what earlier runs have left."""
        self._plan.reset()

    def run(self, x: object) -> list:  # type: ignore[type-arg]
        """Flat real numbers of each output; int8 bytes are taken as they are, numbers are quantised."""
        parts = [x] if len(self._inputs) == 1 else x
        if not isinstance(parts, (list, tuple)) or len(parts) != len(self._inputs):
            raise ports.InputError(
                "the model takes %d inputs: give a list with one entry each" % len(self._inputs)
            )
        for i in range(len(parts)):
            _fill(self._inputs[i], parts[i], self._plan.inputs[i], self._evens)
        self._plan.run(self._inputs, self._outputs)
        return [_numbers(self._outputs[i], self._plan.outputs[i]) for i in range(len(self._outputs))]

    def run_raw(self, inputs: "list[bytes]") -> list:  # type: ignore[type-arg]
        """Raw int8 output tensors for raw int8 input tensors; the buffers are used again by the next run."""
        self._plan.run(inputs, self._outputs)
        return list(self._outputs)


def _fill(buffer: bytearray, x: object, edge: tuple, evens: "tuple | None") -> None:  # type: ignore[type-arg]
    """Write one input into its buffer: raw bytes, or (nested) numbers quantised, halves away from zero."""
    if isinstance(x, (bytes, bytearray, memoryview)):
        if len(x) != len(buffer):
            raise ports.InputError(
                "the input has %d bytes, the model takes %d of int8" % (len(x), len(buffer))
            )
        buffer[:] = x
        return
    if hasattr(x, "tolist"):  # a NumPy array
        x = x.tolist()
    end = _quantise(buffer, 0, x, edge[3], edge[2] - 128, evens)
    if end != len(buffer):
        raise ports.InputError("the input has %d numbers, the model takes %d" % (end, len(buffer)))


def _quantise(
    buffer: bytearray,
    at: int,
    x: object,
    scale: float,
    zero_point: int,
    evens: "tuple | None",  # type: ignore[type-arg]
) -> int:
    """Quantise a number or a list into the buffer from `at` on and return where it ends."""
    if isinstance(x, (list, tuple)):
        for part in x:
            at = _quantise(buffer, at, part, scale, zero_point, evens)
        return at
    if not isinstance(x, (int, float)):
        raise ports.InputError("the input is no array of numbers")
    step = _evened(x, at, evens) / scale
    if not -1e9 < step < 1e9:  # so neither NaN nor infinity
        if step != step or step in (float("inf"), -float("inf")):
            raise ports.InputError("the input holds NaN or infinity, which an int8 input cannot take")
        step = 1000 if step > 0 else -1000
    stored = int(step + 0.5) if step >= 0 else -int(0.5 - step)
    if at < len(buffer):
        buffer[at] = min(127, max(-128, stored + zero_point)) & 255
    return at + 1


def _evened(x: float, at: int, evens: "tuple | None") -> float:  # type: ignore[type-arg]
    """A number at a place of the input as the model was made for it."""
    if evens is None:
        return x
    mean, std, places = evens
    feature = at // places % len(mean)
    return float((x - mean[feature]) / std[feature])


def _numbers(buffer: bytearray, edge: tuple) -> "list[float]":  # type: ignore[type-arg]
    zero = edge[2]
    return [((value ^ 128) - zero) * edge[3] for value in buffer]


def _normalisation(told: "dict | None", specs: "list | None") -> "tuple | None":  # type: ignore[type-arg]
    """(mean, std, values in a row that share them) of each feature; raises ValueError when that is not what is told."""
    if told is None:
        return None
    try:
        mean, std, shape = told["mean"], told["std"], specs[0]["shape"]  # type: ignore[index]
        axis, places = told.get("axis", 1), 1
        for size in shape[axis + 1 :]:
            places *= size
        if len(specs) != 1 or not 0 < len(mean) == len(std) == shape[axis]:  # type: ignore[arg-type]
            raise ValueError
        for i in range(len(mean)):
            if not -1e38 < mean[i] / std[i] < 1e38:
                raise ValueError
    except (ArithmeticError, LookupError, TypeError, ValueError):
        raise ValueError("the signature's normalisation does not fit the model's input")  # noqa: B904  MicroPython warns about `from`
    return mean, std, places


def _check_signature(edges: list, specs: object, what: str) -> None:  # type: ignore[type-arg]
    """Raise ValueError unless the signature, where it speaks, describes the plan that was loaded."""
    if not specs:
        return
    if len(specs) != len(edges):  # type: ignore[arg-type]
        raise ValueError("the signature has %d %ss, the model has %d" % (len(specs), what, len(edges)))  # type: ignore[arg-type]
    for spec, edge in zip(specs, edges):  # type: ignore[call-overload]
        size = 1
        for dimension in spec.get("shape", (edge[1],)):
            size *= dimension
        if spec.get("dtype", "int8") != "int8" or size != edge[1]:
            raise ValueError(
                "the signature's %s is no int8 tensor of %d bytes, as the model's is" % (what, edge[1])
            )
