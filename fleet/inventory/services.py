"""Verbs of the inventory, shared by pages, API and command line: devices, groups, commands."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.deletion import ProtectedError

from device_agent.core import protocol
from fleet import events
from fleet.accounts.roles import Caller, Role, require
from fleet.errors import Conflict, Duplicate, NotFound, Refused
from fleet.inventory import selection
from fleet.inventory.labels import check_labels, facts_of
from fleet.inventory.models import BrokerGrant, Command, Device, DeviceGroup
from fleet.registry.models import slug_validator

MAX_COMMAND_SECONDS = 7 * 24 * 3600
MAX_ARGS = 20


# --- devices -------------------------------------------------------------------------------------


def device_named(name: str) -> Device:
    """The device, or NotFound."""
    device = Device.objects.select_related("target").filter(name=name).first()
    if device is None:
        raise NotFound(f"there is no device '{name[:80]}'", remedy="Look at the list of devices.")
    return device


def set_labels(user: Caller, device: Device, labels: Mapping[str, str]) -> Device:
    """Replace a device's labels; label rules see the new ones at once."""
    require(user, Role.OPERATOR)
    device.labels = check_labels(labels)
    device.save(update_fields=["labels"])
    events.publish("devices", f"device:{device.name}")
    return device


def revoke(user: Caller, device: Device) -> Device:
    """Throw a device off the broker and never let these credentials in again."""
    require(user, Role.ADMIN)
    return _put_away(device, Device.State.REVOKED)


def retire(user: Caller, device: Device) -> Device:
    """Take a device out of service; its history stays."""
    require(user, Role.OPERATOR)
    return _put_away(device, Device.State.RETIRED)


def reinstate(user: Caller, device: Device) -> Device:
    """Let a revoked or retired device enrol again; its old credentials stay worthless."""
    require(user, Role.ADMIN)
    with transaction.atomic():
        changed = Device.objects.filter(pk=device.pk).exclude(state=Device.State.ACTIVE)
        if changed.update(state=Device.State.ACTIVE, online=False):
            BrokerGrant.objects.filter(device=device).update(generation=F("generation") + 1, due=True)
            events.publish("devices", f"device:{device.name}", "overview")
    device.refresh_from_db()
    return device


def _put_away(device: Device, state: str) -> Device:
    with transaction.atomic():
        Device.objects.filter(pk=device.pk).update(state=state, online=False)
        BrokerGrant.objects.update_or_create(device=device, defaults={"allowed": False, "due": True})
        Command.objects.filter(device=device, state__in=(Command.State.PENDING, Command.State.SENT)).update(
            state=Command.State.EXPIRED, due=False
        )
        events.publish("devices", f"device:{device.name}", "overview")
        events.wake_outbox()
    device.refresh_from_db()
    return device


# --- commands ------------------------------------------------------------------------------------


def send_command(
    user: Caller,
    device: Device,
    name: str,
    *,
    now: datetime,
    app: str = "main",
    args: Mapping[str, Any] | None = None,
    expires_in_s: int = 3600,
) -> Command:
    """Queue one command; it goes again at every hello until the device answers or it expires."""
    require(user, Role.OPERATOR)
    if device.state != Device.State.ACTIVE:
        raise Conflict(f"{device.name} is {device.state} and hears no commands", remedy="Reinstate it first.")
    if name not in protocol.COMMANDS:
        raise Refused(
            f"there is no command '{name[:40]}'", remedy=f"Commands: {', '.join(protocol.COMMANDS)}."
        )
    if not protocol.is_id(app):
        raise Refused(f"'{app[:80]}' is no app name", remedy="Use letters, digits, hyphen and underscore.")
    if len(args or {}) > MAX_ARGS:
        raise Refused(f"a command takes at most {MAX_ARGS} arguments", remedy="Leave some out.")
    if not 1 <= expires_in_s <= MAX_COMMAND_SECONDS:
        raise Refused(f"expires_in_s is {expires_in_s}", remedy=f"Use 1 to {MAX_COMMAND_SECONDS}.")
    with transaction.atomic():
        command = Command.objects.create(
            id=uuid.uuid4(),
            device=device,
            app=app,
            name=name,
            args=dict(args or {}),
            created_by_id=user.pk,
            expires_at=now + timedelta(seconds=expires_in_s),
        )
        events.publish(f"device:{device.name}")
        events.wake_outbox()
    return command


def expire_commands(now: datetime) -> int:
    """Give up commands whose time is over."""
    waiting = Command.objects.filter(
        state__in=(Command.State.PENDING, Command.State.SENT), expires_at__lte=now
    )
    return waiting.update(state=Command.State.EXPIRED, due=False)


# --- groups --------------------------------------------------------------------------------------


def group_named(slug: str) -> DeviceGroup:
    """The group, or NotFound."""
    group = DeviceGroup.objects.filter(slug=slug).first()
    if group is None:
        raise NotFound(f"there is no group '{slug[:80]}'", remedy="Look at the list of groups, or create it.")
    return group


