"""A self-test passes for the answers the server saw, and says in words where a model differs."""

import io
import struct

from device_agent.core import selftest

TWO_REALS = [{"dtype": "float32", "shape": [1, 2]}]
THREE_REALS = [{"dtype": "float32", "shape": [1, 3], "scale": 0.5}]
THREE_BYTES = [{"dtype": "int8", "shape": [3]}]


class Recorded:
    """A runtime that answers what it was told, whatever the input."""

    def __init__(self, answers: list) -> None:
        self.answers = answers
        self.inputs: list = []

    def reset(self) -> None:
        self.inputs.append("reset")

    def run_raw(self, inputs: list) -> list:
        self.inputs.append([bytes(i) for i in inputs])
        answer = self.answers[len([one for one in self.inputs if one != "reset"]) - 1]
        if isinstance(answer, Exception):
            raise answer
        return [answer]


def reals(*numbers: float) -> bytes:
    return struct.pack("<" + str(len(numbers)) + "f", *numbers)


def written(outputs: list, tolerance: dict, expected: list, argmax: bool = True) -> bytes:
    file = io.BytesIO()
    samples = [([reals(i, 1)], [raw]) for i, raw in enumerate(expected)]
    selftest.write(file, TWO_REALS, outputs, tolerance, samples, argmax)
    return file.getvalue()


def outcome(
    outputs: list, tolerance: dict, expected: bytes, actual: object, argmax: bool = True
) -> selftest.Result:
    return selftest.run(io.BytesIO(written(outputs, tolerance, [expected], argmax)), Recorded([actual]))


def test_equal_answers_pass_and_the_inputs_arrive() -> None:
    answers = [bytes([1, 2, 3]), bytes([9, 8, 7])]
    runtime = Recorded(answers)
    result = selftest.run(io.BytesIO(written(THREE_BYTES, {"mode": "equal"}, answers)), runtime)
    assert result.passed and result.samples == 2 and result.reason == "2 samples agree"
    assert runtime.inputs == [[reals(0, 1)], [reals(1, 1)]]


def test_a_sample_of_a_stream_is_runs_in_a_row_between_resets() -> None:
    file = io.BytesIO()
    samples = [([reals(i, 1), reals(i, 2)], [bytes([i, i, i])]) for i in range(2)]
    selftest.write(file, TWO_REALS, THREE_BYTES, {"mode": "equal"}, samples, False, 2)
    runtime = Recorded([bytes(3), bytes(3), bytes(3), bytes([1, 1, 1])])
    result = selftest.run(io.BytesIO(file.getvalue()), runtime)
    assert result.passed and result.samples == 2
    one, other = (["reset", [reals(i, 1)], [reals(i, 2)], "reset"] for i in range(2))
    assert runtime.inputs == one + other
    runtime = Recorded([bytes(3), bytes([1, 0, 0])] * 2)
    assert selftest.run(io.BytesIO(file.getvalue()), runtime).reason.startswith("sample 0, output 0")


def test_one_flipped_byte_fails_mode_equal() -> None:
    result = outcome(THREE_BYTES, {"mode": "equal"}, bytes([1, 2, 3]), bytes([1, 2, 4]))
    assert not result.passed
    assert result.reason == "sample 0, output 0: the bytes are not equal"


def test_integers_may_differ_by_the_allowed_steps() -> None:
    two = {"mode": "lsb", "value": 2}
    assert outcome(THREE_BYTES, two, bytes([10, 20, 90]), bytes([12, 18, 90])).passed
    assert not outcome(THREE_BYTES, two, bytes([10, 20, 90]), bytes([13, 20, 90])).passed


def test_reals_may_differ_by_steps_of_the_output_scale() -> None:
    two = {"mode": "lsb", "value": 2}
    assert outcome(THREE_REALS, two, reals(0, 1, 9), reals(1, 0, 9)).passed
    assert not outcome(THREE_REALS, two, reals(0, 1, 9), reals(1.25, 1, 9)).passed


def test_reals_may_differ_by_the_absolute_tolerance() -> None:
    near = {"mode": "atol", "value": 0.01}
    assert outcome(THREE_REALS, near, reals(0, 1, 9), reals(0.009, 1, 9)).passed
    assert not outcome(THREE_REALS, near, reals(0, 1, 9), reals(0.02, 1, 9)).passed


