"""The tables of the list pages: columns, what is sortable, and how a cell is said."""

from typing import Any

import django_tables2 as tables
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from compression_jobs.models import Job
from fleet.dashboard import words
from fleet.dashboard.templatetags.tinyfleet import ago, state
from fleet.inventory.models import Device
from fleet.registry.models import Dataset
from fleet.rollouts.models import Rollout

RIGHT = {"th": {"class": "num"}, "td": {"class": "num"}}


class FleetTable(tables.Table):  # type: ignore[misc]  # the library is not typed
    """What all tables have in common."""

    class Meta:
        template_name = "dashboard/table.html"
        attrs = {"class": "table table-hover", "data-rows": "yes"}
        empty_text = "Nothing matches the filter."

    def render_state(self, value: str, record: Any) -> SafeString:
        """The state as a chip."""
        return state(record.state)

    def render_created_at(self, value: Any) -> Any:
        """When, in words."""
        return ago(value)


def row_link(address: str, text: str) -> SafeString:
    """The link of a row, which the keys j and k walk along."""
    return format_html('<a class="fw-bold" data-row href="{}">{}</a>', address, text)


class DeviceTable(FleetTable):
    """Devices with what they run and when they were last heard."""

    name = tables.Column(verbose_name="Device")
    presence = tables.Column(empty_values=(), order_by=("state", "-online", "last_seen_at"))
    target = tables.Column(accessor="target__slug", verbose_name="Target")
    runs = tables.Column(empty_values=(), orderable=False)
    delivery = tables.Column(empty_values=(), orderable=False, verbose_name="Delivery")
    groups = tables.Column(empty_values=(), orderable=False)
    last_seen_at = tables.Column(verbose_name="Last heard", empty_values=())

    class Meta(FleetTable.Meta):
        model = Device
        fields = ("name", "presence", "target", "runs", "delivery", "groups", "last_seen_at")
        order_by = "name"

    def render_name(self, record: Device) -> SafeString:
        """The name, leading to the device."""
        return row_link(reverse("dashboard:device", args=[record.name]), record.name)

    def value_name(self, record: Device) -> str:
        """The name alone, for CSV."""
        return record.name

    def render_presence(self, record: Device) -> SafeString:
        """In time, overdue, offline: as a chip."""
        return state(record.presence_text(timezone.now()))

    def value_presence(self, record: Device) -> str:
        """The same as plain words, for CSV."""
        return record.presence_text(timezone.now())

    def render_runs(self, record: Device) -> str:
        """What its apps run, as the device says."""
        return ", ".join(_runs(app, len(record.apps.all()) > 1) for app in record.apps.all()) or words.UNKNOWN

    def render_delivery(self, record: Device) -> Any:
        """The delivery at work, if any."""
        at_work = [app.delivery_state for app in record.apps.all() if app.delivery_state]
        return state(at_work[0]) if at_work else words.UNKNOWN

    def value_delivery(self, record: Device) -> str:
        """The same as plain words, for CSV."""
        return ", ".join(app.delivery_state for app in record.apps.all() if app.delivery_state)

    def render_groups(self, record: Device) -> str:
        """Groups it was put into by hand."""
        return ", ".join(group.slug for group in record.groups.all()) or words.UNKNOWN

    def render_last_seen_at(self, record: Device) -> Any:
        """When, in words."""
        return ago(record.last_seen_at)

    def value_last_seen_at(self, record: Device) -> str:
        """When, exactly, for CSV."""
        return record.last_seen_at.isoformat() if record.last_seen_at else ""


def _runs(app: Any, name_app: bool) -> str:
    if app.artifact:
        text = str(app.artifact.version)
    else:
        text = f"unknown {app.artifact_sha256[:8]}" if app.artifact_sha256 else "nothing"
    return f"{app.app}: {text}" if name_app else text


class RolloutTable(FleetTable):
    """Rollouts, newest first."""

    version = tables.Column(verbose_name="Rollout", order_by=("version__model__slug", "version__number"))
    state = tables.Column()
    progress = tables.Column(empty_values=(), orderable=False, verbose_name="Devices")
    reason = tables.Column(orderable=False)
    created_at = tables.Column(verbose_name="Made")

    class Meta(FleetTable.Meta):
        model = Rollout
        fields = ("version", "state", "progress", "reason", "created_at")

    def render_version(self, record: Rollout) -> SafeString:
        """What goes where."""
        return row_link(
            reverse("dashboard:rollout", args=[record.pk]), f"{record.version} → {record.group.slug}"
        )

    def render_progress(self, record: Any) -> str:
        """How many devices succeeded."""
        return f"{record.succeeded} of {record.total} succeeded" if record.total else words.UNKNOWN


class JobTable(FleetTable):
    """Compression jobs, newest first."""

    version = tables.Column(verbose_name="Job", order_by=("version__model__slug", "version__number"))
    state = tables.Column()
    targets = tables.Column(empty_values=(), orderable=False)
    dataset = tables.Column(accessor="dataset__name", verbose_name="Dataset")
    outcome = tables.Column(empty_values=(), orderable=False)
    created_at = tables.Column(verbose_name="Made")

    class Meta(FleetTable.Meta):
        model = Job
        fields = ("version", "state", "targets", "dataset", "outcome", "created_at")

    def render_version(self, record: Job) -> SafeString:
        """Which job, of which version."""
        return row_link(reverse("dashboard:job", args=[record.pk]), f"Job {record.pk}: {record.version}")

    def render_targets(self, record: Job) -> str:
        """For which hardware."""
        return ", ".join(target.slug for target in record.targets.all())

    def render_outcome(self, record: Job) -> str:
        """How many targets met their goals, or why not."""
        if record.results:
            met = sum(bool(result.get("met")) for result in record.results.values())
            return f"{met} of {words.plural(len(record.results), 'target')} met"
        return record.reason or words.UNKNOWN


class DatasetTable(FleetTable):
    """Datasets, newest first."""

    name = tables.Column(verbose_name="Dataset")
    state = tables.Column()
    rows = tables.Column(empty_values=(), orderable=False, attrs=RIGHT)
    bytes = tables.Column(verbose_name="Size", attrs=RIGHT)
    created_at = tables.Column(verbose_name="Uploaded")

    class Meta(FleetTable.Meta):
        model = Dataset
        fields = ("name", "state", "rows", "bytes", "created_at")

    def render_name(self, record: Dataset) -> SafeString:
        """The name, leading to the dataset."""
        return row_link(reverse("dashboard:dataset", args=[record.pk]), record.name)

    def render_rows(self, record: Dataset) -> str:
        """How many rows of all splits."""
        rows = record.facts.get("rows") or {}
        return words.count(sum(rows.values())) if rows else words.UNKNOWN

    def render_bytes(self, value: int) -> str:
        """In binary units."""
        return words.size(value)
