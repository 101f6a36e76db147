"""The self-test of an artifact: inputs with the outputs the server saw, which a device must reproduce.

The file is `TFST`, a format byte, the header's length (4 bytes, little-endian), the header as JSON, then for every
sample its input tensors and its expected output tensors, raw and little-endian. A device streams it: one sample's
inputs are in memory, and the expected outputs a block at a time.

A model that keeps a state has `runs` in its header (and format 2): a sample is then so many runs in a row, the first one
after a reset, with input tensors for each and the outputs of the last one.

Header: `samples`, `inputs` [{dtype, shape}], `outputs` [{dtype, shape, scale}], `tolerance` {mode, value}, `argmax`.
Modes: `equal` (the same bytes), `lsb` (at most `value` steps of the output's `scale`; 1 for integers) and `atol`.
With `argmax` the largest element of the first output must be the same one, too.
"""

import json
import struct

MAGIC = b"TFST"
FORMAT, FORMAT_OF_STREAMS = 1, 2
MODES = ("equal", "lsb", "atol")
HEADER_MAX_BYTES = 8192
MAX_SAMPLES = 4096
MAX_RUNS = 256
TENSOR_MAX_BYTES = 16777216

_BLOCK_ELEMENTS = 64
_KINDS = {
    "int8": ("b", 1),
    "uint8": ("B", 1),
    "int16": ("h", 2),
    "int32": ("i", 4),
    "int64": ("q", 8),
    "float32": ("f", 4),
    "float64": ("d", 8),
}


class SelfTestError(Exception):
    """The file is no usable self-test; the text names the reason."""


class Mismatch(Exception):
    """The model answered something else than the server saw; the text says where and by how much."""


class Tensor:
    """Data type, shape and, for outputs, quantisation step of one tensor."""

    def __init__(self, spec: object, name: str) -> None:
        if not isinstance(spec, dict) or spec.get("dtype") not in _KINDS:
            raise SelfTestError("%s: the dtype is none of %s" % (name, ", ".join(sorted(_KINDS))))
        self.name = name
        self.dtype: str = spec["dtype"]
        self.code, self.width = _KINDS[self.dtype]
        self.elements = _elements(spec.get("shape"), name)
        self.bytes = self.elements * self.width
        self.integer = self.code not in "fd"
        if not 0 < self.bytes <= TENSOR_MAX_BYTES:
            raise SelfTestError("%s: %d bytes, 1 to %d are allowed" % (name, self.bytes, TENSOR_MAX_BYTES))
        self.scale = spec.get("scale")

    def limit(self, mode: str, value: float) -> float:
        """The largest difference of one element that the tolerance allows."""
        if mode != "lsb":
            return 0.0 if mode == "equal" else value
        if self.integer:
            return value
        if not isinstance(self.scale, (int, float)) or not 0 < self.scale < 1e30:
            raise SelfTestError(self.name + ": an LSB tolerance on real numbers needs the output's scale")
        # Dequantised values are rounded to float32, so that a whole number of steps is not hit exactly.
        return (value + 0.01) * self.scale


class Header:
    """The checked first part of a self-test."""

    def __init__(self, fields: object) -> None:
        if not isinstance(fields, dict):
            raise SelfTestError("the header is no JSON object")
        self.samples = _count(fields.get("samples"), "samples", 1, MAX_SAMPLES)
        self.inputs = _tensors(fields.get("inputs"), "input")
        self.outputs = _tensors(fields.get("outputs"), "output")
        self.argmax = fields.get("argmax") is True
        self.stream = "runs" in fields
        self.runs = _count(fields["runs"], "runs", 1, MAX_RUNS) if self.stream else 1
        tolerance = fields.get("tolerance")
        if not isinstance(tolerance, dict) or tolerance.get("mode") not in MODES:
            raise SelfTestError("tolerance.mode is none of " + ", ".join(MODES))
        self.mode: str = tolerance["mode"]
        value = tolerance.get("value", 0)
        if not isinstance(value, (int, float)) or not 0 <= value < 1e30:
            raise SelfTestError("tolerance.value is no number from 0 on")
        self.limits = [tensor.limit(self.mode, value) for tensor in self.outputs]


