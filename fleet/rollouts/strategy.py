"""How a rollout goes: waves, times, the trial on the device, and what the gates tolerate."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fleet.errors import Refused
from fleet.rollouts import signals
from fleet.rollouts.conditions import Budgets, Rate, Retry, StepTimeouts, Who, Window, is_share

SMALL_FLEET = 40
# Below this many devices a wave goes out whole: the waves of so small a fleet are its parts.
PACED_FLEET = 20
# What a device measures over whole windows, not input by input.
_NOT_IN_THE_SHADOW = ("heap", "confidence", "class_mix")
_ONLY_IN_THE_SHADOW = ("disagreement",)
# A manifest's trial ends by itself after max_seconds; the rest of a delivery needs some time as well.
MARGIN_SECONDS = 30

# Rates and chances below this are never meant, and their reciprocals leave the range of numbers.
SMALLEST = 1e-6
MOST_DEVICES = 10_000_000

Size = Annotated[int | str, Field(description="A number of devices, or a share such as '25%'.")]


class TrialRules(BaseModel):
    """What a device must see of a new artifact before it keeps it (design, section 4)."""

    model_config = ConfigDict(extra="forbid")

    min_inferences: int = Field(50, ge=0, le=1_000_000)
    min_labelled: int = Field(0, ge=0, le=1_000_000)
    max_seconds: int = Field(600, ge=1, le=30 * 24 * 3600)
    max_errors: int = Field(0, ge=0, le=1_000_000)
    deadline_us: int | None = Field(None, ge=1, le=3_600_000_000)
    accuracy_floor: float | None = Field(
        None, ge=0, lt=1, description="Empty: the lower end of the artifact's 95 % interval on test rows."
    )
    alpha: float = Field(0.005, ge=SMALLEST, lt=0.5)
    shadow: bool = Field(
        False,
        description="The new artifact runs on the same inputs beside the one in use, which goes on answering; "
        "both are compared, and nothing is installed.",
    )


class Tolerances(BaseModel):
    """What devices may lose on average, against themselves before and against those held back; empty: not judged."""

    model_config = ConfigDict(extra="forbid")

    accuracy: float | None = Field(0.05, ge=0, lt=1, description="Share of right answers that may be lost.")
    latency: float | None = Field(0.25, ge=0, lt=1, description="Relative rise of the median latency.")
    errors: float | None = Field(0.02, ge=0, lt=1, description="Rise of the share of failing inferences.")
    heap: float | None = Field(0.25, ge=0, lt=1, description="Relative loss of the least free heap.")
    confidence: float | None = Field(
        0.15, ge=0, lt=1, description="Fall of the mean confidence; asks a person."
    )
    class_mix: float | None = Field(
        0.25, ge=0, lt=1, description="Change of the mix of answers, as total variation; asks a person."
    )
    disagreement: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Share of inputs on which a shadow answers otherwise than the version in use; asks a person.",
    )


class Strategy(BaseModel):
    """Everything about a rollout but what goes to whom."""

    model_config = ConfigDict(extra="forbid")

    waves: list[Size] = Field(
        default=[1, "25%", "100%"],
        min_length=1,
        max_length=50,
        description="Cumulative: how many devices shall have been asked after each wave.",
    )
    who: Who = Field(default_factory=Who)
    soak_seconds: int = Field(60, ge=0, le=30 * 24 * 3600)
    delivery_timeout_s: int = Field(3600, ge=1, le=30 * 24 * 3600)
    step_timeouts: StepTimeouts = Field(default_factory=StepTimeouts)
    retry: Retry = Field(default_factory=lambda: Retry())
    window: Window | None = Field(None, description="Empty: at any time.")
    rate: Rate | None = Field(None, description="Empty: as fast as waves and their parts allow.")
    budgets: Budgets = Field(default_factory=lambda: Budgets())
    trial: TrialRules = Field(default_factory=TrialRules)
    when_evidence_runs_out: Literal["proceed", "hold"] | None = Field(
        None, description="Empty: proceed below 40 devices, where nothing subtle can be shown; hold above."
    )
    alpha: float = Field(
        0.05, ge=SMALLEST, lt=0.5, description="Chance to stop a good rollout, however often gates look."
    )
    beta: float = Field(
        0.1, ge=SMALLEST, lt=0.5, description="Chance to let a rate of p1 through by evidence."
    )
    p0: float = Field(0.02, ge=SMALLEST, lt=0.5, description="Share of failing devices that is tolerated.")
    p1: float = Field(0.1, gt=0, lt=1, description="Share of failing devices that must not get through.")
    safety_limit: float = Field(0.3, gt=0, le=1, description="Share of failed devices that stops at once.")
    tolerated: Tolerances = Field(default_factory=Tolerances)
    paced: bool | None = Field(
        None,
        description="Whether a wave opens in parts, the next when the last has answered. Empty: from 20 devices on.",
    )
    require_approval: bool = Field(
        False,
        description="Whether a second person, not the one who made it, must approve it before it starts.",
    )
    approve_waves: bool = Field(False, description="Whether a person says yes before each further wave.")
    ask_consent: bool = Field(
        True,
        description="Whether devices with the label `consent=ask`, or whose agent runs with --ask, wait for their "
        "owner's 'now' or 'tonight': there, on the page of the rollout, or over the API.",
    )
    priority: int = Field(
        0,
        ge=-100,
        le=100,
        description="Takes devices from rollouts of a lower one; never two at once on a device.",
    )

    @field_validator("waves")
    @classmethod
    def _readable(cls, waves: list[int | str]) -> list[int | str]:
        for size in waves:
            if isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= MOST_DEVICES:
                continue
            if isinstance(size, str) and is_share(size):
                continue
            raise ValueError(f"{size!r} is neither a number of devices nor a share such as '25%'")
        return waves

    @model_validator(mode="after")
    def _consistent(self) -> "Strategy":
        if self.p1 <= self.p0:
            raise ValueError(f"p1 ({self.p1}) must be above p0 ({self.p0})")
        if self.trial.shadow and self.who.must_pass_through:
            raise ValueError("a shadow installs nothing, so nothing can be passed through on the way")
        if self.delivery_timeout_s < self.trial.max_seconds + MARGIN_SECONDS:
            raise ValueError(
                f"delivery_timeout_s ({self.delivery_timeout_s}) must be at least trial.max_seconds "
                f"({self.trial.max_seconds}) and {MARGIN_SECONDS} s, or deliveries time out in their trial"
            )
        return self

    def tolerances(self) -> dict[str, float]:
        """What is judged, by signal; fixed before anything is seen, because these tests share alpha."""
        named = {name: value for name, value in self.tolerated.model_dump().items() if value is not None}
        unmeasured = _NOT_IN_THE_SHADOW if self.trial.shadow else _ONLY_IN_THE_SHADOW
        named = {name: value for name, value in named.items() if name not in unmeasured}
        if self.trial.min_labelled == 0:
            return self._with_hold_back({name: value for name, value in named.items() if name != "accuracy"})
        return {"accuracy_floor": 0.0, **self._with_hold_back(named)}

    def _with_hold_back(self, named: dict[str, float]) -> dict[str, float]:
        if not self.who.hold_back or self.trial.shadow:
            return named
        # A difference of two differences is halved, to stay within [-1, 1].
        paired = {signals.held_back_name(name): named[name] / 2 for name in signals.PAIRED if name in named}
        return named | paired

    def for_one_by_one(self) -> "Strategy":
        """The same without shares, which are drawn from the whole group."""
        return self.model_copy(update={"who": self.who.model_copy(update={"share": "", "hold_back": ""})})

    def is_paced(self, fleet: int) -> bool:
        """Whether waves open in parts."""
        return fleet >= PACED_FLEET if self.paced is None else self.paced

    def proceeds_without_evidence(self, fleet: int) -> bool:
        """Whether a fleet of this size goes on when nobody is left who could show more."""
        if self.when_evidence_runs_out is not None:
            return self.when_evidence_runs_out == "proceed"
        return fleet < SMALL_FLEET


def read(raw: Any) -> Strategy:
    """The strategy in a form or request; Refused with every problem at once."""
    try:
        return Strategy.model_validate(raw or {})
    except ValidationError as error:
        problems = problems_of(error)
        raise Refused(
            f"the strategy is not valid: {problems[0]}",
            remedy="GET /api/v1/rollouts/strategy-schema describes every field.",
            problems=problems,
        ) from error


def schema() -> dict[str, Any]:
    """JSON schema of a strategy, for forms and the API's pages."""
    return Strategy.model_json_schema()


def problems_of(error: ValidationError) -> list[str]:
    """Each problem with the field it is about."""
    places = [
        (".".join(str(part) for part in each["loc"]), str(each["msg"]).removeprefix("Value error, "))
        for each in error.errors()
    ]
    return [f"{place}: {message}" if place else message for place, message in places]
