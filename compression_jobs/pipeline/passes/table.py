"""Every pass that a recipe may name."""

from compression_jobs.pipeline.passes.kinds import Pass
from compression_jobs.pipeline.passes.options import EncodeOptions, NoOptions, QuantizeOptions
from compression_jobs.pipeline.passes.training_options import (
    ClusterOptions,
    DictionaryOptions,
    DistillOptions,
    DropLayersOptions,
    ElasticOptions,
    FactorizeOptions,
    PruneChannelsOptions,
    PruneOptions,
    QatOptions,
    SubnetOptions,
)

PASSES: dict[str, Pass] = {
    "canonicalise": Pass(
        "graph",
        NoOptions,
        "compression_jobs.pipeline.passes.canonicalise:canonicalise",
        "Bring the model to one form: static shapes, batch 1, one opset, constants folded.",
    ),
    "keep": Pass(
        "graph",
        NoOptions,
        "compression_jobs.pipeline.passes.keep:keep",
        "Change nothing; a ready .tflite goes to every runtime as it is or from its own integers.",
    ),
    "fold": Pass(
        "graph",
        NoOptions,
        "compression_jobs.pipeline.passes.fold:fold",
        "Fold constants and batch normalisation into the weights and drop dead nodes.",
    ),
    "equalize": Pass(
        "graph",
        NoOptions,
        "compression_jobs.pipeline.passes.equalize:equalize",
        "Let neighbouring layers share their scales, so that int8 with one scale a tensor loses less.",
    ),
    "distill": Pass(
        "net",
        DistillOptions,
        "compression_jobs.pipeline.passes.distill:distill",
        "Train a narrower student from fresh weights to answer as the original does.",
    ),
    "prune": Pass(
        "net",
        PruneOptions,
        "compression_jobs.pipeline.passes.prune:prune",
        "Set the smallest weights to zero, step by step; saves bytes over the air, not computation.",
        good_for="zeros save no multiplications and no RAM in any runtime here, they save bytes over the air",
    ),
    "prune_channels": Pass(
        "net",
        PruneChannelsOptions,
        "compression_jobs.pipeline.passes.prune_channels:prune_channels",
        "Take out the least important channels and retrain; saves bytes, RAM and computation.",
    ),
    "drop_layers": Pass(
        "net",
        DropLayersOptions,
        "compression_jobs.pipeline.passes.drop_layers:drop_layers",
        "Take out the residual blocks that matter least and retrain.",
    ),
    "factorize": Pass(
        "net",
        FactorizeOptions,
        "compression_jobs.pipeline.passes.factorize:factorize",
        "Split layers into two thinner ones by singular value decomposition, and retrain.",
    ),
    "cluster": Pass(
        "net",
        ClusterOptions,
        "compression_jobs.pipeline.passes.cluster:cluster",
        "Let the weights of a layer share few values; saves bytes over the air, not computation.",
        good_for="shared weights save no multiplications and no RAM in any runtime here, they save bytes over the air",
    ),
    "dictionary": Pass(
        "net",
        DictionaryOptions,
        "compression_jobs.pipeline.passes.dictionary:dictionary",
        "Write large layers as sparse sums of atoms; saves bytes over the air, not computation.",
        good_for="sums of few atoms save no multiplications and no RAM in any runtime here, they save bytes over the air",
    ),
    "elastic": Pass(
        "net",
        ElasticOptions,
        "compression_jobs.pipeline.passes.elastic:elastic",
        "Train one net for many sizes at once; subnet then takes any of them without training.",
    ),
    "subnet": Pass(
        "net",
        SubnetOptions,
        "compression_jobs.pipeline.passes.elastic:subnet",
        "Take a narrower or shorter net out of an elastic one; nothing is trained.",
    ),
    "qat": Pass(
        "net",
        QatOptions,
        "compression_jobs.pipeline.passes.qat:qat",
        "Train with int8 imitated and learn all ranges; a quantize step takes them over.",
    ),
    "quantize": Pass(
        "quant",
        QuantizeOptions,
        "compression_jobs.pipeline.passes.quantize:quantize",
        "Store weights and activations as int8; ranges come from the calibration rows.",
    ),
    "encode": Pass(
        "transport",
        EncodeOptions,
        "compression_jobs.pipeline.passes.encode:encode",
        "Send the artifact packed: zeros and shared weights save bytes over the air, what is installed stays as it is.",
    ),
}
