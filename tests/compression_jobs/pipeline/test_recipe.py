"""Recipes are checked before anything runs, and name every option they used."""

from pathlib import Path

import pytest

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.recipe import load_recipe, parse_recipe, recipe_schema


def test_lineage_names_the_options_that_were_left_out() -> None:
    steps = parse_recipe(["canonicalise", {"name": "quantize", "options": {"calibration": "mse"}}]).as_list()
    assert steps[0] == {"name": "canonicalise", "options": {}}
    assert steps[1]["options"] == {
        "granularity": "per_channel",
        "calibration": "mse",
        "percentile": 99.99,
        "samples": 100,
        "bias_correction": False,
        "float_layers": [],
        "data_free": False,
    }


def test_recipes_that_differ_in_one_option_have_different_labels() -> None:
    labels = {
        parse_recipe([{"name": "quantize", "options": {"percentile": p}}]).label()
        for p in (99.0, 99.9, 99.99)
    }
    assert len(labels) == 3
    assert all(len(label) <= 100 for label in labels)


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (["shrink"], "shrink: no such pass; there are canonicalise"),
        ([{"name": "quantize", "options": {"samples": 1}}], "quantize: samples"),
        ([{"name": "quantize", "options": {"bits": 4}}], "quantize: bits"),
        (["quantize", "fold"], "fold cannot follow"),
        ([], "at least 1 item"),
        ("quantize", "a recipe is a list of steps"),
        ([7], "steps.0"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(steps: object, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        parse_recipe(steps)


def test_a_recipe_file_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("steps: [")
    with pytest.raises(Refused, match="cannot be read as YAML"):
        load_recipe(tmp_path / "r.yaml")
    (tmp_path / "r.yaml").write_text("[" * 5000)
    with pytest.raises(Refused, match="nested too deeply"):
        load_recipe(tmp_path / "r.yaml")
    (tmp_path / "r.yaml").write_text("steps: [canonicalise, quantize]")
    assert load_recipe(tmp_path / "r.yaml").quantizes


def test_every_pass_describes_its_options_for_forms() -> None:
    schema = recipe_schema()
    assert schema["quantize"]["options"]["properties"]["calibration"]["enum"] == [
        "minmax",
        "percentile",
        "entropy",
        "mse",
    ]
    assert all(entry["summary"] and entry["kind"] for entry in schema.values())
