"""Forms that look like Tabler's: one class a widget, and a place for what the server refused."""

from typing import TYPE_CHECKING, Any

from django import forms

from fleet.errors import FleetError

if TYPE_CHECKING:
    # Django's own fields take a type only for type checkers.
    ModelChoice = forms.ModelChoiceField[Any]
    ModelChoices = forms.ModelMultipleChoiceField[Any]
else:
    ModelChoice, ModelChoices = forms.ModelChoiceField, forms.ModelMultipleChoiceField


class StyledForm(forms.Form):
    """A form whose widgets carry Tabler's classes; `refusal` holds what a service refused."""

    refusal: FleetError | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            style(field)


def style(field: forms.Field) -> None:
    """Give one widget its class."""
    widget = field.widget
    if isinstance(widget, forms.CheckboxInput | forms.CheckboxSelectMultiple | forms.RadioSelect):
        name = "form-check-input"
    elif isinstance(widget, forms.Select):
        name = "form-select"
    else:
        name = "form-control"
    widget.attrs["class"] = f"{widget.attrs.get('class', '')} {name}".strip()
