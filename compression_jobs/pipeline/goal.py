"""What a job must reach on one target."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Objective = Literal["bytes", "ram", "latency", "accuracy"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
# Accuracy is the share of right classes; R² in regression, the area under the ROC curve for anomalies.


class Goal(BaseModel):
    """A target and what must survive on it; the objective chooses among the candidates that meet it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str
    min_accuracy: Fraction | None = None
    max_drop: Fraction | None = None
    objective: Objective = "bytes"

    @model_validator(mode="after")
    def _something_must_survive(self) -> "Goal":
        if self.min_accuracy is None and self.max_drop is None:
            raise ValueError(
                f"{self.target}: nothing says what must survive; give min_accuracy, max_drop or both"
            )
        return self

    def sentence(self) -> str:
        """The goal in words."""
        parts = []
        if self.min_accuracy is not None:
            parts.append(f"accuracy of at least {self.min_accuracy:.1%}")
        if self.max_drop is not None:
            parts.append(f"a drop of at most {100 * self.max_drop:g} points")
        return f"{self.target}: {' and '.join(parts)}, then the best {self.objective}"
