"""Options of the passes that train, kept apart from torch so that forms and the API can show them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from compression_jobs.pipeline.passes.options import Options

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Importance = Literal["magnitude", "taylor"]
Scope = Literal["global", "per_layer"]
ChannelScope = Literal["global", "per_layer", "sensitivity"]


class TrainingOptions(Options):
    """How long and how a pass trains, and how much it listens to the original model."""

    steps: Annotated[int, Field(ge=0, le=1_000_000, description="Training steps, all rounds together.")] = 300
    batch: Annotated[int, Field(ge=2, le=4096, description="Rows a step.")] = 32
    rate: Annotated[float, Field(gt=0, le=1, description="Highest learning rate (Adam, cosine to zero).")] = (
        5e-3
    )
    distillation: Annotated[
        Share,
        Field(description="Share of the loss that comes from the original model's answers; 0: labels only."),
    ] = 0.5
    temperature: Annotated[
        float, Field(ge=1, le=20, description="Softens the answers of the original model.")
    ] = 4.0


class DistillOptions(TrainingOptions):
    """A student taught by the original, or by another model."""

    steps: Annotated[int, Field(ge=0, le=1_000_000, description="Training steps.")] = 600
    student: Annotated[
        Literal["scaled", "phinet", "given"],
        Field(
            description="The original with fewer channels, a PhiNet sized by the budgets, or a model of your own."
        ),
    ] = "scaled"
    width: Annotated[
        float, Field(gt=0, le=1, description="Share of the channels of each layer that a scaled student has.")
    ] = 0.5
    macs: Annotated[
        int | None, Field(gt=0, description="Multiplications of a PhiNet; empty: those of the original.")
    ] = None
    ram_bytes: Annotated[
        int | None,
        Field(gt=0, description="Activations of a PhiNet in int8; empty: what the target has free."),
    ] = None
    flash_bytes: Annotated[
        int | None, Field(gt=0, description="Weights of a PhiNet in int8; empty: what the target has free.")
    ] = None
    student_model: Annotated[
        str,
        Field(max_length=200, description="The given student: model/version, or a file beside the recipe."),
    ] = ""
    teacher_model: Annotated[
        str, Field(max_length=200, description="Another teacher than the original, named the same way.")
    ] = ""
    distillation: Annotated[
        Share, Field(description="Weight of the teacher's answers against that of the labels (1 - alpha).")
    ] = 0.7
    similarity: Annotated[
        float, Field(ge=0, le=1000, description="Weight beta of the loss on similarities of embeddings.")
    ] = 0.0

    @model_validator(mode="after")
    def _a_given_student_has_a_name(self) -> "DistillOptions":
        if (self.student == "given") != bool(self.student_model):
            raise ValueError("student_model names the model when student is given, and only then")
        return self


class PruneOptions(TrainingOptions):
    """Single weights set to zero."""

    sparsity: Annotated[float, Field(ge=0, lt=1, description="Share of weights that become zero.")] = 0.8
    scope: Annotated[
        Scope, Field(description="Compare weights of all layers, or take the same share of each.")
    ] = "global"
    mode: Annotated[
        Literal["hard", "soft"],
        Field(description="Hard: what is zero stays zero. Soft: it may come back until the schedule ends."),
    ] = "hard"


class PruneChannelsOptions(TrainingOptions):
    """Whole channels taken out, so that the graph shrinks."""

    ratio: Annotated[float, Field(ge=0, lt=1, description="Share of channels taken out.")] = 0.5
    importance: Annotated[
        Importance, Field(description="Size of the weights, or effect on the loss (first-order Taylor).")
    ] = "magnitude"
    scope: Annotated[
        ChannelScope,
        Field(
            description="Compare channels of all layers, take the same share of each, or less where it hurts more."
        ),
    ] = "per_layer"
    rounds: Annotated[
        int, Field(ge=1, le=20, description="Prune in so many steps, retraining after each.")
    ] = 3
    multiple_of: Annotated[int, Field(ge=1, le=64, description="Widths are rounded up to a multiple.")] = 1
    parameters: Annotated[
        int | None,
        Field(gt=0, description="Budget: the first round with so few weights or fewer is the last."),
    ] = None
    floor: Annotated[
        float | None,
        Field(
            ge=0, le=1, description="Accuracy on validation rows: a round that falls below it is taken back."
        ),
    ] = None


class DropLayersOptions(TrainingOptions):
    """Residual blocks taken out."""

    blocks: Annotated[int, Field(ge=1, le=64, description="How many residual blocks are taken out.")] = 1


class FactorizeOptions(TrainingOptions):
    """Layers replaced by two thinner ones."""

    energy: Annotated[
        float, Field(gt=0, le=1, description="Share of the squared singular values that must remain.")
    ] = 0.9
    rank: Annotated[
        float | None, Field(gt=0, le=1, description="Share of the full rank instead of energy.")
    ] = None
    budget: Annotated[
        float | None,
        Field(
            gt=0,
            le=1,
            description="Share of the weights that may remain; ranks share one energy that keeps it.",
        ),
    ] = None


class ClusterOptions(TrainingOptions):
    """Weights of a layer that take few values."""

    clusters: Annotated[int, Field(ge=2, le=256, description="Values a layer may hold beside zero.")] = 16
    rate: Annotated[float, Field(gt=0, le=1, description="Highest learning rate (Adam, cosine to zero).")] = (
        5e-4
    )


class DictionaryOptions(TrainingOptions):
    """Large layers as sparse sums of atoms."""

    atoms: Annotated[
        float, Field(gt=0, le=1, description="Atoms of the dictionary, as a share of the layer's outputs.")
    ] = 0.5
    nonzeros: Annotated[int, Field(ge=1, le=256, description="Atoms that one column is made of.")] = 4
    smallest: Annotated[int, Field(ge=1, description="Layers with fewer weights are left as they are.")] = (
        2048
    )


class QatOptions(TrainingOptions):
    """Training with int8 arithmetic imitated."""

    granularity: Annotated[
        Literal["per_channel", "per_tensor"],
        Field(description="One weight scale for each output channel, or one for the tensor; as in quantize."),
    ] = "per_channel"
    steps: Annotated[int, Field(ge=0, le=1_000_000, description="Training steps.")] = 200
    rate: Annotated[float, Field(gt=0, le=1, description="Highest learning rate (Adam, cosine to zero).")] = (
        5e-4
    )
    keep_sparsity: Annotated[bool, Field(description="Weights that are zero stay zero.")] = True
    keep_clusters: Annotated[bool, Field(description="Weights that are equal in a layer stay equal.")] = False


class ElasticOptions(TrainingOptions):
    """One net trained so that its first channels, with fewer blocks or all, are nets of their own."""

    steps: Annotated[
        int, Field(ge=0, le=1_000_000, description="Training steps; each trains four sizes.")
    ] = 600
    narrowest: Annotated[
        float, Field(gt=0, le=1, description="Share of the channels that the narrowest sub-network has.")
    ] = 0.25
    blocks: Annotated[
        int,
        Field(ge=0, le=64, description="Residual blocks that a sub-network may lack, counted from the end."),
    ] = 0


class SubnetOptions(Options):
    """The sub-network to take out of an elastic net."""

    width: Annotated[float, Field(gt=0, le=1, description="Share of the channels of each layer.")] = 0.5
    blocks_out: Annotated[
        int, Field(ge=0, le=64, description="Residual blocks left out, counted from the end.")
    ] = 0
