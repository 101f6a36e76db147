"""Recipes: an ordered list of passes with options, checked against the table of passes."""

import hashlib
import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.passes.options import Options
from compression_jobs.pipeline.passes.table import PASSES

MAX_STEPS = 32
MODEL_OPTIONS = ("student_model", "teacher_model")
# What goes in and comes out of each kind, to refuse an order that cannot work.
STAGES = {
    "graph": ("graph", "graph"),
    "net": ("graph", "graph"),
    "quant": ("graph", "quant"),
    "transport": ("any", "transport"),
}


class Step(BaseModel):
    """One pass by name, with its options; options left out take their defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_known(self) -> "Step":
        if self.name not in PASSES:
            raise ValueError(f"{self.name}: no such pass; there are {', '.join(PASSES)}")
        try:
            PASSES[self.name].options.model_validate(self.options)
        except ValidationError as error:
            raise ValueError(f"{self.name}: {_first_problem(error)}") from error
        return self

    def checked_options(self) -> Options:
        """The options as the pass takes them, defaults filled in."""
        return PASSES[self.name].options.model_validate(self.options)

    def as_dict(self) -> dict[str, Any]:
        """Name and all options, defaults included: what lineage records."""
        return {"name": self.name, "options": self.checked_options().model_dump(mode="json")}


class Recipe(BaseModel):
    """The passes in the order they run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[Step, ...] = Field(min_length=1, max_length=MAX_STEPS)

    @model_validator(mode="after")
    def _order_works(self) -> "Recipe":
        stage = "graph"
        for step in self.steps:
            takes, gives = STAGES[PASSES[step.name].kind]
            if stage == "transport":
                raise ValueError(f"{step.name} cannot follow encode, which is always the last step")
            if takes not in ("any", stage):
                raise ValueError(
                    f"{step.name} cannot follow: it takes a float graph, and the model is quantised by then"
                )
            stage = gives
        return self

    @property
    def quantizes(self) -> bool:
        """Whether the result is an int8 graph."""
        return any(PASSES[step.name].kind == "quant" for step in self.steps)

    @property
    def shaping(self) -> tuple[Step, ...]:
        """The steps that make the model; how it is sent comes after them."""
        return self.steps[:-1] if self.encoding else self.steps

    @property
    def encoding(self) -> Step | None:
        """The last step, when it says how the artifact is sent."""
        return self.steps[-1] if PASSES[self.steps[-1].name].kind == "transport" else None

    @property
    def trains(self) -> bool:
        """Whether a step trains the model."""
        return any(PASSES[step.name].kind == "net" for step in self.steps)

    @property
    def models_named(self) -> list[str]:
        """The models beside the original that options name: students and teachers."""
        given = [step.as_dict()["options"] for step in self.steps]
        names = [options.get(key) for options in given for key in MODEL_OPTIONS]
        return list(dict.fromkeys(name for name in names if name))

    def as_list(self) -> list[dict[str, Any]]:
        """The steps as JSON, defaults filled in."""
        return [step.as_dict() for step in self.steps]

    def digest(self) -> str:
        """SHA-256 of the steps with all options."""
        return hashlib.sha256(json.dumps(self.as_list(), sort_keys=True).encode()).hexdigest()

    def label(self) -> str:
        """A name that people can tell apart, and eight digits that make it exact."""
        words = "-".join(repeats([_label_of(step) for step in self.steps], "{0}-x{1}"))
        return f"{words[:80]}-{self.digest()[:8]}"


def _label_of(step: Step) -> str:
    """The name, and the options that are not the default; for int8 always how."""
    defaults = PASSES[step.name].options.model_validate({}).model_dump(mode="json")
    given = step.checked_options().model_dump(mode="json")
    words = [
        key if value is True else f"{key}-{len(value)}" if isinstance(value, list) else str(value)
        for key, value in given.items()
        if value != defaults[key] or (step.name == "quantize" and isinstance(value, str))
    ]
    return "-".join([step.name, *words])


def repeats(words: list[str], form: str) -> list[str]:
    """The words, with those that follow themselves written once; `form` takes the word and how often."""
    counted = [(word, len(list(group))) for word, group in groupby(words)]
    return [word if count == 1 else form.format(word, count) for word, count in counted]


def load_recipe(path: Path | str) -> Recipe:
    """Read a recipe from YAML or JSON; raises Refused with the first problem."""
    import yaml

    try:
        return parse_recipe(yaml.safe_load(Path(path).read_text()))
    except RecursionError as error:
        raise Refused(f"{path} is nested too deeply to be a recipe") from error
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise Refused(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}") from error


def parse_recipe(given: Any) -> Recipe:
    """A recipe from `{"steps": [...]}` or a list of steps; a step may be just a name."""
    steps = given.get("steps") if isinstance(given, dict) else given
    if not isinstance(steps, Sequence) or isinstance(steps, str):
        raise Refused(
            "a recipe is a list of steps", remedy="for example `steps: [canonicalise, {name: quantize}]`"
        )
    listed = [{"name": step} if isinstance(step, str) else step for step in steps]
    try:
        return Recipe.model_validate({"steps": listed})
    except ValidationError as error:
        raise Refused(_first_problem(error)) from error


def describe(recipe: Recipe) -> str:
    """The recipe in words."""
    if recipe.steps[0].name == "keep":
        return "the model as it is"
    words = [_in_words(step) for step in recipe.steps if PASSES[step.name].kind != "graph"]
    return ", ".join(repeats(words, "{1} times {0}")) or "float32"


def _in_words(step: Step) -> str:
    options = step.as_dict()["options"]
    if step.name == "quantize":
        left = f", but not {', '.join(options['float_layers'])}" if options["float_layers"] else ""
        return f"int8 ({options['granularity'].replace('_', ' ')}, {options['calibration']}){left}"
    return f"{step.name} {' '.join(f'{key}={value}' for key, value in step.options.items())}".strip()


def recipe_schema() -> dict[str, Any]:
    """Every pass with kind, summary and the JSON schema of its options, for forms and the API."""
    return {
        name: {"kind": entry.kind, "summary": entry.summary, "options": entry.options.model_json_schema()}
        for name, entry in PASSES.items()
    }


def _first_problem(error: ValidationError) -> str:
    found = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in found["loc"])
    message = found["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place and found["type"] != "value_error" else message
