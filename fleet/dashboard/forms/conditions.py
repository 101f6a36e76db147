"""The further fields of a rollout: who, when, how fast, for how many bytes."""

from typing import Any

from django import forms

from fleet.dashboard.forms.styling import StyledForm
from fleet.rollouts.conditions import MAX_BYTES


def _share(label: str, help_text: str) -> forms.CharField:
    return forms.CharField(max_length=8, required=False, label=label, help_text=help_text)


def _bytes(label: str, help_text: str = "") -> forms.IntegerField:
    return forms.IntegerField(
        min_value=1, max_value=MAX_BYTES, required=False, label=label, help_text=help_text
    )


class ConditionsForm(StyledForm):
    """Every field may stay empty."""

    rule = forms.CharField(
        max_length=500, required=False, label="Only devices that match", help_text="Such as site=berlin."
    )
    exclude = forms.CharField(
        max_length=500,
        required=False,
        label="Never these",
        help_text="Such as site=lab or name in (pi-1, pi-2).",
    )
    share = _share("Only a share", "Such as 40%, chosen at random.")
    hold_back = _share("Held back", "Such as 10%: these stay on what they run, for comparison.")
    window_cron = forms.CharField(
        max_length=100,
        required=False,
        label="Window: opens at",
        help_text="Cron: 0 2 * * * is 02:00 every day.",
    )
    window_minutes = forms.IntegerField(
        min_value=1, max_value=7 * 24 * 60, required=False, label="Window: minutes", help_text="Empty: 120."
    )
    window_zone = forms.CharField(
        max_length=64,
        required=False,
        label="Window: time zone",
        help_text="Of devices without the label timezone. Empty: UTC.",
    )
    per_minute = forms.IntegerField(
        min_value=1,
        max_value=100_000,
        required=False,
        label="Devices a minute",
        help_text="At first; doubles with each ten that succeeded. Empty: as waves allow.",
    )
    device_bytes_per_day = _bytes("Bytes a device and day")
    site_bytes_per_day = _bytes("Bytes a site and day", "For all devices with one label site together.")
    priority = forms.IntegerField(
        min_value=-100,
        max_value=100,
        required=False,
        label="Priority",
        help_text="Takes devices from rollouts of a lower one. Empty: 0.",
    )
    approve_waves = forms.BooleanField(required=False, label="A person says yes before each further wave")

    def conditions(self) -> dict[str, Any]:
        """Parts of the strategy; what is empty is left to its defaults."""
        data = self.cleaned_data
        who = {name: data[name].strip() for name in ("rule", "exclude", "share", "hold_back")}
        budgets = {name: data[name] for name in ("device_bytes_per_day", "site_bytes_per_day")}
        parts: dict[str, Any] = {"who": who, "budgets": budgets, "approve_waves": data["approve_waves"]}
        if data["window_cron"]:
            parts["window"] = {
                "cron": data["window_cron"],
                "minutes": data["window_minutes"] or 120,
                "zone": data["window_zone"] or "UTC",
            }
        if data["per_minute"]:
            parts["rate"] = {"per_minute": data["per_minute"]}
        return parts | {"priority": data["priority"] or 0}
