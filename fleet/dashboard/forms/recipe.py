"""The recipe editor: one small form a step, drawn from the JSON schema of its pass's options."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django import forms
from django.http import QueryDict

from compression_jobs.pipeline.recipe import MAX_STEPS, recipe_schema
from fleet.dashboard.forms.styling import StyledForm, style
from fleet.errors import Refused

KINDS = {"graph": "Rewrite", "net": "Train", "quant": "Quantise", "transport": "Code for the air"}


class JsonText(forms.CharField):
    """A value that no other field can hold, such as a list, written as JSON."""

    def to_python(self, value: Any) -> Any:
        """What the text says; None when it is empty."""
        text = super().to_python(value)
        try:
            return json.loads(text) if text else None
        except (ValueError, RecursionError):
            raise forms.ValidationError("Write it as JSON, such as [1, 2].") from None

    def prepare_value(self, value: Any) -> Any:
        """The text that is shown."""
        return value if value is None or isinstance(value, str) else json.dumps(value)


class StepForm(StyledForm):
    """The options of one step; `given` fills them in, else each has the pass's default."""

    def __init__(
        self, name: str, place: int, data: Any = None, given: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(data, prefix=f"step-{place}", initial=given)
        self.name = name
        self.entry = recipe_schema()[name]
        definitions = self.entry["options"].get("$defs", {})
        for option, schema in self.entry["options"].get("properties", {}).items():
            self.fields[option] = option_field(option, schema, definitions)
            style(self.fields[option])

    def step(self) -> dict[str, Any]:
        """The step of the recipe; an option that was left empty takes its default."""
        given = {option: value for option, value in self.cleaned_data.items() if value is not None}
        return {"name": self.name, "options": given}

    def typed(self) -> dict[str, Any]:
        """What stands in the fields, right or wrong, to be shown again at another place."""
        return {
            option: field.widget.value_from_datadict(self.data, self.files, self.add_prefix(option))
            for option, field in self.fields.items()
        }


def option_field(option: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> forms.Field:
    """The field that fits one property of a JSON schema."""
    bare, may_be_empty = _resolved(schema, definitions)
    common: dict[str, Any] = {
        "required": False,
        "label": option.replace("_", " ").capitalize(),
        "initial": schema.get("default"),
        "help_text": " ".join(part for part in (schema.get("description", ""), _range(bare)) if part),
    }
    values = bare.get("enum") or ([bare["const"]] if "const" in bare else None)
    if values:
        return _choice(values, may_be_empty, common)
    if bare.get("type") == "boolean":
        return forms.BooleanField(**common)
    if bare.get("type") in ("integer", "number"):
        return _number(bare, common)
    if bare.get("type") == "string":
        return forms.CharField(max_length=2000, empty_value=None, **common)
    return JsonText(max_length=2000, **common)


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """The schema itself behind a reference or an `or null`, and whether null was allowed."""
    branches = [branch for branch in schema.get("anyOf", []) if branch.get("type") != "null"]
    bare = branches[0] if len(branches) == 1 else schema
    name = str(bare.get("$ref", "")).rpartition("/")[2]
    return definitions.get(name, bare), len(branches) < len(schema.get("anyOf", []))


def _choice(values: Sequence[Any], may_be_empty: bool, common: dict[str, Any]) -> forms.Field:
    by_text = {str(value): value for value in values}
    choices = [("", "not set")] if may_be_empty else []
    choices += [(text, text.replace("_", " ")) for text in by_text]
    return forms.TypedChoiceField(choices=choices, coerce=by_text.__getitem__, empty_value=None, **common)


def _number(bare: Mapping[str, Any], common: dict[str, Any]) -> forms.Field:
    ends: dict[str, Any] = {"min_value": bare.get("minimum"), "max_value": bare.get("maximum")}
    if bare["type"] == "integer":
        return forms.IntegerField(**ends, **common)
    return forms.FloatField(widget=forms.NumberInput(attrs={"step": "any"}), **ends, **common)


def _range(bare: Mapping[str, Any]) -> str:
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "more than",
        "maximum": "at most",
        "exclusiveMaximum": "less than",
    }
    ends = [f"{word} {bare[key]:g}" for key, word in words.items() if key in bare]
    return f"({', '.join(ends)})" if ends else ""


@dataclass
class RecipeEditor:
    """The steps of a recipe in their order, and the verbs that change them."""

    steps: list[StepForm]

    @classmethod
    def sent(cls, data: QueryDict) -> "RecipeEditor":
        """As a form was sent; raises Refused for passes that do not exist."""
        names = data.getlist("step")
        return cls([StepForm(_known(name), place, data) for place, name in enumerate(names[:MAX_STEPS])])

    @classmethod
    def of(cls, recipe: Sequence[Mapping[str, Any]]) -> "RecipeEditor":
        """As a recipe says."""
        return cls(
            [StepForm(step["name"], place, given=step["options"]) for place, step in enumerate(recipe)]
        )

    def edited(self, verb: str, added: str) -> "RecipeEditor":
        """After one click: `add` appends the pass `added`; `remove-2` and `up-2` change the third step."""
        steps: list[tuple[str, dict[str, Any] | None]] = [(step.name, step.typed()) for step in self.steps]
        word, _, place = verb.partition("-")
        at = int(place) if place.isascii() and place.isdigit() else -1
        if word == "add" and len(steps) < MAX_STEPS:
            steps.append((_known(added), None))
        elif word == "remove" and 0 <= at < len(steps):
            del steps[at]
        elif word == "up" and 0 < at < len(steps):
            steps[at - 1 : at + 1] = [steps[at], steps[at - 1]]
        return RecipeEditor([StepForm(name, at, given=given) for at, (name, given) in enumerate(steps)])

    def is_valid(self) -> bool:
        """Whether every step's options can be read; which values make sense says the server's own check."""
        return all(step.is_valid() for step in self.steps)

    def recipe(self) -> list[dict[str, Any]] | None:
        """The steps; None when there are none, and the search makes recipes."""
        return [step.step() for step in self.steps] or None

    def passes(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """What may be added, by kind: name and summary."""
        found: dict[str, list[tuple[str, str]]] = {}
        for name, entry in recipe_schema().items():
            found.setdefault(KINDS.get(entry["kind"], entry["kind"]), []).append((name, entry["summary"]))
        return list(found.items())


def _known(name: str) -> str:
    if name not in recipe_schema():
        raise Refused(f"there is no pass {name[:60]!r}", remedy="GET /api/v1/recipes/schema lists them.")
    return name
