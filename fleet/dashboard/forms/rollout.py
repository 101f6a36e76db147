"""The wizard of a rollout."""

from typing import Any

from django import forms

from fleet.dashboard.forms.conditions import ConditionsForm
from fleet.dashboard.forms.gates import GatesForm
from fleet.dashboard.forms.registry import DeployableChoice
from fleet.dashboard.forms.styling import ModelChoice
from fleet.inventory.models import DeviceGroup

EVIDENCE = [
    ("", "as its size suggests: proceed below 40 devices"),
    ("proceed", "proceed"),
    ("hold", "hold and ask a person"),
]


class GroupChoice(ModelChoice):
    """Groups by name and rule."""

    def label_from_instance(self, obj: Any) -> str:
        """Name, and how it is chosen."""
        return f"{obj.name} · {obj.rule or 'by hand'}"


class RolloutForm(ConditionsForm, GatesForm):
    """What goes where, in which waves, on which evidence."""

    version = DeployableChoice()
    group = GroupChoice(queryset=DeviceGroup.objects.all(), to_field_name="slug", empty_label=None)
    app = forms.CharField(max_length=64, initial="main", help_text="Which app of the devices runs it.")
    waves = forms.CharField(
        max_length=300,
        initial="1, 25%, 100%",
        help_text="How many devices shall have been asked after each wave: numbers or shares.",
    )
    soak_seconds = forms.IntegerField(
        min_value=0,
        max_value=30 * 86400,
        initial=60,
        label="Soak (seconds)",
        help_text="How long a wave is watched before the next.",
    )
    min_inferences = forms.IntegerField(
        min_value=0,
        max_value=1_000_000,
        initial=50,
        label="Trial: inferences",
        help_text="Clean ones, before a device keeps it.",
    )
    min_labelled = forms.IntegerField(
        min_value=0,
        max_value=1_000_000,
        initial=0,
        label="Trial: labels",
        help_text="0: no truth is expected on the device.",
    )
    max_seconds = forms.IntegerField(
        min_value=1, max_value=30 * 86400, initial=600, label="Trial: at most (seconds)"
    )
    shadow = forms.BooleanField(
        required=False,
        label="In the shadow",
        help_text="Runs beside the version in use and is compared with it; nothing is installed.",
    )
    when_evidence_runs_out = forms.ChoiceField(
        choices=EVIDENCE, required=False, label="When evidence runs out"
    )
    require_approval = forms.BooleanField(required=False, label="A second person must approve it")
    start_at = forms.DateTimeField(
        required=False,
        label="Start at (UTC)",
        help_text="Empty: at once.",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}),
    )

    def rules(self) -> dict[str, Any]:
        """The strategy as the service reads it; what it finds wrong it says itself."""
        data = self.cleaned_data
        return {
            "waves": [_size(part) for part in data["waves"].replace(";", ",").split(",") if part.strip()],
            "soak_seconds": data["soak_seconds"],
            "delivery_timeout_s": data["delivery_timeout_s"] or max(3600, data["max_seconds"] + 600),
            "trial": {
                **{name: data[name] for name in ("min_inferences", "min_labelled", "max_seconds", "shadow")},
                **self.trial(),
            },
            "when_evidence_runs_out": data["when_evidence_runs_out"] or None,
            "require_approval": data["require_approval"],
            **self.conditions(),
            **self.limits(),
        }

    @property
    def main_fields(self) -> list[Any]:
        """What everybody fills in."""
        further = {name for names in self._further().values() for name in names}
        return [self[name] for name in self.fields if name not in further]

    @property
    def sections(self) -> list[tuple[str, list[Any], bool]]:
        """The further fields by title, and whether a section holds something that is filled in or wrong."""
        open_ones = {*self.changed_data, *self.errors} if self.is_bound else set()
        return [
            (title, [self[name] for name in names], bool(open_ones & set(names)))
            for title, names in self._further().items()
        ]

    @staticmethod
    def _further() -> dict[str, tuple[str, ...]]:
        return ConditionsForm.SECTIONS | GatesForm.SECTIONS


def _size(text: str) -> int | str:
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text.replace(" ", "")
