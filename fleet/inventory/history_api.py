"""REST: what ran where and when."""

from datetime import datetime
from typing import Annotated

from django.db.models import QuerySet
from django.http import HttpRequest
from ninja import Field, Query, Router, Schema
from ninja.pagination import paginate
from pydantic import AwareDatetime

from fleet.inventory.history import Question, spans
from fleet.inventory.models import InstalledSpan

router = Router(tags=["inventory"])

Text = Annotated[str, Field(max_length=100)]


class HistoryIn(Schema):
    """What is asked; empty means anything."""

    device: Text = ""
    group: Text = ""
    model: Text = ""
    version: Annotated[int | None, Field(ge=1, le=2**31 - 1)] = None
    target: Text = ""
    app: Text = ""
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None


class SpanOut(Schema):
    """One span of time in which an artifact was installed on a device; `until` is null while it runs."""

    device: Annotated[str, Field(alias="device.name")]
    target: Annotated[str, Field(alias="device.target.slug")]
    app: str
    model: str | None
    version: int | None
    artifact: Annotated[int | None, Field(alias="artifact_id")]
    artifact_sha256: str
    since: datetime
    until: datetime | None

    @staticmethod
    def resolve_model(span: InstalledSpan) -> str | None:
        """Slug of the model, where the artifact is one of ours."""
        return span.artifact.version.model.slug if span.artifact else None

    @staticmethod
    def resolve_version(span: InstalledSpan) -> int | None:
        """Number of the version."""
        return span.artifact.version.number if span.artifact else None


@router.get("/history", response=list[SpanOut])
@paginate
def history(request: HttpRequest, asked: Annotated[HistoryIn, Query()]) -> QuerySet[InstalledSpan]:
    """What ran where and when, newest first."""
    texts = {
        name: value.replace("\x00", "") for name, value in asked.dict().items() if isinstance(value, str)
    }
    return spans(Question(**{**asked.dict(), **texts}))
