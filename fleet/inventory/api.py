"""REST: devices, commands, groups, enrolment."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from ninja import Field, Router, Schema
from ninja.pagination import paginate

from fleet.inventory import enrolment, services
from fleet.inventory.models import Command, Device, DeviceApp, DeviceGroup, EnrolmentToken

router = Router(tags=["inventory"])

Labels = Annotated[dict[str, str], Field(max_length=40)]
Name = Annotated[str, Field(max_length=120)]
Text = Annotated[str, Field(max_length=10_000)]
RuleText = Annotated[
    str,
    Field(
        max_length=500, description="Such as `site=berlin and target in (raspberry-pi-4, raspberry-pi-5)`."
    ),
]


class AppOut(Schema):
    """What one app of a device runs."""

    app: str
    artifact: Annotated[int | None, Field(alias="artifact_id")]
    artifact_sha256: str
    model: str | None
    version: int | None
    last_sequence: int
    delivery: str
    delivery_state: str
    outcome: dict[str, Any]

    @staticmethod
    def resolve_model(row: DeviceApp) -> str | None:
        """Slug of the model that runs."""
        return row.artifact.version.model.slug if row.artifact else None

    @staticmethod
    def resolve_version(row: DeviceApp) -> int | None:
        """Number of the version that runs."""
        return row.artifact.version.number if row.artifact else None


class DeviceOut(Schema):
    """A device as the list shows it."""

    name: str
    target: Annotated[str, Field(alias="target.slug")]
    runtime: Annotated[str, Field(alias="target.runtime")]
    labels: dict[str, Any]
    groups: list[str]
    state: str
    online: bool
    presence: str
    session: int
    boot: int
    heartbeat_s: int
    last_seen_at: datetime | None
    enrolled_at: datetime
    hello: dict[str, Any]
    apps: list[AppOut]

    @staticmethod
    def resolve_groups(device: Device) -> list[str]:
        """Slugs of the hand-made groups it is in."""
        return [group.slug for group in device.groups.all()]

    @staticmethod
    def resolve_presence(device: Device) -> str:
        """Presence in words."""
        return device.presence_text(timezone.now())

    @staticmethod
    def resolve_apps(device: Device) -> list[DeviceApp]:
        """One entry an app."""
        return list(device.apps.all())


class DevicePatch(Schema):
    """What may be changed by hand."""

    labels: Labels


class CommandIn(Schema):
    """A command to send."""

    name: str
    app: str = "main"
    args: dict[str, Any] = {}
    expires_in_s: int = 3600


class CommandOut(Schema):
    """A command and where it stands."""

    id: UUID
    device: Annotated[str, Field(alias="device.name")]
    app: str
    name: str
    args: dict[str, Any]
    state: str
    created_at: datetime
    expires_at: datetime
    answered_at: datetime | None
    result: dict[str, Any]


class GroupIn(Schema):
    """A new group: a rule, or a list of devices."""

    slug: str
    name: Name = ""
    description: Text = ""
    rule: RuleText = ""
    devices: Annotated[list[str], Field(max_length=100_000)] = []


class GroupPatch(Schema):
    """What to change; what is left out stays."""

    name: Name | None = None
    description: Text | None = None
    rule: RuleText | None = None


class MembersIn(Schema):
    """The devices of a hand-made group."""

    devices: Annotated[list[str], Field(max_length=100_000)]


class GroupOut(Schema):
    """A group and who belongs to it now."""

    slug: str
    name: str
    description: str
    rule: str
    devices: list[str]

    @staticmethod
    def resolve_devices(group: DeviceGroup, context: dict[str, Any]) -> list[str]:
        """Names of its devices."""
        if group.is_dynamic:
            found = services.matching(group.rule, _in_service(context["request"]))
        else:
            found = [each for each in group.members.all() if each.state != Device.State.RETIRED]
        return [device.name for device in found]


class TokenIn(Schema):
    """What a new enrolment token shall allow."""

    target: str
    groups: Annotated[list[str], Field(max_length=100)] = []
    labels: Labels = {}
    uses: int = 1
    expires_in_s: int = 3600
    heartbeat_s: int = 30
    report_s: int = 30


class TokenOut(Schema):
    """An enrolment token without its text."""

    id: int
    prefix: str
    target: Annotated[str, Field(alias="target.slug")]
    uses_left: int
    expires_at: datetime


class NewTokenOut(TokenOut):
    """The only answer that holds the text of a token."""

    token: str


class EnrolIn(Schema):
    """A device that wants to join."""

    token: Annotated[str, Field(max_length=200)]
    device: Annotated[str, Field(max_length=200)]


def caller(request: HttpRequest) -> Any:
    """The user who was authenticated; `Any`, because Django types it as possibly anonymous."""
    return request.user


def _in_service(request: Any) -> QuerySet[Device]:
    # A query keeps what it found: a list of many rules reads the devices once.
    if not hasattr(request, "in_service"):
        request.in_service = services.in_service()
    found: QuerySet[Device] = request.in_service
    return found


def _devices(filters: Mapping[str, str]) -> QuerySet[Device]:
    found = Device.objects.select_related("target")
    found = found.prefetch_related("groups", "apps__artifact__version__model")
    if filters["target"]:
        found = found.filter(target__slug=filters["target"])
    if filters["state"]:
        found = found.filter(state=filters["state"])
    if filters["group"]:
        chosen = services.members(services.group_named(filters["group"]))
        found = found.filter(pk__in=[device.pk for device in chosen])
    return found


@router.get("/devices", response=list[DeviceOut])
@paginate
def list_devices(
    request: HttpRequest, group: str = "", target: str = "", state: str = ""
) -> QuerySet[Device]:
    """Devices, by group, target or state."""
    return _devices({"group": group, "target": target, "state": state})


@router.get("/devices/{name}", response=DeviceOut)
def get_device(request: HttpRequest, name: str) -> Device:
    """One device."""
    return services.device_named(name)


@router.patch("/devices/{name}", response=DeviceOut)
def patch_device(request: HttpRequest, name: str, payload: DevicePatch) -> Device:
    """Replace a device's labels."""
    return services.set_labels(caller(request), services.device_named(name), payload.labels)


