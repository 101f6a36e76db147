"""The filters of the list pages; their values live in the URL."""

from typing import Any

import django_filters
from django import forms
from django.db.models import Q, QuerySet
from django.utils import timezone

from compression_jobs.models import Job
from fleet.dashboard.forms.styling import style
from fleet.inventory.models import Device, DeviceGroup
from fleet.inventory.services import members
from fleet.registry.models import Model, Target
from fleet.rollouts.models import Rollout

PRESENCE = [
    ("in-time", "in time"),
    ("overdue", "overdue"),
    ("offline", "offline"),
    ("never", "never seen"),
    ("revoked", "revoked"),
    ("retired", "retired"),
]


class FleetFilter(django_filters.FilterSet):  # type: ignore[misc]  # the library is not typed
    """What all filters have in common: Tabler's clothes, and bad values that filter nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.form.fields.values():
            style(field)

    @property
    def is_used(self) -> bool:
        """Whether anything is filtered."""
        return any(self.data.get(name) for name in self.filters)


class DeviceFilter(FleetFilter):
    """By name or label, target, group and presence."""

    q = django_filters.CharFilter(
        method="by_text",
        label="Name or label",
        widget=forms.TextInput(attrs={"type": "search", "maxlength": 100}),
    )
    target = django_filters.ModelChoiceFilter(
        queryset=Target.objects.all(), to_field_name="slug", empty_label="any"
    )
    group = django_filters.ModelChoiceFilter(
        queryset=DeviceGroup.objects.all(),
        to_field_name="slug",
        empty_label="any",
        method="by_group",
        label="Group",
    )
    presence = django_filters.ChoiceFilter(
        choices=PRESENCE, empty_label="any", method="by_presence", label="Presence"
    )

    class Meta:
        model = Device
        fields: list[str] = []

    def by_text(self, devices: QuerySet[Device], name: str, value: str) -> QuerySet[Device]:
        """Names that contain it, or labels of which one does."""
        return devices.filter(Q(name__icontains=value) | Q(labels__icontains=value))

    def by_group(self, devices: QuerySet[Device], name: str, value: DeviceGroup) -> QuerySet[Device]:
        """Members by hand or by rule."""
        if value.is_dynamic:
            return devices.filter(pk__in=[device.pk for device in members(value)])
        return devices.filter(groups=value)

    def by_presence(self, devices: QuerySet[Device], name: str, value: str) -> QuerySet[Device]:
        """The same words as `Device.presence_text`."""
        if value in (Device.State.REVOKED, Device.State.RETIRED):
            return devices.filter(state=value)
        active = devices.filter(state=Device.State.ACTIVE)
        if value == "never":
            return active.filter(last_seen_at=None)
        seen = active.exclude(last_seen_at=None)
        if value == "offline":
            return seen.filter(online=False)
        now = timezone.now()
        online = (
            Device.objects.filter(online=True).exclude(last_seen_at=None).only("last_seen_at", "heartbeat_s")
        )
        late = [device.pk for device in online if device.is_overdue(now)]
        return (
            seen.filter(pk__in=late) if value == "overdue" else seen.filter(online=True).exclude(pk__in=late)
        )


class RolloutFilter(FleetFilter):
    """By state, model and group."""

    state = django_filters.ChoiceFilter(
        choices=[(s, s.replace("_", " ")) for s in Rollout.State.values], empty_label="any", label="State"
    )
    model = django_filters.ModelChoiceFilter(
        field_name="version__model",
        label="Model",
        queryset=Model.objects.all(),
        to_field_name="slug",
        empty_label="any",
    )
    group = django_filters.ModelChoiceFilter(
        queryset=DeviceGroup.objects.all(), to_field_name="slug", empty_label="any"
    )

    class Meta:
        model = Rollout
        fields: list[str] = []


class JobFilter(FleetFilter):
    """By state, model and target."""

    state = django_filters.ChoiceFilter(choices=Job.State, empty_label="any")
    model = django_filters.ModelChoiceFilter(
        field_name="version__model",
        label="Model",
        queryset=Model.objects.all(),
        to_field_name="slug",
        empty_label="any",
    )
    target = django_filters.ModelChoiceFilter(
        field_name="targets",
        label="Target",
        queryset=Target.objects.all(),
        to_field_name="slug",
        empty_label="any",
    )

    class Meta:
        model = Job
        fields: list[str] = []
