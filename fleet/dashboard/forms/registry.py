"""Forms of models, uploads, aliases and jobs."""

from typing import Any

from django import forms

from compression_jobs.pipeline.effort import Effort
from fleet.dashboard.forms.styling import ModelChoice, ModelChoices, StyledForm
from fleet.registry.models import CheckState, Dataset, Model, ModelVersion, Target, slug_validator

OBJECTIVES = [
    ("bytes", "fewest bytes"),
    ("ram", "least RAM"),
    ("latency", "lowest latency"),
    ("accuracy", "highest accuracy"),
]


class MultipleFileInput(forms.ClearableFileInput):
    """A file input that takes several files."""

    allow_multiple_selected = True


class MultipleFileField(forms.FileField):
    """One or two files of one upload."""

    widget = MultipleFileInput

    def clean(self, data: Any, initial: Any = None) -> Any:
        """Every file checked as Django checks one."""
        files = data if isinstance(data, list | tuple) else [data]
        return [super(MultipleFileField, self).clean(file, initial) for file in files]


class ModelForm(StyledForm):
    """A new model."""

    slug = forms.CharField(
        max_length=63,
        validators=[slug_validator],
        help_text="Short name used in addresses and the API; it stays.",
    )
    name = forms.CharField(max_length=120, required=False)
    task = forms.ChoiceField(choices=Model.Task)
    description = forms.CharField(max_length=2000, required=False, widget=forms.Textarea(attrs={"rows": 2}))


class VersionForm(StyledForm):
    """A new version of a model."""

    model_files = MultipleFileField(
        label="Files",
        help_text="One .onnx or .tflite; torch's default exporter writes m.onnx and m.onnx.data: choose both.",
        widget=MultipleFileInput(attrs={"accept": ".onnx,.data,.tflite,.bin"}),
    )
    notes = forms.CharField(
        max_length=2000,
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="What changed, how it was trained.",
    )


class DatasetForm(StyledForm):
    """A new dataset."""

    file = forms.FileField(
        help_text="An .npz with x, y and, better, split (train, calibration, validation, test). Without a split the figures may stand on rows that were trained on.",
        widget=forms.FileInput(attrs={"accept": ".npz"}),
    )
    name = forms.CharField(max_length=120, required=False, help_text="Empty: the name of the file.")


class AliasForm(StyledForm):
    """A move of an alias to this version."""

    name = forms.CharField(max_length=63, validators=[slug_validator], initial="champion", label="Alias")
    reason = forms.CharField(max_length=500, required=False)


class VersionChoice(ModelChoice):
    """Versions as `digits v3`."""

    def label_from_instance(self, obj: Any) -> str:
        """Model and number."""
        return str(obj)


class DeployableChoice(VersionChoice):
    """The versions that have an artifact to deliver, newest first."""

    def __init__(self, **options: Any) -> None:
        found = ModelVersion.objects.filter(state=CheckState.READY, artifacts__isnull=False).distinct()
        ordered = found.select_related("model").order_by("model__slug", "-number")
        super().__init__(queryset=ordered, empty_label=None, **options)


class DatasetChoice(ModelChoice):
    """Datasets with their number of rows."""

    def label_from_instance(self, obj: Any) -> str:
        """Name and rows."""
        rows = sum((obj.facts.get("rows") or {}).values())
        return f"{obj.name} ({rows:,} rows)" if rows else str(obj.name)


class TargetChoices(ModelChoices):
    """Targets with their budget."""

    def label_from_instance(self, obj: Any) -> str:
        """Name and runtime."""
        return f"{obj.name} · {obj.runtime}"


class JobForm(StyledForm):
    """A new compression job."""

    version = VersionChoice(queryset=ModelVersion.objects.none(), empty_label=None)
    dataset = DatasetChoice(queryset=Dataset.objects.none(), empty_label=None)
    targets = TargetChoices(
        queryset=Target.objects.all(), to_field_name="slug", widget=forms.CheckboxSelectMultiple
    )
    min_accuracy = forms.FloatField(
        min_value=0,
        max_value=1,
        required=False,
        label="Accuracy of at least",
        help_text="Between 0 and 1, such as 0.90; R² in regression, the area under the ROC curve for anomalies.",
        widget=forms.NumberInput(attrs={"step": "any"}),
    )
    max_drop = forms.FloatField(
        min_value=0,
        max_value=1,
        required=False,
        label="Drop of at most",
        help_text="Against the original on the same rows, such as 0.03 for 3 points.",
        widget=forms.NumberInput(attrs={"step": "any"}),
    )
    objective = forms.ChoiceField(choices=OBJECTIVES, label="Among those that fit, take the one with")
    train_steps = forms.IntegerField(
        initial=Effort().train_steps,
        min_value=0,
        max_value=10_000_000,
        required=False,
        label="Training steps at most",
        help_text="What the search may spend over all targets; 0: only what needs no training.",
    )
    candidates = forms.IntegerField(
        initial=Effort().candidates, min_value=1, max_value=1000, required=False, label="Candidates at most"
    )
    max_seconds = forms.FloatField(
        min_value=1,
        required=False,
        label="Stop trying after so many seconds",
        help_text="The result then depends on the machine, and its lineage says so.",
    )
    seed = forms.IntegerField(
        initial=0, min_value=0, max_value=2**31, help_text="Same seed, versions and platform: same bytes."
    )

    def __init__(self, *args: Any, searches: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.searches = searches
        ready = ModelVersion.objects.filter(state=CheckState.READY).select_related("model")
        self.fields["version"].queryset = ready.order_by("model__slug", "-number")  # type: ignore[attr-defined]
        self.fields["dataset"].queryset = Dataset.objects.filter(state=CheckState.READY)  # type: ignore[attr-defined]

    @property
    def effort(self) -> Effort:
        """What the search may spend; what was left empty takes its default."""
        given = {name: self.cleaned_data[name] for name in Effort.model_fields}
        return Effort(**{name: value for name, value in given.items() if value is not None})

    def clean(self) -> dict[str, Any]:
        """A search must know what has to survive."""
        data = super().clean() or {}
        aimless = data.get("min_accuracy") is None and data.get("max_drop") is None
        if self.searches and aimless and not self.errors:
            raise forms.ValidationError("Say what must survive: an accuracy, a largest drop, or both.")
        return data
