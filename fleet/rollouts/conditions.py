"""Parts of a strategy: who takes part, when devices may be asked, how fast, for how many bytes, and what is tried again."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from fleet.inventory import selection

DAY_S = 24 * 3600
A_DAY: Final = timedelta(days=1)
# What only a person, a window or a budget can end is given up after so long.
A_MONTH: Final = timedelta(days=30)
MAX_BYTES = 1 << 40
_ANY_TIME = datetime(2026, 1, 1, tzinfo=UTC)

_PERCENT = re.compile(r"(100|[1-9]?\d)(\.\d{1,2})?%", re.ASCII)


def is_share(text: str) -> bool:
    """Whether a text is a share above nothing, such as '25%'."""
    return bool(_PERCENT.fullmatch(text)) and float(text[:-1]) > 0


def part_of(text: str) -> float:
    """'25%' as 0.25; an empty text is 0."""
    return float(text[:-1]) / 100 if text else 0.0


def _share(text: str) -> str:
    if text and not is_share(text):
        raise ValueError(f"'{text}' is no share such as '25%'")
    return text


def _rule(text: str) -> str:
    if text.strip():
        selection.parse(text)
    return text.strip()


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"'{text}' is no time zone such as 'Europe/Berlin'") from error
    return text


Share = Annotated[str, Field(max_length=8), AfterValidator(_share)]
Rule = Annotated[str, Field(max_length=selection.MAX_CHARS), AfterValidator(_rule)]


class Who(BaseModel):
    """Which devices of the group take part."""

    model_config = ConfigDict(extra="forbid")

    rule: Rule = Field("", description="Only devices that this label rule matches; empty: all of the group.")
    exclude: Rule = Field("", description="Never these, such as `site=lab or name in (pi-1, pi-2)`.")
    exclude_groups: list[Annotated[str, Field(max_length=63)]] = Field(default=[], max_length=50)
    share: Share = Field("", description="Only so many of them, such as '40%', chosen at random.")
    hold_back: Share = Field(
        "", description="Share that stays on what it runs, for comparison; spread over targets and sites."
    )
    late_joiners: Literal["join", "ignore", "always"] = Field(
        "join",
        description="Whether devices that enter the group later are asked. join: those that come before the rollout ends, "
        "in its last wave; while it is paused or held they wait until it goes on. always: those that come after it "
        "succeeded as well, which opens it again, until another rollout of the app to the group begins. ignore: none.",
    )
    must_pass_through: list[Annotated[int, Field(ge=1)]] = Field(
        default=[],
        max_length=10,
        description="Versions that a device must have run before, in this order; they are installed on the way.",
    )


class Window(BaseModel):
    """When devices may be asked, and begin: from each moment of a cron expression on, for some minutes.

    A device that was away begins when a window is open again, if it knows the time.
    """

    model_config = ConfigDict(extra="forbid")

    cron: str = Field(max_length=100, description="Minute, hour, day, month, weekday: '0 2 * * *' is 02:00.")
    minutes: int = Field(ge=1, le=7 * 24 * 60, description="How long it stays open.")
    zone: str = Field(
        "UTC",
        max_length=64,
        description="Time zone of devices without a label `timezone`.",
    )

    @field_validator("cron")
    @classmethod
    def _readable(cls, cron: str) -> str:
        try:
            CronSim(cron, _ANY_TIME)
        except CronSimError as error:
            raise ValueError(f"'{cron}' is no cron expression: {error}") from error
        return cron

    _known_zone = field_validator("zone")(_zone)


class Rate(BaseModel):
    """How many devices are asked a minute: a start that grows by a factor each time so many have succeeded."""

    model_config = ConfigDict(extra="forbid")

    per_minute: int = Field(ge=1, le=100_000)
    factor: float = Field(2.0, ge=1, le=10)
    after_successes: int = Field(10, ge=1, le=100_000)
    most_per_minute: int = Field(10_000, ge=1, le=100_000)


class Budgets(BaseModel):
    """How many bytes may be sent in any 24 hours; the way back is always free."""

    model_config = ConfigDict(extra="forbid")

    device_bytes_per_day: int | None = Field(
        None,
        ge=1,
        le=MAX_BYTES,
        description="For each device; a device's label `bytes_per_day` may be smaller.",
    )
    site_bytes_per_day: int | None = Field(
        None, ge=1, le=MAX_BYTES, description="For all devices with the same label `site` together."
    )


class StepTimeouts(BaseModel):
    """Seconds that a device may stay in one state; empty: only the time-out of the whole delivery counts."""

    model_config = ConfigDict(extra="forbid")

    offered: int | None = Field(None, ge=1, le=30 * DAY_S)
    downloading: int | None = Field(None, ge=1, le=30 * DAY_S)
    verifying: int | None = Field(None, ge=1, le=DAY_S)
    testing: int | None = Field(None, ge=1, le=DAY_S)
    consent: int | None = Field(
        None, ge=1, le=30 * DAY_S, description="For the answer of an owner who is asked; empty: 30 days."
    )

    def by_state(self) -> dict[str, int]:
        """Those that are set, by state of a delivery at work."""
        found = self.model_dump(exclude={"consent"})
        return {state: seconds for state, seconds in found.items() if seconds is not None}


class Retry(BaseModel):
    """What is tried again on its own: deliveries that failed or timed out; never those refused or found worse."""

    model_config = ConfigDict(extra="forbid")

    attempts: int = Field(1, ge=1, le=20, description="Tries in all; 1: nothing is tried again.")
    first_wait_s: int = Field(60, ge=1, le=DAY_S)
    factor: float = Field(2.0, ge=1, le=10)
    most_wait_s: int = Field(6 * 3600, ge=1, le=7 * DAY_S)
