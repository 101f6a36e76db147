"""Which layers a model can spare: the effect on validation rows of rounding each one and of halving its channels.

Nothing is retrained. It shows where int8 or pruning hurts; `prune_channels` takes its ratios from the same figures
when its scope is `sensitivity`. Runs inside a limited child.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.graph.blocks import residual_blocks
from compression_jobs.pipeline.graph.channel_effects import rounded_answers, without_half
from compression_jobs.pipeline.graph.channels import spaces_of
from compression_jobs.pipeline.graph.feature_scales import on_even_features
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.graph.net import Net
from compression_jobs.pipeline.graph.torch_import import import_net
from compression_jobs.pipeline.passes.kinds import SAMPLE_ROWS
from compression_jobs.pipeline.passes.losses import seeded
from compression_jobs.pipeline.passes.prune_channels import sizes_of_channels
from compression_jobs.pipeline.scoring import Judge

MOST_LAYERS = 64
MOST_ROWS = 512
MOST_LETTERS = 200


def layer_effects(model: Path, dataset: Path) -> dict[str, Any]:
    """The layers with most weights, each with the drop of accuracy that rounding and halving it brings.

    `{"n": rows, "split": "validation", "blocks": residual blocks, "layers": [{name, parameters, quantized_drop,
    pruned_drop | None}]}`; drops are shares. Raises Refused for a model that cannot be brought to torch.
    """
    seeded(0)
    data = Dataset.load(dataset)
    graph = canonicalise(model, data.rows("calibration")[0][:SAMPLE_ROWS])
    graph, data, _ = on_even_features(graph, data)
    net = import_net(graph, data.rows("calibration")[0])
    x, y = (each[:MOST_ROWS] for each in data.rows("validation"))
    judge, rows = Judge(data.task, x, y), torch.from_numpy(np.ascontiguousarray(x))
    before = _answers(net, rows)
    halved = _halved(net, rows)
    layers = sorted(net.layers(), key=lambda layer: -layer.weight.numel())[:MOST_LAYERS]
    return {
        "n": judge.n,
        "split": "validation",
        "blocks": len(residual_blocks(net)),
        "layers": [
            {
                "name": layer.name[:MOST_LETTERS],
                "parameters": layer.weight.numel() + layer.bias.numel(),
                "quantized_drop": _drop(judge, before, rounded_answers(net, layer, rows, net.outputs[0])),
                "pruned_drop": _drop(judge, before, halved[layer.name]) if layer.name in halved else None,
            }
            for layer in net.layers()
            if layer in layers
        ],
    }


def _answers(net: Net, rows: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return net(rows)  # type: ignore[no-any-return]


def _halved(net: Net, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """The answers when the channels that a layer makes are halved; layers that are summed share them."""
    found = {}
    spaces = spaces_of(net)
    for place, scores in enumerate(sizes_of_channels(spaces)[:MOST_LAYERS]):
        made = [member.op.name for member in spaces[place].members if member.role in ("makes", "follows")]
        answers = _answers(without_half(net, place, scores), rows)
        found.update({name: answers for name in made if isinstance(name, str)})
    return found


def _drop(judge: Judge, before: torch.Tensor, after: torch.Tensor) -> float:
    return round(judge.drop(before.numpy(), after.numpy()).value, 6)
