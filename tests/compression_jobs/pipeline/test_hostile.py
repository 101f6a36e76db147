"""Hostile files: refused in words, and whoever asked is ready for the next file, whatever the last one did."""

import json
import os
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from compression_jobs.pipeline.dataset import describe_dataset
from compression_jobs.pipeline.errors import PipelineError, Refused, SandboxError
from compression_jobs.pipeline.graph.facts import describe_model
from compression_jobs.pipeline.sandbox import Limits, run_limited
from tests.compression_jobs.pipeline.fuzzing import survey
from tests.compression_jobs.pipeline.graph import exporters
from tests.compression_jobs.pipeline.graph.models import build, conv_net, save, weights
from tests.compression_jobs.pipeline.graph.test_facts import conv_tflite

LIMITS = Limits(seconds=60, memory_bytes=3 << 30)


def dataset(path: Path) -> bytes:
    """A small sound dataset."""
    np.savez(path, x=weights(40, 2, 6, 6), y=np.arange(40) % 4, split=np.arange(40) % 4)
    return path.read_bytes()


def forest(path: Path) -> bytes:
    """A small sound model of trees."""
    ensemble = pytest.importorskip("sklearn.ensemble")
    fitted = ensemble.RandomForestClassifier(2, max_depth=3, random_state=0).fit(
        weights(40, 4), np.arange(40) % 2
    )
    skl2onnx = pytest.importorskip("skl2onnx")
    data: bytes = skl2onnx.to_onnx(fitted, weights(1, 4), options={"zipmap": False}).SerializeToString()
    path.write_bytes(data)
    return data


ORIGINALS = {
    "conv.onnx": lambda path: exporters.conv_net(17).SerializeToString(),
    "keras.onnx": lambda path: exporters.tf2onnx_net(15).SerializeToString(),
    "forest.onnx": forest,
    "ready.tflite": lambda path: conv_tflite(),
    "data.npz": dataset,
}


def fuzz(folder: Path, name: str, count: int, seed: int) -> Counter[str]:
    """How `count` damaged files went; a child that one of them took down is followed by another."""
    source, told = folder / name, folder / "told"
    source.write_bytes(ORIGINALS[name](source))
    number, outcomes = 0, Counter[str]()
    while number < count:
        try:
            run_limited(survey, source, seed, number, count, told, limits=LIMITS)
        except SandboxError:
            outcomes["ended its child"] += 1
        lines = [json.loads(line) for line in told.read_text().splitlines()]
        number = lines[-1][0] + 1
    broken = [line for line in lines if line[1] == "broke"]
    assert not broken, broken
    assert all(words for _, outcome, words in lines if outcome == "refused")
    return outcomes + Counter(outcome for _, outcome, _ in lines)


@pytest.mark.parametrize("name", ORIGINALS)
def test_damaged_files_are_read_or_refused_in_words(tmp_path: Path, name: str) -> None:
    outcomes = fuzz(tmp_path, name, 80, seed=1)
    assert outcomes["began"] == 80
    assert outcomes["refused"] > 20
    assert outcomes["ended its child"] <= 4


@pytest.mark.full
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ORIGINALS)
def test_thousands_of_damaged_files_are_read_or_refused_in_words(
    tmp_path: Path, name: str, seed: int
) -> None:
    assert fuzz(tmp_path, name, 2000, seed=100 + seed)["began"] == 2000


# --- what somebody makes on purpose; after each, the same process reads a sound file -----------------


def a_million_nodes(folder: Path) -> Path:
    """Thirty megabytes of operators."""
    model = conv_net()
    node = helper.make_node("Relu", ["x"], ["z"]).SerializeToString()
    # A field of GraphProto: number 1, a message of so many bytes.
    many = b"".join([b"\x0a" + bytes([len(node)]) + node] * 1_000_000)
    graph = many + model.graph.SerializeToString()
    del model.graph.node[:]
    model.ClearField("graph")
    size, length = len(graph), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    path = folder / "million.onnx"
    path.write_bytes(model.SerializeToString() + b"\x3a" + bytes([*length, size]) + graph)
    return path