@router.post("/devices/{name}/revoke", response=DeviceOut)
def revoke_device(request: HttpRequest, name: str) -> Device:
    """Throw a device off the broker for good."""
    return services.revoke(caller(request), services.device_named(name))


@router.post("/devices/{name}/retire", response=DeviceOut)
def retire_device(request: HttpRequest, name: str) -> Device:
    """Take a device out of service."""
    return services.retire(caller(request), services.device_named(name))


@router.post("/devices/{name}/reinstate", response=DeviceOut)
def reinstate_device(request: HttpRequest, name: str) -> Device:
    """Let a revoked or retired device enrol again."""
    return services.reinstate(caller(request), services.device_named(name))


@router.post("/devices/{name}/commands", response={202: CommandOut})
def command_device(request: HttpRequest, name: str, payload: CommandIn) -> tuple[int, Command]:
    """Queue a command to a device."""
    device = services.device_named(name)
    return 202, services.send_command(caller(request), device, now=timezone.now(), **payload.model_dump())


@router.get("/devices/{name}/commands", response=list[CommandOut])
@paginate
def list_commands(request: HttpRequest, name: str) -> QuerySet[Command]:
    """Commands to a device, newest first."""
    return Command.objects.filter(device=services.device_named(name)).select_related("device")


@router.get("/groups", response=list[GroupOut])
@paginate
def list_groups(request: HttpRequest) -> QuerySet[DeviceGroup]:
    """Every group and its devices."""
    return DeviceGroup.objects.prefetch_related("members")


@router.post("/groups", response={201: GroupOut})
def create_group(request: HttpRequest, payload: GroupIn) -> tuple[int, DeviceGroup]:
    """A new group, by rule or by hand."""
    return 201, services.create_group(caller(request), **payload.model_dump())


@router.get("/groups/{slug}", response=GroupOut)
def get_group(request: HttpRequest, slug: str) -> DeviceGroup:
    """One group."""
    return services.group_named(slug)


@router.patch("/groups/{slug}", response=GroupOut)
def patch_group(request: HttpRequest, slug: str, payload: GroupPatch) -> DeviceGroup:
    """Change a group's name, description or rule."""
    return services.update_group(caller(request), services.group_named(slug), **payload.model_dump())


@router.put("/groups/{slug}/devices", response=GroupOut)
def put_members(request: HttpRequest, slug: str, payload: MembersIn) -> DeviceGroup:
    """Replace the devices of a hand-made group."""
    return services.set_members(caller(request), services.group_named(slug), payload.devices)


@router.delete("/groups/{slug}", response={204: None})
def delete_group(request: HttpRequest, slug: str) -> tuple[int, None]:
    """Delete a group that no rollout names."""
    services.delete_group(caller(request), services.group_named(slug))
    return 204, None


@router.post("/enrolment-tokens", response={201: NewTokenOut})
def create_enrolment_token(request: HttpRequest, payload: TokenIn) -> tuple[int, dict[str, Any]]:
    """Make an enrolment token; its text is in this answer and nowhere else."""
    order = enrolment.TokenOrder(**payload.model_dump())
    token, text = enrolment.create_token(caller(request), order, timezone.now())
    return 201, _token(token) | {"token": text}


@router.get("/enrolment-tokens", response=list[TokenOut])
@paginate
def list_enrolment_tokens(request: HttpRequest) -> list[dict[str, Any]]:
    """Enrolment tokens that still work."""
    alive = EnrolmentToken.objects.filter(uses_left__gt=0, expires_at__gt=timezone.now())
    return [_token(token) for token in alive.select_related("target").order_by("-created_at")[:1000]]


@router.post("/enrol", auth=None, response=dict[str, Any])
def enrol(request: HttpRequest, payload: EnrolIn) -> dict[str, Any]:
    """Trade an enrolment token for a device's provisioning file; needs no other credentials."""
    return enrolment.enrol(payload.token, payload.device, timezone.now())


def _token(token: EnrolmentToken) -> dict[str, Any]:
    return {
        "id": token.pk,
        "prefix": token.prefix,
        "target.slug": token.target.slug,
        "uses_left": token.uses_left,
        "expires_at": token.expires_at,
    }
