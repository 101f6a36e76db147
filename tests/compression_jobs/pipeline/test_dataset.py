"""Datasets are read without trust: what is usable is described, everything else is refused in words."""

import io
import random
import struct
import zipfile

import numpy as np
import pytest

from compression_jobs.pipeline import npz
from compression_jobs.pipeline.dataset import SPLITS, Dataset, check_pair, describe_dataset
from compression_jobs.pipeline.errors import Refused

ROWS = 40


def images(rows=ROWS):
    return np.random.default_rng(0).random((rows, 1, 4, 4), dtype=np.float32)


def save(tmp_path, **arrays):
    path = tmp_path / "d.npz"
    np.savez_compressed(path, **arrays)
    return path


def words(rows=ROWS):
    return np.array([SPLITS[row % 4] for row in range(rows)])


def raw_npz(tmp_path, content, name="x.npy"):
    path = tmp_path / "d.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


def npy_header(shape, descr="'<f4'"):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def test_classification_is_described(tmp_path):
    path = save(
        tmp_path, x=images(), y=np.arange(ROWS) % 3, split=words(), class_names=np.array(["a", "b", "c"])
    )
    facts = describe_dataset(path)
    assert facts["task"] == "classification"
    assert facts["classes"] == 3
    assert facts["class_names"] == ["a", "b", "c"]
    assert facts["label_counts"] == [14, 13, 13]
    assert facts["rows"] == dict.fromkeys(SPLITS, 10)
    assert facts["has_split"] is True
    assert facts["x"] == {"dtype": "float32", "shape": [ROWS, 1, 4, 4]}
    assert facts["x_stats"]["mean"] == pytest.approx(images().mean(), abs=1e-6)
    assert facts["x_stats"]["std"] == pytest.approx(images().std(), abs=1e-6)


def test_rows_follow_the_split_words_or_numbers(tmp_path):
    x, y = images(), np.arange(ROWS) % 3
    for split in (words(), np.arange(ROWS) % 4, np.where(words() == "validation", "Val", words())):
        data = Dataset.load(save(tmp_path, x=x, y=y, split=split))
        rows, labels = data.rows("validation")
        assert np.array_equal(rows, x[2::4])
        assert np.array_equal(labels, y[2::4])


def test_without_a_split_rows_are_dealt_out_the_same_way_each_time(tmp_path):
    path = save(tmp_path, x=images(1000), y=np.repeat(np.arange(10), 100))
    data = Dataset.load(path)
    assert not data.has_split
    assert np.array_equal(data.split_of, Dataset.load(path).split_of)
    assert [round(count / 10) for count in data.row_counts.values()] == [60, 10, 15, 15]
    assert set(np.bincount(data.rows("test")[1]).tolist()) <= {14, 15, 16}


def test_the_smallest_dataset_still_fills_every_split(tmp_path):
    assert min(Dataset.load(save(tmp_path, x=images(10), y=np.zeros(10, int))).row_counts.values()) > 0


def test_regression_and_reconstruction(tmp_path):
    regression = Dataset.load(save(tmp_path, x=images(), y=np.linspace(0, 1, ROWS)))
    assert (regression.task, regression.classes) == ("regression", 0)
    assert regression.rows("train")[1].shape[1] == 1
    plain = Dataset.load(save(tmp_path, x=images()))
    assert plain.task == "reconstruction"
    assert not plain.rows("test")[1].any()
    marked = save(tmp_path, x=images(), y=np.arange(ROWS) % 2, task=np.array("reconstruction"))
    assert Dataset.load(marked).y.sum() == ROWS // 2


def not_finite():
    x = images()
    x[7, 0, 1, 1] = np.nan
    return x


LABELS = np.arange(ROWS) % 3


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"y": LABELS}, "the dataset has no x"),
        ({"x": not_finite(), "y": LABELS}, "^x holds NaN or infinity in 1 rows, the first is row 7"),
        ({"x": images(), "y": LABELS[:-1]}, "y has shape \\(39,\\) but x has 40 rows"),
        ({"x": images(), "y": LABELS - 1}, "14 labels are out of range, the first is -1 in row 0"),
        ({"x": images(), "y": LABELS + 10**6}, "labels are out of range"),
        ({"x": images(), "y": LABELS, "class_names": np.array(["a", "b"])}, "label 2 has no name"),
        ({"x": images(), "y": np.eye(3, dtype=int)[LABELS]}, "one-hot rows save y.argmax"),
        ({"x": images(), "y": np.eye(3)[LABELS]}, "looks one-hot"),
        ({"x": images(), "y": LABELS.astype(str)}, "labels must be integers"),
        (
            {"x": images(), "y": LABELS, "split": np.array(["train", "test"] * 20)},
            "no rows for calibration and val",
        ),
        ({"x": images(), "y": LABELS, "split": np.array(["train", "holdout"] * 20)}, "split holds 'holdout'"),
        ({"x": images(), "y": LABELS, "split": np.arange(ROWS)}, "split goes from 0 to 39"),
        ({"x": images(), "y": LABELS, "split": words()[:-1]}, "split has shape"),
        ({"x": images()[:, 0, 0, 0], "y": LABELS}, "rows first"),
        ({"x": images(5), "y": LABELS[:5]}, "x has 5 rows; at least 10"),
        ({"x": images().astype(str), "y": LABELS}, "numbers are needed"),
        ({"x": images().astype(complex), "y": LABELS}, "numbers or texts are needed"),
        ({"x": images().astype(np.float64) * 1e300, "y": LABELS}, "as float32 holds NaN or infinity"),
        ({"x": images(), "y": LABELS, "task": np.array("magic")}, "task is 'magic'"),
    ],
)
def test_unusable_data_is_refused_in_words(tmp_path, arrays, reason):
    with pytest.raises(Refused, match=reason):
        describe_dataset(save(tmp_path, **arrays))