def a_chain_of_doublings(folder: Path) -> Path:
    """Each operator doubles what the one before made."""
    nodes = [("Concat", [f"t{at}"] * 2, [f"t{at + 1}"], {"axis": 0}) for at in range(60)]
    return save(folder, build(nodes, inputs=(("t0", (1, 64)),), outputs=(("t60", ("n", 64)),)))


def a_row_of_exabytes(folder: Path) -> Path:
    """Behind a free batch, which alone would make it nothing."""
    return save(folder, build([("Relu", ["x"], ["y"], {})], inputs=(("x", ("n", 1 << 40, 1 << 20)),)))


def weights_of_nobody(folder: Path) -> Path:
    """A constant that claims a terabyte in a file beside it."""
    model = conv_net()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.dims[0] = 1 << 36
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="m.onnx.data")
    return save(folder, model)


def a_zip_bomb(folder: Path) -> Path:
    """Zeros without end, behind a header that does not say so."""
    head = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (40, 4), }".ljust(117)
        + b"\n"
    )
    path = folder / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as file,
    ):
        file.write(head)
        for _ in range(64):
            file.write(bytes(1 << 20))
    return path


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def a_pickle(folder: Path) -> Path:
    """An array of objects, one of which runs a command when it is read."""
    path = folder / "pickle.npz"
    np.savez(path, x=np.array([Trap(folder / "sprung")] * 40, dtype=object), y=np.arange(40) % 2)
    return path


@pytest.mark.parametrize(
    ("make", "read", "reason"),
    [
        (a_million_nodes, describe_model, "1000004 operators; at most 20000"),
        (a_chain_of_doublings, describe_model, "its shape|cannot be|needs more|not acceptable"),
        (a_row_of_exabytes, describe_model, "x: its shape .* is not acceptable"),
        (weights_of_nobody, describe_model, "its shape|upload both"),
        (a_zip_bomb, describe_dataset, "claim|do not match"),
        (a_pickle, describe_dataset, "pickle|object|numbers"),
    ],
)  # fmt: skip
def test_what_is_made_to_harm_is_refused_and_the_next_file_is_read(tmp_path, make, read, reason):
    with pytest.raises(PipelineError, match=reason):
        run_limited(read, make(tmp_path), limits=LIMITS)
    assert not (tmp_path / "sprung").exists()
    sound = tmp_path / "sound.npz"
    dataset(sound)
    assert run_limited(describe_dataset, sound, limits=LIMITS)["rows"]["train"] == 10


def test_every_node_of_a_circle_is_named(tmp_path):
    model = conv_net()
    model.graph.node[0].input[0] = "g"
    with pytest.raises(Refused, match=r"conv \(Conv\), relu \(Relu\), pool .*waits for its own result"):
        run_limited(describe_model, save(tmp_path, model), limits=LIMITS)


def test_the_time_to_read_a_model_grows_no_faster_than_its_operators(tmp_path):
    count = 10_000
    nodes = [("Relu", [f"t{at}"], [f"t{at + 1}"], {}) for at in range(count)]
    path = save(tmp_path, build(nodes, inputs=(("t0", (1, 4)),), outputs=((f"t{count}", (1, 4)),)))
    # Asking for all shapes at every operator took more than a minute.
    assert run_limited(describe_model, path, limits=LIMITS)["operators"] == {"Relu": count}


def test_a_name_as_long_as_the_file_does_not_fill_the_page(tmp_path):
    path = save(tmp_path, build([("Magic", ["x"], ["y"], {"name": "N" * 1_000_000, "domain": "acme"})]))
    with pytest.raises(Refused, match="NNN…: operator of the custom domain 'acme'") as caught:
        run_limited(describe_model, path, limits=LIMITS)
    assert len(str(caught.value)) < 1000
    assert len(caught.value.problems[0]) < 1000