def test_not_a_number_never_passes() -> None:
    nan = float("nan")
    assert not outcome(
        THREE_REALS, {"mode": "atol", "value": 9}, reals(0, 1, 9), reals(nan, 1, 9), False
    ).passed
    assert not outcome(
        THREE_REALS, {"mode": "lsb", "value": 9}, reals(0, 1, 9), reals(0, 1, nan), False
    ).passed


def test_another_class_fails_although_the_numbers_are_near() -> None:
    near = {"mode": "atol", "value": 1}
    result = outcome(THREE_REALS, near, reals(0, 1, 1.5), reals(0, 1.6, 1.5))
    assert result.reason == "sample 0, output 0: class 1, expected 2"
    assert outcome(THREE_REALS, near, reals(0, 1, 1.5), reals(0, 1.6, 1.5), argmax=False).passed


def test_a_difference_behind_the_first_block_is_found() -> None:
    spec = [{"dtype": "int8", "shape": [1000]}]
    right, wrong = bytearray(1000), bytearray(1000)
    wrong[999] = 100
    assert outcome(spec, {"mode": "lsb", "value": 1}, bytes(right), bytes(right)).passed
    assert not outcome(spec, {"mode": "lsb", "value": 1}, bytes(right), bytes(wrong), argmax=False).passed


def test_a_runtime_that_raises_or_answers_another_shape_fails_with_the_reason() -> None:
    result = outcome(THREE_BYTES, {"mode": "equal"}, bytes(3), ValueError("no such operator"))
    assert result.reason == "the model failed: no such operator"
    assert outcome(THREE_BYTES, {"mode": "equal"}, bytes(3), bytes(2)).reason.endswith("2 bytes, expected 3")


def test_a_cut_or_foreign_file_is_refused_everywhere() -> None:
    whole = written(THREE_BYTES, {"mode": "equal"}, [bytes(3), bytes(3)])
    for cut in range(len(whole)):
        assert not selftest.run(io.BytesIO(whole[:cut]), Recorded([bytes(3), bytes(3)])).passed
    for bad in (
        whole + b"x",
        b"ZZZZ" + whole[4:],
        whole[:4] + b"\x02" + whole[5:],
        whole[:5] + b"\xff" * 400,
    ):
        assert not selftest.run(io.BytesIO(bad), Recorded([bytes(3), bytes(3)])).passed


def test_hostile_headers_are_refused_in_words() -> None:
    good = {"samples": 1, "inputs": TWO_REALS, "outputs": THREE_BYTES, "tolerance": {"mode": "equal"}}
    selftest.Header(good)
    one = [{"dtype": "int8", "shape": [1]}]
    hostile = [
        None, [], {"samples": 0}, {"samples": True}, {"samples": 1 << 40}, {"inputs": []}, {"inputs": one * 17},
        {"inputs": [3]}, {"inputs": [{"dtype": "float99", "shape": [1]}]}, {"outputs": [{"dtype": "int8"}]},
        {"outputs": [{"dtype": "int8", "shape": [1 << 20, 1 << 20]}]}, {"outputs": [{"dtype": "int8", "shape": [0]}]},
        {"outputs": [{"dtype": "int8", "shape": [-1, -1]}]}, {"outputs": [{"dtype": "int8", "shape": [1] * 9}]},
        {"tolerance": None}, {"tolerance": {"mode": "close"}}, {"tolerance": {"mode": "atol", "value": -1}},
        {"tolerance": {"mode": "atol", "value": "1"}}, {"tolerance": {"mode": "atol", "value": float("nan")}},
        {"outputs": TWO_REALS, "tolerance": {"mode": "lsb", "value": 1}}, {"runs": 0}, {"runs": 1 << 20}, {"runs": None},
    ]  # fmt: skip
    for change in hostile:
        fields = dict(good)
        fields.update(change) if isinstance(change, dict) else None
        try:
            selftest.Header(fields if isinstance(change, dict) else change)
        except selftest.SelfTestError as error:
            assert str(error)
            continue
        raise AssertionError("accepted: " + repr(change))


def test_the_writer_refuses_tensors_of_another_size() -> None:
    for sample in (([b"xx"], [bytes(3)]), ([reals(1, 2)], []), ([reals(1, 2)], [bytes(4)])):
        try:
            selftest.write(io.BytesIO(), TWO_REALS, THREE_BYTES, {"mode": "equal"}, [sample], True)
        except selftest.SelfTestError:
            continue
        raise AssertionError("accepted: " + repr(sample))
