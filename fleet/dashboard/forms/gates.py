"""The further fields of a rollout: what a device's trial asks for, and what the gates tolerate."""

from typing import Any, ClassVar

from django import forms

from fleet.dashboard.forms.conditions import number
from fleet.dashboard.forms.styling import StyledForm
from fleet.rollouts.strategy import Strategy, Tolerances, TrialRules

_PERCENT = 100
_LIMITS = ("alpha", "beta", "p0", "p1", "safety_limit")


def _percent(label: str, default: float | None, help_text: str = "") -> forms.FloatField:
    return forms.FloatField(
        min_value=0,
        max_value=100,
        required=False,
        label=f"{label} (%)",
        initial=None if default is None else round(default * _PERCENT, 4),
        help_text=help_text,
    )


def _limit(name: str, label: str, help_text: str = "") -> forms.FloatField:
    return _percent(label, Strategy.model_fields[name].default, help_text)


def _tolerated(name: str, label: str, help_text: str = "") -> forms.FloatField:
    return _percent(label, Tolerances.model_fields[name].default, help_text or "Empty: not judged.")


class GatesForm(StyledForm):
    """Every field has its default."""

    max_errors = number("Trial: errors allowed", "Empty: 0.", low=0, high=1_000_000)
    deadline_us = number("Trial: deadline of an inference (µs)", "Empty: none.", high=10**9)
    accuracy_floor = _percent(
        "Trial: accuracy floor", None, "Empty: the lower end of the artifact's interval on test rows."
    )
    trial_alpha = _percent("Trial: false roll-backs", TrialRules.model_fields["alpha"].default)
    p0 = _limit("p0", "Failing devices that are tolerated")
    p1 = _limit("p1", "Failing devices that must not get through")
    alpha = _limit("alpha", "Good rollouts that may be stopped", "However often gates look.")
    beta = _limit("beta", "Bad ones that may get through on evidence")
    safety_limit = _limit("safety_limit", "Failed devices that stop it at once", "From 20 devices on.")
    tolerated_accuracy = _tolerated("accuracy", "Loss of right answers")
    tolerated_latency = _tolerated("latency", "Rise of the median latency")
    tolerated_errors = _tolerated("errors", "Rise of failing inferences")
    tolerated_heap = _tolerated("heap", "Loss of the least free heap")
    tolerated_confidence = _tolerated(
        "confidence", "Fall of the mean confidence", "Asks a person. Empty: not judged."
    )
    tolerated_class_mix = _tolerated(
        "class_mix", "Change of the mix of answers", "Asks a person. Empty: not judged."
    )
    tolerated_disagreement = _tolerated(
        "disagreement", "Answers that differ in the shadow", "Asks a person. Empty: not judged."
    )

    SECTIONS: ClassVar[dict[str, tuple[str, ...]]] = {
        "What a trial asks for": ("max_errors", "deadline_us", "accuracy_floor", "trial_alpha"),
        "What the gates tolerate": (*("p0", "p1", "alpha", "beta", "safety_limit"), *(
            f"tolerated_{name}" for name in Tolerances.model_fields
        )),
    }  # fmt: skip

    def __init__(self, data: Any = None, *args: Any, **kwargs: Any) -> None:
        if data:
            # What a link does not name keeps its default, on the page as well; only a person can empty it.
            data = data.copy()
            for names in GatesForm.SECTIONS.values():
                for name in names:
                    data.setdefault(
                        name, "" if (initial := self.base_fields[name].initial) is None else initial
                    )
        super().__init__(data, *args, **kwargs)

    def limits(self) -> dict[str, Any]:
        """Parts of the strategy."""
        given = {name: self._share(name) for name in _LIMITS}
        tolerated = {name: self._share(f"tolerated_{name}") for name in Tolerances.model_fields}
        return {
            **{name: value for name, value in given.items() if value is not None},
            "tolerated": tolerated,
        }

    def trial(self) -> dict[str, Any]:
        """Parts of the trial's rules."""
        data = self.cleaned_data
        given = {
            "max_errors": data["max_errors"],
            "deadline_us": data["deadline_us"],
            "accuracy_floor": self._share("accuracy_floor"),
            "alpha": self._share("trial_alpha"),
        }
        return {name: value for name, value in given.items() if value is not None}

    def _share(self, name: str) -> float | None:
        """0.25 for 25; None for what was emptied."""
        value = self.cleaned_data[name]
        return None if value is None else round(value / _PERCENT, 6)
