"""Every pass that a recipe may name."""

from compression_jobs.pipeline.passes.kinds import Pass
from compression_jobs.pipeline.passes.options import NoOptions, QuantizeOptions

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
    "quantize": Pass(
        "quant",
        QuantizeOptions,
        "compression_jobs.pipeline.passes.quantize:quantize",
        "Store weights and activations as int8; ranges come from the calibration rows.",
    ),
}
