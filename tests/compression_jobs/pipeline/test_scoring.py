"""Figures for the three tasks, on cases with a known answer."""

import numpy as np
import pytest

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.scoring import Judge, classes_of, refuse_logits


def test_classification_counts_right_classes_and_pairs_rows() -> None:
    y = np.array([0, 1, 2, 1] * 25)
    good = np.eye(3)[y]
    half = np.eye(3)[np.where(np.arange(100) < 50, y, (y + 1) % 3)]
    judge = Judge("classification", np.zeros((100, 2)), y)
    assert judge.accuracy(half).value == 0.5
    drop = judge.drop(good, half)
    assert drop.value == 0.5
    assert drop.low < 0.5 < drop.high
    assert judge.agreement(good, half) == 0.5


def test_one_score_is_the_probability_of_class_1() -> None:
    judge = Judge("classification", np.zeros((4, 2)), np.array([0, 1, 1, 0]))
    assert judge.accuracy(np.array([[0.1], [0.9], [0.6], [0.7]])).value == 0.75


def test_regression_is_judged_by_r_squared() -> None:
    y = np.linspace(0, 1, 50)[:, None]
    judge = Judge("regression", np.zeros((50, 2)), y)
    assert judge.accuracy(y).value == 1.0
    worse = judge.accuracy(y + np.random.default_rng(0).normal(0, 0.1, y.shape))
    assert 0.7 < worse.low < worse.value < worse.high < 1.0
    assert judge.accuracy(np.full_like(y, y.mean())).value == pytest.approx(0.0)


def test_reconstruction_is_judged_by_the_area_under_the_roc_curve() -> None:
    x = np.zeros((40, 3))
    y = np.repeat([0, 1], 20)
    errors = np.concatenate([np.linspace(0, 1, 20), np.linspace(0.5, 2, 20)])
    judge = Judge("reconstruction", x, y)
    normal, odd = errors[:20, None], errors[None, 20:]
    expected = ((odd > normal).mean() + (odd == normal).mean() / 2).item()
    assert judge.accuracy(np.sqrt(errors)[:, None].repeat(3, 1)).value == pytest.approx(expected)


def test_reconstruction_without_anomalies_is_refused() -> None:
    with pytest.raises(Refused, match="only one kind"):
        Judge("reconstruction", np.zeros((5, 2)), np.zeros(5, int)).accuracy(np.zeros((5, 2)))


def test_a_single_score_is_a_chance_and_not_a_logit() -> None:
    chances = np.array([[0.2], [0.7], [1.004]])
    refuse_logits(chances)
    assert classes_of(chances).tolist() == [0, 1, 1]
    with pytest.raises(Refused, match=r"chance of class 1.*-3 to 4.*sigmoid"):
        refuse_logits(np.array([[-3.0], [4.0]]))


def test_rows_of_one_class_are_known_for_it() -> None:
    assert Judge("classification", np.zeros((3, 2)), np.array([2, 2, 2])).one_class == 2
    assert Judge("classification", np.zeros((3, 2)), np.array([2, 1, 2])).one_class is None
    assert Judge("regression", np.zeros((3, 2)), np.zeros((3, 1))).one_class is None