def test_pickled_arrays_are_refused_unopened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    path = tmp_path / "d.npz"
    np.savez(path, x=images(), y=np.array([Bomb()] * ROWS, dtype=object))
    with pytest.raises(Refused, match="y is a pickled array"):
        Dataset.load(path)
    assert not (tmp_path / "pwned").exists()


def test_a_zip_bomb_is_refused_by_its_declared_size(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "MAX_ARRAYS_BYTES", 1 << 20)
    path = save(tmp_path, x=np.zeros((1000, 600), np.float32))
    assert path.stat().st_size < 10_000
    with pytest.raises(Refused, match="claim 2400128 bytes unpacked; at most 1048576"):
        Dataset.load(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (npy_header((1 << 40, 4)) + b"1234", "too few for its shape"),
        (npy_header((-1, 4)), "impossible shape"),
        (npy_header((1,) * 20), "impossible shape"),
        (npy_header((1, 1)) + b"12345", "do not match"),
        (npy_header((1, 1), "'|O'") + b"1234", "pickled"),
        (b"\x93NUMPY\x09\x00....", "damaged"),
        (b"not an array", "damaged"),
        (b"", "damaged"),
    ],
)
def test_lying_headers_are_refused(tmp_path, content, reason):
    with pytest.raises(Refused, match=reason):
        Dataset.load(raw_npz(tmp_path, content))


def test_files_that_are_no_npz_are_refused(tmp_path):
    path = tmp_path / "d.npz"
    for content in (b"", b"hello", np.lib.format.magic(1, 0)):
        path.write_bytes(content)
        with pytest.raises(Refused, match=r"not an \.npz file"):
            Dataset.load(path)


def test_the_same_array_twice_is_refused(tmp_path):
    path = save(tmp_path, x=images(), y=LABELS)
    buffer = io.BytesIO()
    np.save(buffer, images())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x.npy", buffer.getvalue())
    with pytest.raises(Refused, match="x twice"):
        Dataset.load(path)


def test_damaged_files_are_read_or_refused_but_never_break(tmp_path):
    chance = random.Random(0)
    original = save(tmp_path, x=images(12), y=LABELS[:12], split=words(12)).read_bytes()
    path = tmp_path / "mutant.npz"
    refused = 0
    for _ in range(300):
        mutant = bytearray(original)
        for _ in range(chance.randint(1, 6)):
            mutant[chance.randrange(len(mutant))] = chance.randrange(256)
        path.write_bytes(
            mutant[: chance.randint(len(mutant) // 2, len(mutant)) if chance.random() < 0.3 else None]
        )
        try:
            describe_dataset(path)
        except Refused:
            refused += 1
    assert refused > 150


MODEL = {
    "format": "onnx",
    "inputs": [{"name": "image", "dtype": "float32", "shape": [-1, 1, 4, 4]}],
    "outputs": [{"name": "scores", "dtype": "float32", "shape": [-1, 3]}],
}


def test_a_matching_pair_passes(tmp_path):
    check_pair(MODEL, describe_dataset(save(tmp_path, x=images(), y=LABELS)))


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"x": images().transpose(0, 2, 3, 1), "y": LABELS}, "channels first or last"),
        ({"x": (images() * 255).astype(np.uint8), "y": LABELS}, "x is uint8, .* takes float32"),
        ({"x": images(), "y": np.arange(ROWS) % 7}, "has 3 values, the dataset has 7 classes"),
        ({"x": images(), "y": np.zeros((ROWS, 2))}, "3 values, the dataset has 2 values a row of y"),
        ({"x": images(), "y": LABELS.astype(float)}, "astype.'int64'. if they are class numbers"),
        ({"x": images()}, "16 values a row of x"),
    ],
)
def test_a_wrong_pair_is_refused(tmp_path, arrays, reason):
    with pytest.raises(Refused, match=reason):
        check_pair(MODEL, describe_dataset(save(tmp_path, **arrays)))
