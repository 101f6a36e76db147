"""Groups of devices."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone

from fleet.accounts.roles import Role
from fleet.dashboard.access import attempt, page, reader
from fleet.dashboard.forms.device import GroupForm
from fleet.dashboard.words import plural
from fleet.inventory import services
from fleet.inventory.labels import facts_of
from fleet.inventory.models import Device, DeviceGroup
from fleet.inventory.selection import RuleError, parse
from fleet.rollouts.models import Rollout


@page()
def index(request: HttpRequest) -> HttpResponse:
    """Every group with how many devices belong to it now."""
    groups = list(DeviceGroup.objects.prefetch_related("members"))
    facts = [facts_of(d) for d in Device.objects.exclude(state=Device.State.RETIRED).select_related("target")]
    rows = [(group, _size(group, facts)) for group in groups]
    return render(request, "dashboard/pages/groups.html", {"section": "groups", "rows": rows})


def _size(group: DeviceGroup, facts: list[dict[str, str]]) -> int:
    if not group.is_dynamic:
        return sum(device.state != Device.State.RETIRED for device in group.members.all())
    try:
        rule = parse(group.rule)
    except RuleError:
        return 0
    return sum(rule.matches(each) for each in facts)


@page()
def show(request: HttpRequest, slug: str) -> HttpResponse:
    """One group: its rule or list, its devices, its rollouts."""
    group = services.group_named(slug)
    now = timezone.now()
    context = {
        "section": "groups",
        "group": group,
        "members": [(device, device.presence_text(now)) for device in services.members(group)],
        "rollouts": Rollout.objects.filter(group=group).select_related("version__model", "group")[:20],
    }
    return render(request, "dashboard/pages/group.html", context)


@page("GET", "POST", role=Role.OPERATOR)
def new(request: HttpRequest) -> HttpResponse:
    """Make a group."""
    form = GroupForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        made = attempt(
            request,
            lambda: services.create_group(
                reader(request),
                data["slug"],
                name=data["name"],
                description=data["description"],
                rule=data["rule"],
                devices=_names(data),
            ),
            f"Group {data['slug']} is made.",
        )
        if made:
            return redirect("dashboard:group", made.slug)
    return render(
        request, "dashboard/pages/group_form.html", {"section": "groups", "form": form, "group": None}
    )


@page("GET", "POST", role=Role.OPERATOR)
def edit(request: HttpRequest, slug: str) -> HttpResponse:
    """Change a group."""
    group = services.group_named(slug)
    form = GroupForm(request.POST or None, initial=_initial(group))
    form.fields["slug"].disabled = True
    if request.method == "POST" and form.is_valid():
        changed = attempt(
            request, lambda: _change(request, group, form.cleaned_data), "The group is changed."
        )
        if changed:
            return redirect("dashboard:group", group.slug)
    return render(
        request, "dashboard/pages/group_form.html", {"section": "groups", "form": form, "group": group}
    )


def _change(request: HttpRequest, group: DeviceGroup, data: dict[str, Any]) -> DeviceGroup:
    user = reader(request)
    changed = services.update_group(
        user, group, name=data["name"], description=data["description"], rule=data["rule"]
    )
    return changed if changed.is_dynamic else services.set_members(user, changed, _names(data))


@page("POST", role=Role.OPERATOR)
def delete(request: HttpRequest, slug: str) -> HttpResponse:
    """Delete a group; its devices stay."""
    group = services.group_named(slug)
    number = len(services.members(group))
    if attempt(
        request,
        lambda: _delete(request, group),
        f"Group {slug} is deleted; its {plural(number, 'device')} stay.",
    ):
        return redirect("dashboard:groups")
    return redirect("dashboard:group", slug)


def _delete(request: HttpRequest, group: DeviceGroup) -> bool:
    services.delete_group(reader(request), group)
    return True


def _names(data: dict[str, Any]) -> list[str]:
    return [device.name for device in data["devices"]]


def _initial(group: DeviceGroup) -> dict[str, Any]:
    devices = [] if group.is_dynamic else list(group.members.values_list("name", flat=True))
    return {
        "slug": group.slug,
        "name": group.name,
        "description": group.description,
        "rule": group.rule,
        "devices": devices,
    }
