"""The further fields of a rollout: who, when, how fast, for how many bytes, and what is tried again."""

from typing import Any, ClassVar

from django import forms

from fleet.dashboard.forms.styling import ModelChoices, StyledForm
from fleet.inventory.models import DeviceGroup
from fleet.rollouts.conditions import DAY_S, MAX_BYTES

PACES = [
    ("", "from 20 devices on"),
    ("yes", "always"),
    ("no", "never: everybody of a wave at once"),
]

JOINERS = [
    ("join", "are asked while the rollout runs"),
    ("always", "are asked, after its end as well"),
    ("ignore", "are not asked"),
]


def text(label: str, help_text: str, max_length: int = 500) -> forms.CharField:
    """A text that may stay empty."""
    return forms.CharField(max_length=max_length, required=False, label=label, help_text=help_text)


def number(label: str, help_text: str = "", low: int = 1, high: int = 30 * DAY_S) -> forms.IntegerField:
    """A whole number that may stay empty."""
    return forms.IntegerField(min_value=low, max_value=high, required=False, label=label, help_text=help_text)


def factor(label: str, help_text: str) -> forms.FloatField:
    """By how much something grows; it may stay empty."""
    return forms.FloatField(min_value=1, max_value=10, required=False, label=label, help_text=help_text)


class ConditionsForm(StyledForm):
    """Every field may stay empty."""

    rule = text("Only devices that match", "Such as site=berlin.")
    exclude = text("Never these", "Such as site=lab or name in (pi-1, pi-2).")
    exclude_groups = ModelChoices(
        queryset=DeviceGroup.objects.all(),
        to_field_name="slug",
        required=False,
        label="Never devices of these groups",
    )
    share = text("Only a share", "Such as 40%, chosen at random.", 8)
    hold_back = text("Held back", "Such as 10%: these stay on what they run, for comparison.", 8)
    must_pass_through = text(
        "By way of versions", "Such as 2, 3: devices below them install these first.", 100
    )
    late_joiners = forms.ChoiceField(
        choices=JOINERS, required=False, label="Devices that enter the group later"
    )

    window_cron = text("Window: opens at", "Cron: 0 2 * * * is 02:00 every day.", 100)
    window_minutes = number("Window: minutes", "Empty: 120.", high=7 * 24 * 60)
    window_zone = text("Window: time zone", "Of devices without the label timezone. Empty: UTC.", 64)
    priority = number("Priority", "Takes devices from rollouts of a lower one. Empty: 0.", low=-100, high=100)
    approve_waves = forms.BooleanField(required=False, label="A person says yes before each further wave")
    ignore_consent = forms.BooleanField(
        required=False, label="Owners are not asked, even where a device or its label says so"
    )

    paced = forms.ChoiceField(choices=PACES, required=False, label="Waves open in parts")
    per_minute = number("Devices a minute", "At first. Empty: as waves allow.", high=100_000)
    rate_factor = factor("Rate grows by", "Empty: doubles.")
    rate_after = number("Grows after so many successes", "Empty: 10.", high=100_000)
    rate_most = number("At most a minute", "Empty: 10000.", high=100_000)
    device_bytes_per_day = number(
        "Bytes a device and day", "A device's label bytes_per_day may be smaller.", high=MAX_BYTES
    )
    site_bytes_per_day = number(
        "Bytes a site and day", "For all devices with one label site together.", high=MAX_BYTES
    )

    delivery_timeout_s = number("Whole delivery (seconds)", "Empty: 3600, or longer where the trial is.")
    timeout_offered = number("Offered, no answer (seconds)", "Empty: as the whole.")
    timeout_downloading = number("Downloading (seconds)", "Empty: as the whole.")
    timeout_verifying = number("Verifying (seconds)", "Empty: as the whole.", high=DAY_S)
    timeout_testing = number("Self-test (seconds)", "Empty: as the whole.", high=DAY_S)
    timeout_consent = number("Owner's answer (seconds)", "Empty: 30 days.")
    retry_attempts = number("Tries in all", "Of what failed or timed out. Empty: 1.", high=20)
    retry_first_wait_s = number("Wait before the second (seconds)", "Empty: 60.", high=DAY_S)
    retry_factor = factor("Each wait grows by", "Empty: doubles.")
    retry_most_wait_s = number("Longest wait (seconds)", "Empty: 6 hours.", high=7 * DAY_S)

    SECTIONS: ClassVar[dict[str, tuple[str, ...]]] = {
        "Who": (
            *("rule", "exclude", "exclude_groups", "share", "hold_back", "must_pass_through"),
            "late_joiners",
        ),
        "When": (
            *("window_cron", "window_minutes", "window_zone", "priority"),
            *("approve_waves", "ignore_consent"),
        ),
        "How fast": (
            *("paced", "per_minute", "rate_factor", "rate_after", "rate_most"),
            *("device_bytes_per_day", "site_bytes_per_day"),
        ),
        "Time-outs and further tries": (
            *("delivery_timeout_s", "timeout_offered", "timeout_downloading", "timeout_verifying"),
            *("timeout_testing", "timeout_consent", "retry_attempts", "retry_first_wait_s"),
            *("retry_factor", "retry_most_wait_s"),
        ),
    }

    def conditions(self) -> dict[str, Any]:
        """Parts of the strategy; what is empty is left to its defaults."""
        data = self.cleaned_data
        parts: dict[str, Any] = {
            "who": self._who(),
            "priority": data["priority"] or 0,
            "approve_waves": data["approve_waves"],
            "ask_consent": not data["ignore_consent"],
            "paced": {"yes": True, "no": False}.get(data["paced"]),
            "budgets": {name: data[name] for name in ("device_bytes_per_day", "site_bytes_per_day")},
            "step_timeouts": self._given(
                "timeout_", "offered", "downloading", "verifying", "testing", "consent"
            ),
            "retry": self._given("retry_", "attempts", "first_wait_s", "factor", "most_wait_s"),
        }
        if data["window_cron"]:
            parts["window"] = {
                "cron": data["window_cron"],
                "minutes": data["window_minutes"] or 120,
                "zone": data["window_zone"] or "UTC",
            }
        if data["per_minute"]:
            rate = self._given("rate_", "factor", "after", "most")
            names = {"after": "after_successes", "most": "most_per_minute"}
            grows = {names.get(name, name): value for name, value in rate.items()}
            parts["rate"] = {"per_minute": data["per_minute"], **grows}
        return parts

    def _who(self) -> dict[str, Any]:
        data = self.cleaned_data
        way = [part.strip() for part in data["must_pass_through"].replace(";", ",").split(",")]
        return {
            **{name: data[name].strip() for name in ("rule", "exclude", "share", "hold_back")},
            "exclude_groups": [group.slug for group in data["exclude_groups"]],
            "must_pass_through": [part for part in way if part],
            "late_joiners": data["late_joiners"] or "join",
        }

    def _given(self, prefix: str, *names: str) -> dict[str, Any]:
        """Those that are filled in, by name."""
        data = {name: self.cleaned_data[prefix + name] for name in names}
        return {name: value for name, value in data.items() if value is not None}
