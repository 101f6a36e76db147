"""An address that is told how rollouts end."""

from django import forms

from fleet.dashboard.forms.styling import StyledForm
from fleet.rollouts.models import Hook


class HookForm(StyledForm):
    """A web address or an e-mail address; what may not be told the service says."""

    kind = forms.ChoiceField(choices=Hook.Kind.choices)
    address = forms.CharField(
        max_length=500, help_text="https://host/path of a host in WEBHOOK_HOSTS, or an e-mail address."
    )
