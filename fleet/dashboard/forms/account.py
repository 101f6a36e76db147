"""Forms of tokens: one's own for the API, and those that let devices enrol."""

from datetime import timedelta

from django import forms

from fleet.dashboard.forms.device import LabelsField
from fleet.dashboard.forms.styling import StyledForm
from fleet.inventory.models import DeviceGroup
from fleet.registry.models import Target

HOUR, DAY = 3600, 86400
TOKEN_TIMES = [
    (str(30 * DAY), "30 days"),
    (str(90 * DAY), "90 days"),
    (str(365 * DAY), "one year"),
    ("0", "never"),
]
ENROLMENT_TIMES = [
    (str(HOUR), "one hour"),
    (str(DAY), "one day"),
    (str(7 * DAY), "one week"),
    (str(30 * DAY), "30 days"),
]


class TokenForm(StyledForm):
    """A new API token of one's own."""

    name = forms.CharField(max_length=100, help_text="What will use it, such as laptop or nightly-training.")
    expires = forms.ChoiceField(choices=TOKEN_TIMES, initial=TOKEN_TIMES[1][0])

    def lifetime(self) -> timedelta | None:
        """How long it is valid, or for ever."""
        seconds = int(self.cleaned_data["expires"])
        return timedelta(seconds=seconds) if seconds else None


class EnrolmentForm(StyledForm):
    """A new enrolment token."""

    target = forms.ModelChoiceField(
        queryset=Target.objects.exclude(runtime=Target.Runtime.TFLITE_MICRO),
        to_field_name="slug",
        empty_label=None,
    )
    uses = forms.IntegerField(
        min_value=1,
        max_value=100_000,
        initial=1,
        label="How many devices",
        help_text="Each enrolment takes one use.",
    )
    expires_in_s = forms.ChoiceField(choices=ENROLMENT_TIMES, initial=str(HOUR), label="Valid for")
    groups = forms.ModelMultipleChoiceField(
        queryset=DeviceGroup.objects.filter(rule=""),
        to_field_name="slug",
        required=False,
        widget=forms.CheckboxSelectMultiple,
        label="Put into groups",
    )
    labels = LabelsField()
