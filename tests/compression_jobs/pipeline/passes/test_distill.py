"""Students: PhiNets sized by budgets, models of one's own, and teachers other than the original."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph.costs import parameters, total_macs
from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.memory import peak_activation_bytes
from compression_jobs.pipeline.graph.phinet import Budget, PhiNet, blocks_of, costs, sized
from compression_jobs.pipeline.passes.options import QuantizeOptions
from compression_jobs.pipeline.passes.quantize import quantize
from compression_jobs.pipeline.recipe import parse_recipe
from compression_jobs.pipeline.run import run, sized_for
from compression_jobs.pipeline.targets import TARGETS
from tests.compression_jobs.pipeline.conftest import Digits
from tests.compression_jobs.pipeline.nets import Net
from tests.compression_jobs.pipeline.passes.conftest import Studio

PICTURE = [3, 64, 64]


def test_each_number_follows_its_own_budget() -> None:
    base = PhiNet(1.0, 6.0, 1.0)
    found = {
        name: costs(replace(base, **{name: value}), PICTURE, 10)
        for name, value in (("alpha", 2.0), ("t_zero", 3.0), ("beta", 2.0))
    }
    start = costs(base, PICTURE, 10)
    assert found["alpha"].macs > 2 * start.macs
    assert found["t_zero"].ram_bytes < 0.7 * start.ram_bytes
    assert found["beta"].ram_bytes < 1.3 * start.ram_bytes
    assert found["beta"].flash_bytes > 1.5 * start.flash_bytes
    expansions = [block.inner / block.source for block in blocks_of(PhiNet(1.0, 6.0, 0.5), PICTURE)[2]]
    assert expansions == sorted(expansions, reverse=True)
    assert expansions[-1] == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize(
    "budget",
    [
        Budget(macs=2_000_000, ram_bytes=32_000, flash_bytes=60_000),
        Budget(macs=20_000_000, ram_bytes=200_000, flash_bytes=300_000),
        Budget(ram_bytes=20_000),
    ],
)
def test_a_budget_is_kept_and_used(budget: Budget) -> None:
    found = costs(sized(PICTURE, 10, budget), PICTURE, 10)
    used = []
    for cost in ("macs", "ram_bytes", "flash_bytes"):
        limit = getattr(budget, cost)
        if limit is not None:
            assert getattr(found, cost) <= limit
            used.append(getattr(found, cost) / limit)
    assert max(used) > 0.8


def test_a_phinet_has_the_costs_it_was_sized_by_and_learns(studio: Studio) -> None:
    options = {"student": "phinet", "macs": 200_000, "ram_bytes": 3_000, "flash_bytes": 6_000}
    net = studio.run("distill", steps=250, rate=1e-2, **options)
    graph = studio.export(net)
    assert total_macs(graph) <= 200_000
    assert 2_000 < parameters(graph) <= 6_000
    assert peak_activation_bytes(graph, item_bytes=1) <= 3_100  # the planner rounds up to 16
    assert graph.output_names == studio.graph.output_names
    assert {node.op_type for node in graph.nodes} <= {
        "Conv",
        "Relu",
        "Add",
        "GlobalAveragePool",
        "Reshape",
        "Gemm",
    }
    assert quantize(graph, QuantizeOptions(), studio.material).problems() == []
    assert studio.accuracy(net) > 0.8


def test_budgets_left_open_come_from_the_target() -> None:
    recipe = parse_recipe([{"name": "distill", "options": {"student": "phinet", "ram_bytes": 5000}}])
    target = TARGETS["esp32"]
    options = sized_for(recipe, target).as_list()[0]["options"]
    assert options["ram_bytes"] == 5000
    assert options["flash_bytes"] == round(0.9 * target.flash_bytes)


def own_student(path: Path, classes: int = 10) -> Path:
    net = Net(1, 8, 8).conv(1, 8, strides=[2, 2], pads=[1, 1, 1, 1]).node("Relu")
    net.conv(8, 8, pads=[1, 1, 1, 1]).node("Relu").node("GlobalAveragePool").reshape(1, 8).dense(8, classes)
    net.graph().save(path)
    return path


def test_a_student_of_ones_own_is_trained_by_the_original(studio: Studio, tmp_path: Path) -> None:
    student = own_student(tmp_path / "s.onnx")
    material = replace(studio.material, others={"mine": student})
    options = {"student": "given", "student_model": "mine", "steps": 300, "rate": 1e-2}
    net = replace(studio, material=material).run("distill", **options)
    graph = studio.export(net)
    assert parameters(graph) == parameters(Graph.load(student))
    assert studio.accuracy(net) > 0.6


def test_another_teacher_is_listened_to(studio: Studio, digits: Digits) -> None:
    """A teacher that knows nothing, and is believed alone, teaches nothing."""
    material = replace(studio.material, others={"fool": digits.shuffled_model})
    options = {"steps": 60, "rate": 1e-2, "width": 0.75, "distillation": 1.0}
    fooled = replace(studio, material=material).run("distill", teacher_model="fool", **options)
    assert studio.accuracy(fooled) < studio.accuracy(studio.run("distill", **options)) - 0.2


def test_a_student_with_other_answers_is_refused(studio: Studio, tmp_path: Path) -> None:
    material = replace(studio.material, others={"mine": own_student(tmp_path / "s.onnx", classes=7)})
    with pytest.raises(Refused, match=r"the student turns \[1, 8, 8\] into \[7\]"):
        replace(studio, material=material).run("distill", student="given", student_model="mine")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"student": "given"}, "student_model names the model"),
        ({"student_model": "mine"}, "student_model names the model"),
    ],
)
def test_a_given_student_needs_a_name(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        parse_recipe([{"name": "distill", "options": options}])


def test_a_recipe_that_names_a_model_runs_with_it_and_not_without(digits: Digits, tmp_path: Path) -> None:
    options = {"student": "given", "student_model": "s.onnx", "steps": 4}
    recipe = parse_recipe(["canonicalise", {"name": "distill", "options": options}, "quantize"])
    student = own_student(tmp_path / "s.onnx")
    given: dict[str, Any] = {"out": tmp_path / "out", "others": {"s.onnx": student}}
    result = run(recipe, digits.model, digits.dataset, "raspberry-pi-4", **given)
    assert result.candidates[0].parameters < 1000
    first = result.candidates[0].sha256
    net = Graph.load(student)
    for tensor in net.model.graph.initializer:
        if tensor.data_type == 1:
            tensor.raw_data = (np.frombuffer(tensor.raw_data, np.float32) * 0.5).tobytes()
    net.save(student)
    again = run(recipe, digits.model, digits.dataset, "raspberry-pi-4", **given)
    assert again.candidates[0].sha256 != first  # nothing is taken over from another student's training
    with pytest.raises(Refused, match=r"s.onnx: the recipe names this model, and it was not given"):
        run(recipe, digits.model, digits.dataset, "raspberry-pi-4", out=tmp_path / "other")
