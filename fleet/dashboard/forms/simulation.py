"""The form of a simulated rollout: the wizard's, and what is true of the version."""

from typing import Any

from django import forms

from fleet.dashboard.forms.rollout import RolloutForm
from fleet.rollouts.imagined import USUAL_ANSWER_S, Truth
from fleet.rollouts.simulation import MOST_ROLLOUTS


def hundredths(label: str, help_text: str, least: float = 0) -> forms.FloatField:
    """A field in percent or points that may be left empty."""
    return forms.FloatField(min_value=least, max_value=100, required=False, label=label, help_text=help_text)


class SimulationForm(RolloutForm):
    """What goes where, and how bad it is."""

    failing = forms.FloatField(
        min_value=0,
        max_value=100,
        initial=10,
        label="Fails on (% of devices)",
        help_text="0: a perfect version.",
    )
    latency = hundredths(
        "Slower by (%)", "Each device's median latency, where it keeps the version. Empty: 0."
    )
    accuracy = hundredths("Less accurate by (points)", "Beyond what the trial on the device finds. Empty: 0.")
    confidence = hundredths("Less sure by (points)", "Fall of the mean confidence of its answers. Empty: 0.")
    season = hundredths(
        "Everything slower by (%)",
        "What happens to every device meanwhile, whatever it runs: a hot summer. Empty: 0.",
        least=-100,
    )
    answer_hours = forms.FloatField(
        min_value=0,
        max_value=720,
        required=False,
        initial=USUAL_ANSWER_S / 3600,
        label="People answer within (hours)",
        help_text="Half of them: approvals, what a gate asks, owners of devices that ask. Empty: 4.",
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
        names = ("failing", "latency", "accuracy", "confidence", "season")
        share = {name: (data[name] or 0) / 100 for name in names}
        return Truth(
            share["failing"],
            own_verdict=data["own_verdict"],
            latency=share["latency"],
            accuracy=share["accuracy"],
            confidence=share["confidence"],
            season={"latency": share["season"]},
        )

    def answer_seconds(self) -> float:
        """What half of the people who are asked take at most."""
        hours = self.cleaned_data["answer_hours"]
        return USUAL_ANSWER_S if hours is None else float(hours) * 3600

    def order(self) -> dict[str, Any]:
        """What the dry run takes."""
        data = self.cleaned_data
        return {"version": data["version"], "group": data["group"], "app": data["app"], "rules": self.rules()}
