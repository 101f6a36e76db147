"""Forms of devices and groups."""

from typing import Any

from django import forms

from device_agent.core import protocol
from fleet.dashboard.forms.styling import StyledForm
from fleet.inventory.models import Device
from fleet.registry.models import slug_validator

LABELS_HINT = "One a line, such as site=berlin."


class LabelsField(forms.CharField):
    """Labels written one a line as name=value."""

    widget = forms.Textarea(attrs={"rows": 3, "class": "mono", "spellcheck": "false"})

    def __init__(self) -> None:
        super().__init__(required=False, help_text=LABELS_HINT, max_length=8000)

    def clean(self, value: Any) -> Any:
        """The labels as a dict; a line without `=` is named."""
        labels: dict[str, str] = {}
        for line in super().clean(value).splitlines():
            name, equals, text = line.partition("=")
            if not line.strip():
                continue
            if not equals:
                raise forms.ValidationError(f"'{line.strip()[:60]}' is no label; write name=value.")
            labels[name.strip()] = text.strip()
        return labels


def labels_text(labels: dict[str, str]) -> str:
    """Labels as they are edited."""
    return "\n".join(f"{name}={value}" for name, value in sorted(labels.items()))


class DeviceForm(StyledForm):
    """What a person may change about a device."""

    labels = LabelsField()


class CommandForm(StyledForm):
    """A command to a device."""

    name = forms.ChoiceField(
        label="Command", choices=[(name, name.replace("_", " ")) for name in protocol.COMMANDS]
    )


class GroupForm(StyledForm):
    """A group: by rule or by hand."""

    slug = forms.CharField(
        max_length=63,
        validators=[slug_validator],
        help_text="Short name used in addresses and the API; it stays.",
    )
    name = forms.CharField(max_length=120, required=False)
    description = forms.CharField(max_length=1000, required=False)
    rule = forms.CharField(
        max_length=500,
        required=False,
        help_text="Such as site=berlin and target=raspberry-pi-4. Devices that match belong, now and later. Empty: choose by hand.",
        widget=forms.TextInput(attrs={"class": "mono", "spellcheck": "false"}),
    )
    devices = forms.ModelMultipleChoiceField(
        queryset=Device.objects.exclude(state=Device.State.RETIRED),
        to_field_name="name",
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="Only for groups without a rule.",
    )
