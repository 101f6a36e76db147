"""The form of a simulated rollout: the wizard's, and what is true of the version."""

from typing import Any

from django import forms

from fleet.dashboard.forms.rollout import RolloutForm
from fleet.rollouts.simulation import MOST_ROLLOUTS, Truth


class SimulationForm(RolloutForm):
    """What goes where, and how bad it is."""

    failing = forms.FloatField(
        min_value=0,
        max_value=100,
        initial=10,
        label="Fails on (% of devices)",
        help_text="0: a perfect version.",
    )
    latency = forms.FloatField(
        min_value=0,
        max_value=100,
        required=False,
        label="Slower by (%)",
        help_text="Each device's median latency, where it keeps the version. Empty: 0.",
    )
    accuracy = forms.FloatField(
        min_value=0,
        max_value=100,
        required=False,
        label="Less accurate by (points)",
        help_text="Beyond what the trial on the device finds. Empty: 0.",
    )
    own_verdict = forms.BooleanField(
        required=False,
        initial=True,
        label="The trial on the device finds out; otherwise it cannot be installed",
    )
    rollouts = forms.IntegerField(
        min_value=100, max_value=MOST_ROLLOUTS, initial=2000, label="Rollouts to play"
    )

    def truth(self) -> Truth:
        """What the simulation takes to be true."""
        data = self.cleaned_data
        failing, latency, accuracy = ((data[name] or 0) / 100 for name in ("failing", "latency", "accuracy"))
        return Truth(failing, own_verdict=data["own_verdict"], latency=latency, accuracy=accuracy)

    def order(self) -> dict[str, Any]:
        """What the dry run takes."""
        data = self.cleaned_data
        return {"version": data["version"], "group": data["group"], "app": data["app"], "rules": self.rules()}
