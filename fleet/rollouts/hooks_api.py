"""REST: who is told how rollouts and experiments go."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest
from ninja import Field, Router, Schema
from ninja.pagination import paginate

from fleet.accounts.roles import Role, require
from fleet.rollouts import notices, webhooks
from fleet.rollouts.api import caller
from fleet.rollouts.models import Hook, Notice

router = Router(tags=["notifications"])


class HookIn(Schema):
    """An address to tell."""

    kind: Literal["webhook", "email"]
    address: Annotated[str, Field(min_length=1, max_length=500)]


class HookOut(Schema):
    """An address that is told; the secret verifies the signature of what it receives."""

    id: UUID
    kind: str
    address: str
    created_at: datetime
    secret: str

    @staticmethod
    def resolve_secret(hook: Hook) -> str:
        """Empty for e-mail, which is not signed."""
        return webhooks.secret(hook) if hook.kind == Hook.Kind.WEBHOOK else ""


class NoticeOut(Schema):
    """One thing that was, or is to be, told."""

    id: UUID
    address: Annotated[str, Field(alias="hook.address")]
    rollout: Annotated[int | None, Field(alias="rollout_id")]
    experiment: Annotated[int | None, Field(alias="experiment_id")]
    event: str
    state: str
    attempts: int
    reason: str
    made_at: datetime
    ended_at: datetime | None
    body: dict[str, Any]


@router.get("/hooks", response=list[HookOut])
@paginate
def list_hooks(request: HttpRequest) -> QuerySet[Hook]:
    """Addresses that are told, with their secrets; for administrators."""
    require(caller(request), Role.ADMIN)
    return Hook.objects.all()


@router.post("/hooks", response={201: HookOut})
def add_hook(request: HttpRequest, payload: HookIn) -> tuple[int, Hook]:
    """Tell an address from now on."""
    return 201, notices.add_hook(caller(request), payload.kind, payload.address)


@router.delete("/hooks/{hook_id}", response={204: None})
def remove_hook(request: HttpRequest, hook_id: UUID) -> tuple[int, None]:
    """Tell an address nothing more."""
    notices.remove_hook(caller(request), hook_id)
    return 204, None


@router.post("/hooks/{hook_id}/test", response=NoticeOut)
def try_out(request: HttpRequest, hook_id: UUID) -> Notice:
    """Send a test message."""
    return notices.try_out(caller(request), hook_id)


@router.get("/notices", response=list[NoticeOut])
@paginate
def list_notices(request: HttpRequest, state: str = "") -> QuerySet[Notice]:
    """What was told and what waits, newest first; for administrators."""
    require(caller(request), Role.ADMIN)
    found = Notice.objects.select_related("hook")
    return found.filter(state=state) if state in Notice.State.values else found
