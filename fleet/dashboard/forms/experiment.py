"""Two versions to compare, and where."""

from typing import Any

from django import forms

from fleet.dashboard.forms.registry import DeployableChoice
from fleet.dashboard.forms.rollout import GroupChoice
from fleet.dashboard.forms.styling import StyledForm
from fleet.inventory.models import DeviceGroup

METRICS = [
    ("accuracy", "accuracy: share of right labelled answers"),
    ("latency", "latency: median of the inferences"),
    ("errors", "errors: share of failing inferences"),
]
PROMOTIONS = [
    ("by_hand", "a person decides"),
    ("winner", "the better version goes to the whole group by itself"),
]


class ExperimentForm(StyledForm):
    """What the service needs; how each half gets its version is the default strategy."""

    version_a = DeployableChoice(label="Version a")
    version_b = DeployableChoice(label="Version b")
    group = GroupChoice(queryset=DeviceGroup.objects.all(), to_field_name="slug", empty_label=None)
    app = forms.CharField(max_length=64, initial="main", help_text="Which app of the devices runs it.")
    metric = forms.ChoiceField(choices=METRICS, label="What is compared")
    observe_seconds = forms.IntegerField(
        min_value=60,
        max_value=14 * 86400,
        initial=3600,
        label="Watched for (seconds)",
        help_text="How long both devices of a pair run before they are compared.",
    )
    min_count = forms.IntegerField(
        min_value=1,
        max_value=1_000_000,
        initial=20,
        label="At least",
        help_text="Labels, or inferences, that each device must have by then.",
    )
    max_seconds = forms.IntegerField(
        min_value=60,
        max_value=365 * 86400,
        initial=14 * 86400,
        label="At most (seconds)",
        help_text="After this it ends without a winner.",
    )
    promote = forms.ChoiceField(choices=PROMOTIONS, label="At the end")

    def order(self) -> dict[str, Any]:
        """What the service reads."""
        data = self.cleaned_data
        terms = ("metric", "observe_seconds", "min_count", "max_seconds", "promote")
        return {
            **{name: data[name] for name in ("version_a", "version_b", "group", "app")},
            "wanted": {name: data[name] for name in terms},
        }
