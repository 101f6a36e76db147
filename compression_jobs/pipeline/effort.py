"""How much a search may spend: training steps and candidates, so that the same inputs give the same result anywhere."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Effort(BaseModel):
    """The budget of one search over all its targets; seconds are only a stop, because machines differ."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train_steps: Annotated[
        int, Field(ge=0, le=10_000_000, description="Training steps; 0: only what needs no training.")
    ] = 6000
    candidates: Annotated[int, Field(ge=1, le=1000, description="Candidates made and measured.")] = 40
    max_seconds: Annotated[
        float | None,
        Field(gt=0, description="Stop trying after so long; the result then depends on the machine."),
    ] = None
