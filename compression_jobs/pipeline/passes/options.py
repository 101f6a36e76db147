"""The options of every pass: what forms show, what the API documents, what recipes are checked against."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from compression_jobs.pipeline.graph.quant_ranges import Calibration
from compression_jobs.pipeline.graph.quant_weights import Granularity

FEWEST_ROWS = 8


class Options(BaseModel):
    """Base of the options of a pass."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NoOptions(Options):
    """A pass that has nothing to choose."""


class QuantizeOptions(Options):
    """How weights are scaled and how activation ranges are found."""

    granularity: Annotated[
        Granularity, Field(description="One weight scale for each output channel, or one for the tensor.")
    ] = "per_channel"
    calibration: Annotated[
        Calibration, Field(description="How the range of an activation is found from calibration rows.")
    ] = "minmax"
    percentile: Annotated[
        float, Field(gt=50, le=100, description="Share of values inside the range; only for percentile.")
    ] = 99.99
    samples: Annotated[int, Field(ge=FEWEST_ROWS, le=10_000, description="Calibration rows to use.")] = 100
    bias_correction: Annotated[
        bool, Field(description="Take back the mean error that rounding weights brings to each channel.")
    ] = False
    float_layers: Annotated[
        tuple[Annotated[str, Field(max_length=200)], ...],
        Field(
            max_length=64,
            description="Layers by name that stay in float, those that int8 costs most; only for onnxruntime.",
        ),
    ] = ()
    data_free: Annotated[
        bool,
        Field(description="Use standard normal inputs instead of calibration rows; best after equalize."),
    ] = False


class EncodeOptions(Options):
    """How the artifact is sent."""

    coding: Annotated[
        Literal["smallest", "none", "deflate", "segments"],
        Field(
            description="What devices decode while they download; smallest takes the one with fewest bytes."
        ),
    ] = "smallest"
