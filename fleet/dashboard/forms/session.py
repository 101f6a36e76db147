"""The log-in form."""

from typing import Any

from django.contrib.auth.forms import AuthenticationForm

from fleet.dashboard.forms.styling import style


class LoginForm(AuthenticationForm):
    """Django's own, in Tabler's clothes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            style(field)
