"""The form of a simulated rollout: the wizard's, and what is true of the version."""

from typing import Any

from django import forms

from fleet.dashboard.forms.rollout import RolloutForm
from fleet.rollouts.simulation import MOST_ROLLOUTS


class SimulationForm(RolloutForm):
    """What goes where, and how bad it is."""

    failing = forms.FloatField(
        min_value=0,
        max_value=100,
        initial=10,
        label="Fails on (% of devices)",
        help_text="0: a perfect version.",
    )
    own_verdict = forms.BooleanField(
        required=False,
        initial=True,
        label="The trial on the device finds out; otherwise it cannot be installed",
    )
    rollouts = forms.IntegerField(
        min_value=100, max_value=MOST_ROLLOUTS, initial=2000, label="Rollouts to play"
    )

    def order(self) -> dict[str, Any]:
        """What the dry run takes."""
        data = self.cleaned_data
        return {"version": data["version"], "group": data["group"], "app": data["app"], "rules": self.rules()}