class Result:
    """How a self-test ended: `passed`, the `reason` in words, and how many `samples` ran."""

    def __init__(self, passed: bool, reason: str, samples: int) -> None:
        self.passed = passed
        self.reason = reason
        self.samples = samples


class SelfTest:
    """Reads a self-test from an open binary file and runs it, one sample a call."""

    def __init__(self, file) -> None:  # type: ignore[no-untyped-def]
        self._file = file
        start = _read(file, len(MAGIC) + 5)
        if start[: len(MAGIC)] != MAGIC:
            raise SelfTestError("not a self-test: the first bytes are not TFST")
        version, length = struct.unpack("<BI", start[len(MAGIC) :])
        if not FORMAT <= version <= FORMAT_OF_STREAMS:
            raise SelfTestError("self-test format %d, this agent reads %d" % (version, FORMAT_OF_STREAMS))
        if length > HEADER_MAX_BYTES:
            raise SelfTestError("the header has %d bytes, %d are allowed" % (length, HEADER_MAX_BYTES))
        try:
            fields = json.loads(_read(file, length).decode())
        except (ValueError, UnicodeError, RuntimeError):  # RuntimeError: nested too deeply
            raise SelfTestError("the header is not JSON")
        self.header = Header(fields)
        if self.header.stream != (version == FORMAT_OF_STREAMS):
            raise SelfTestError("the header does not belong to format %d" % version)
        self.done = 0

    def run_next(self, runtime) -> bool:  # type: ignore[no-untyped-def]
        """Run one sample; True while others are left. Raises Mismatch, SelfTestError, or what the runtime raises."""
        answers = self._answers(runtime)
        if len(answers) != len(self.header.outputs):
            raise Mismatch("the model has %d outputs, expected %d" % (len(answers), len(self.header.outputs)))
        for i in range(len(answers)):
            self._compare(i, memoryview(answers[i]))
        self.done += 1
        if self.done < self.header.samples:
            return True
        if self._file.read(1):
            raise SelfTestError("bytes follow after the last sample")
        return False

    def _answers(self, runtime) -> list:  # type: ignore[no-untyped-def, type-arg]
        """Raw outputs for the next inputs of the file; a stream leaves nothing behind in the runtime."""
        stream = self.header.stream
        if stream:
            runtime.reset()
        answers: list = []  # type: ignore[type-arg]
        for _ in range(self.header.runs):
            inputs = [_read(self._file, tensor.bytes) for tensor in self.header.inputs]
            answers = runtime.run_raw(inputs)
            inputs.clear()
        if stream:
            runtime.reset()
        return answers

    def _compare(self, index: int, answer: memoryview) -> None:
        tensor = self.header.outputs[index]
        where = "sample %d, %s" % (self.done, tensor.name)
        if len(answer) != tensor.bytes:
            raise Mismatch("%s: %d bytes, expected %d" % (where, len(answer), tensor.bytes))
        peak = Peak() if self.header.argmax and index == 0 else None
        for offset in range(0, tensor.bytes, _BLOCK_ELEMENTS * tensor.width):
            size = min(_BLOCK_ELEMENTS * tensor.width, tensor.bytes - offset)
            expected = _read(self._file, size)
            actual = bytes(answer[offset : offset + size])
            if actual != expected:
                self._compare_block(index, where, expected, actual)
            if peak is not None:
                peak.add(_numbers(tensor, expected), _numbers(tensor, actual))
        if peak is not None and peak.expected_at != peak.actual_at:
            raise Mismatch("%s: class %d, expected %d" % (where, peak.actual_at, peak.expected_at))

    def _compare_block(self, index: int, where: str, expected: bytes, actual: bytes) -> None:
        if self.header.mode == "equal":
            raise Mismatch(where + ": the bytes are not equal")
        tensor = self.header.outputs[index]
        limit = self.header.limits[index]
        numbers = _numbers(tensor, actual)
        for i, wanted in enumerate(_numbers(tensor, expected)):
            # `not <=`: a NaN must not pass.
            if numbers[i] != wanted and not abs(numbers[i] - wanted) <= limit:
                text = "%s: %s instead of %s, more than %s (%s) away"
                raise Mismatch(text % (where, numbers[i], wanted, limit, self.header.mode))


