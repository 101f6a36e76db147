"""What ran where and when: the question."""

from datetime import UTC

from django import forms

from fleet.dashboard.forms.styling import StyledForm
from fleet.inventory.history import Question


class HistoryForm(StyledForm):
    """Everything may be left empty."""

    device = forms.CharField(max_length=64, required=False)
    group = forms.CharField(max_length=63, required=False)
    model = forms.CharField(max_length=63, required=False)
    version = forms.IntegerField(min_value=1, max_value=2**31 - 1, required=False)
    target = forms.CharField(max_length=63, required=False)
    since = forms.DateTimeField(
        required=False, label="From (UTC)", widget=forms.DateTimeInput(attrs={"type": "datetime-local"})
    )
    until = forms.DateTimeField(
        required=False, label="To (UTC)", widget=forms.DateTimeInput(attrs={"type": "datetime-local"})
    )

    def question(self) -> Question:
        """As the query takes it."""
        data = {name: value for name, value in self.cleaned_data.items() if value}
        for name in ("since", "until"):
            if name in data:
                data[name] = data[name].replace(tzinfo=UTC)
        return Question(**data)
