"""Residual blocks taken out by measured importance, then retrained.

After Fan et al. 2019, "Reducing Transformer Depth on Demand with Structured Dropout": what a block is worth is
measured by leaving it out and looking at the loss on validation rows.
"""

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph.blocks import residual_blocks, without
from compression_jobs.pipeline.graph.net import Net
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.training import Trainer
from compression_jobs.pipeline.passes.training_options import DropLayersOptions


def drop_layers(net: Net, options: DropLayersOptions, material: Material) -> Net:
    """The net without its least important residual blocks; raises Refused when it has too few."""
    trainer = Trainer(material, options)
    blocks = residual_blocks(net)
    if len(blocks) < options.blocks:
        raise Refused(
            f"the model has {len(blocks)} residual blocks, {options.blocks} are to be dropped",
            remedy="drop fewer, or use prune_channels",
        )
    for done in range(1, options.blocks + 1):
        worth = {name: trainer.loss_on(without(net, name), "validation") for name in residual_blocks(net)}
        net = without(net, min(worth, key=lambda name: (worth[name], name)))
        trainer.prepare(net)
        trainer.train(
            net, options.steps * done // options.blocks - options.steps * (done - 1) // options.blocks
        )
    return net