class Peak:
    """Where the largest element stands in two streams of numbers (the first one, when several are)."""

    def __init__(self) -> None:
        self.expected_at = self.actual_at = 0
        self._expected = self._actual = float("-inf")
        self._seen = 0

    def add(self, expected: tuple, actual: tuple) -> None:  # type: ignore[type-arg]
        """Look at the next elements of both streams."""
        for i in range(len(expected)):
            if expected[i] > self._expected:
                self._expected, self.expected_at = expected[i], self._seen
            if actual[i] > self._actual:
                self._actual, self.actual_at = actual[i], self._seen
            self._seen += 1


def run(file, runtime) -> Result:  # type: ignore[no-untyped-def]
    """Run a whole self-test from an open binary file against a loaded runtime; never raises."""
    done = 0
    try:
        test = SelfTest(file)
        while test.run_next(runtime):
            done = test.done
        return Result(True, "%d samples agree" % test.done, test.done)
    except (SelfTestError, Mismatch) as error:
        return Result(False, str(error), done)
    except Exception as error:  # noqa: BLE001  whatever a runtime raises means that this artifact does not run here
        return Result(False, "the model failed: %s" % error, done)


def write(  # type: ignore[no-untyped-def]
    file,
    inputs: list,  # type: ignore[type-arg]
    outputs: list,  # type: ignore[type-arg]
    tolerance: dict,  # type: ignore[type-arg]
    samples: list,  # type: ignore[type-arg]
    argmax: bool,
    runs: int = 0,
) -> None:
    """Write a self-test to an open binary file.

    `inputs` and `outputs` are tensor specs, `samples` pairs (input tensors, expected output tensors) of raw
    little-endian bytes; for a model that keeps a state the inputs of `runs` runs, one after the other. Raises
    SelfTestError for anything a device would refuse.
    """
    fields = {
        "samples": len(samples),
        "inputs": inputs,
        "outputs": outputs,
        "tolerance": tolerance,
        "argmax": argmax,
    }
    if runs:
        fields["runs"] = runs
    header = Header(fields)
    encoded = json.dumps(fields, separators=(",", ":")).encode()
    if len(encoded) > HEADER_MAX_BYTES:
        raise SelfTestError("the header has %d bytes, %d are allowed" % (len(encoded), HEADER_MAX_BYTES))
    version = FORMAT_OF_STREAMS if runs else FORMAT
    file.write(MAGIC + struct.pack("<BI", version, len(encoded)) + encoded)
    for tensors in samples:
        for specs, data in ((header.inputs * header.runs, tensors[0]), (header.outputs, tensors[1])):
            if len(data) != len(specs):
                raise SelfTestError("a sample has %d tensors, expected %d" % (len(data), len(specs)))
            for spec, raw in zip(specs, data):  # noqa: B905  MicroPython's zip knows no `strict`
                if len(raw) != spec.bytes:
                    raise SelfTestError("%s: %d bytes, expected %d" % (spec.name, len(raw), spec.bytes))
                file.write(raw)


def _read(file, size: int) -> bytes:  # type: ignore[no-untyped-def]
    data = file.read(size)
    if len(data) != size:
        raise SelfTestError("the file ends early")
    return bytes(data)


def _numbers(tensor: Tensor, raw: bytes) -> tuple:  # type: ignore[type-arg]
    return struct.unpack("<" + str(len(raw) // tensor.width) + tensor.code, raw)


def _count(value: object, name: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise SelfTestError("%s is no whole number from %d to %d" % (name, low, high))
    return value


def _elements(shape: object, name: str) -> int:
    if not isinstance(shape, (list, tuple)) or len(shape) > 8:
        raise SelfTestError(name + ": the shape is no list of at most 8 dimensions")
    elements = 1
    for dimension in shape:
        elements *= _count(dimension, name + ": a dimension", 1, TENSOR_MAX_BYTES)
    return elements


def _tensors(specs: object, name: str) -> "list[Tensor]":
    if not isinstance(specs, list) or not 0 < len(specs) <= 16:
        raise SelfTestError(name + "s is no list of 1 to 16 tensors")
    return [Tensor(spec, "%s %d" % (name, i)) for i, spec in enumerate(specs)]
