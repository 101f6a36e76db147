"""What an experiment compares, for how long, and who decides at its end."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet.errors import Refused
from fleet.rollouts.strategy import SMALLEST, Strategy, problems_of

Metric = Literal["accuracy", "latency", "errors"]


class Terms(BaseModel):
    """Fixed before anything is seen."""

    model_config = ConfigDict(extra="forbid")

    metric: Metric = Field(
        "accuracy",
        description="accuracy: share of right labelled answers; latency: median; errors: share of failing inferences.",
    )
    alpha: float = Field(
        0.05,
        ge=SMALLEST,
        lt=0.5,
        description="Chance to name a winner where there is none, however often it looks.",
    )
    observe_seconds: int = Field(
        3600,
        ge=60,
        le=14 * 24 * 3600,
        description="How long both devices of a pair run before they are compared.",
    )
    min_count: int = Field(
        20, ge=1, le=1_000_000, description="Labels, or inferences, that each of a pair must have by then."
    )
    max_seconds: int = Field(
        14 * 24 * 3600, ge=60, le=365 * 24 * 3600, description="After this it ends without a winner."
    )
    promote: Literal["by_hand", "winner"] = Field(
        "by_hand", description="winner: the better version goes to the whole group by itself."
    )


def read(given: Any) -> Terms:
    """Checked terms; raises Refused with every problem at once."""
    try:
        return Terms.model_validate(given or {})
    except ValidationError as error:
        problems = problems_of(error)
        raise Refused(
            f"the terms are not valid: {problems[0]}",
            remedy="GET /api/v1/experiments/terms-schema describes every field.",
            problems=problems,
        ) from error


def for_halves(rules: Strategy) -> Strategy:
    """How each half gets its version: as the strategy says, but nobody else joins; raises Refused."""
    who = rules.who
    named = [name for name in ("share", "hold_back", "must_pass_through") if getattr(who, name)]
    named += ["trial.shadow"] if rules.trial.shadow else []
    if named:
        raise Refused(
            f"an experiment cannot be made with {' and '.join(named)}",
            remedy="It divides the group into halves by itself; leave these out.",
        )
    return rules.model_copy(update={"who": who.model_copy(update={"late_joiners": "ignore"})})
