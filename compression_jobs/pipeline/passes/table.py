"""Every pass that a recipe may name."""

from compression_jobs.pipeline.passes.kinds import Pass
from compression_jobs.pipeline.passes.options import EncodeOptions, NoOptions, QuantizeOptions

PASSES: dict[str, Pass] = {
    "canonicalise": Pass(
        "graph",
        NoOptions,
        "compression_jobs.pipeline.passes.canonicalise:canonicalise",
        "Bring the model to one form: static shapes, batch 1, one opset, constants folded.",
    ),
    "fold": Pass(
        "graph",
        NoOptions,
        "compression_jobs.pipeline.passes.fold:fold",
        "Fold constants and batch normalisation into the weights and drop dead nodes.",
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