def create_group(
    user: Caller,
    slug: str,
    *,
    name: str = "",
    description: str = "",
    rule: str = "",
    devices: Sequence[str] = (),
) -> DeviceGroup:
    """A new group, by rule or by hand."""
    require(user, Role.OPERATOR)
    _check_slug(slug)
    rule = _checked_rule(rule, devices)
    members = _devices(devices)
    if DeviceGroup.objects.filter(slug=slug).exists():
        raise Duplicate(
            f"group '{slug}' is here already", remedy="Choose another slug, or change that group."
        )
    with transaction.atomic():
        group = DeviceGroup.objects.create(slug=slug, name=name or slug, description=description, rule=rule)
        group.members.set(members)
        events.publish("devices", "groups")
    return group


def update_group(
    user: Caller,
    group: DeviceGroup,
    *,
    name: str | None = None,
    description: str | None = None,
    rule: str | None = None,
) -> DeviceGroup:
    """Change what is given; a rule given to a hand-made group replaces its list."""
    require(user, Role.OPERATOR)
    group.name = group.name if name is None else name
    group.description = group.description if description is None else description
    with transaction.atomic():
        if rule is not None:
            group.rule = _checked_rule(rule, ())
            if group.rule:
                group.members.clear()
        group.save()
        events.publish("devices", "groups")
    return group


def set_members(user: Caller, group: DeviceGroup, devices: Sequence[str]) -> DeviceGroup:
    """Replace the members of a hand-made group."""
    require(user, Role.OPERATOR)
    if group.is_dynamic:
        raise Conflict(
            f"group '{group.slug}' has the rule '{group.rule}', so nobody joins it by hand",
            remedy="Change the rule, or empty it first.",
        )
    group.members.set(_devices(devices))
    events.publish("devices", "groups")
    return group


def delete_group(user: Caller, group: DeviceGroup) -> None:
    """Delete a group that no rollout names; its devices stay."""
    require(user, Role.OPERATOR)
    try:
        group.delete()
    except ProtectedError as error:
        raise Conflict(
            f"group '{group.slug}' is named by rollouts, whose history would be lost",
            remedy="Empty it instead.",
        ) from error
    events.publish("devices", "groups")


def members(group: DeviceGroup, known: QuerySet[Any, Any] | None = None) -> list[Device]:
    """Devices of a group by name: those of the list, or those that the rule matches now; without retired ones.

    `known` are keys of devices that are not asked for. Columns that say how a device is doing are not read with them.
    """
    among = in_service() if known is None else in_service().exclude(pk__in=known)
    # Ten thousand devices share a handful of targets, which are read once.
    among = among.select_related(None).prefetch_related("target")
    among = among.only("name", "target", "labels", "state", "hello")
    if not group.is_dynamic:
        return list(among.filter(groups=group))
    return matching(group.rule, among)


def members_among(group: DeviceGroup, devices: Iterable[Device]) -> set[int]:
    """Keys of those of the devices that belong to the group now."""
    asked = {device.pk: device for device in devices}
    if not group.is_dynamic:
        return set(group.members.filter(pk__in=asked).values_list("pk", flat=True))
    rule = _parsed(group.rule)
    return {pk for pk, device in asked.items() if rule.matches(facts_of(device))}


def in_service() -> QuerySet[Device]:
    """Devices that groups can have: all but retired ones."""
    return Device.objects.select_related("target").exclude(state=Device.State.RETIRED)


def matching(rule: str, devices: Iterable[Device] | None = None) -> list[Device]:
    """Devices that a label rule matches; Refused with the position when it cannot be read."""
    parsed = _parsed(rule)
    among = in_service() if devices is None else devices
    return [device for device in among if parsed.matches(facts_of(device))]


def groups_of(device: Device) -> list[DeviceGroup]:
    """Every group a device belongs to now, by hand or by rule."""
    facts = facts_of(device)
    by_hand = set(device.groups.values_list("pk", flat=True))
    return [
        group
        for group in DeviceGroup.objects.all()
        if (selection.parse(group.rule).matches(facts) if group.is_dynamic else group.pk in by_hand)
    ]


def _check_slug(slug: str) -> None:
    if not slug_validator.regex.search(slug):  # type: ignore[union-attr]  # compiled when first used
        raise Refused(f"'{slug[:80]}' is no slug", remedy=str(slug_validator.message))


def _parsed(rule: str) -> selection.Rule:
    try:
        return selection.parse(rule)
    except selection.RuleError as error:
        raise Refused(
            f"the rule cannot be read: {error}",
            remedy="Write it like: site=berlin and target in (raspberry-pi-4, raspberry-pi-5).",
        ) from error


def _checked_rule(rule: str, devices: Sequence[str]) -> str:
    rule = rule.strip()
    if rule and devices:
        raise Refused("a group has either a rule or a list of devices", remedy="Leave one of them out.")
    if rule:
        _parsed(rule)
    return rule


def _devices(names: Sequence[str]) -> list[Device]:
    found = list(Device.objects.filter(name__in=names))
    missing = sorted(set(names) - {device.name for device in found})
    if missing:
        raise NotFound(
            f"there is no device '{missing[0][:80]}'"
            + (f" ({len(missing)} are unknown)" if len(missing) > 1 else ""),
            remedy="Enrol it first, or correct the name.",
            problems=[f"unknown device: {name[:80]}" for name in missing[:50]],
        )
    return found
