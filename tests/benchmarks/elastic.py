"""One elastic training against four widths trained alone, ResNet-8 on digits: accuracy, cost, and a fifth target.

Alone: the channels of the same net in the same order, cut to the width, taught by the same original for
`ALONE_STEPS`. Elastic: as the pass does it, each step trains the whole, the narrowest and two other widths, for fewer
steps. Sub-networks get their batch normalisation from calibration rows; accuracy is on test rows, in torch, before int8.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.graph.channels import spaces_of
from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.graph.net import Net
from compression_jobs.pipeline.graph.slicing import Size, cut_out, in_order
from compression_jobs.pipeline.graph.torch_export import export_net
from compression_jobs.pipeline.graph.torch_import import import_net
from compression_jobs.pipeline.passes.elastic import sizes_of, subnet, train_together
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.prune_channels import importances
from compression_jobs.pipeline.passes.training import Trainer
from compression_jobs.pipeline.passes.training_options import ElasticOptions, SubnetOptions
from tests.benchmarks import _digits

WIDTHS = (0.25, 0.5, 0.75, 1.0)
FIFTH = 0.375
ALONE_STEPS, ELASTIC_STEPS = 600, 350


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=3)


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for seed in range(options.seed, options.seed + options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            yield {**_once(Path(folder), seed), "n": _digits.ROWS["test"], "split_seed": seed}


def _once(folder: Path, seed: int) -> dict[str, Any]:
    model, dataset = _digits.write(folder, seed)
    data = Dataset.load(dataset)
    calibration = data.rows("calibration")[0]
    graph = canonicalise(model, calibration[:8])
    material = Material(calibration, seed, data, graph)
    start = _ordered(graph, material)
    alone, alone_seconds = _alone(start, material)
    clock = time.process_time()
    together = _together(start, material)
    seconds = time.process_time() - clock
    clock = time.process_time()
    taken = {width: _accuracy(_taken(graph, together, material, width), data) for width in (*WIDTHS, FIFTH)}
    taking = (time.process_time() - clock) / len(taken)
    return {
        "float": round(_accuracy(import_net(graph, calibration), data), 4),
        "alone": {str(width): round(alone[width], 4) for width in WIDTHS},
        "elastic": {str(width): round(taken[width], 4) for width in WIDTHS},
        "worst_points_below_alone": round(100 * max(alone[w] - taken[w] for w in WIDTHS), 2),
        "training_ratio": round(seconds / alone_seconds, 3),
        "fifth_width": FIFTH,
        "fifth": round(taken[FIFTH], 4),
        "fifth_training_steps": 0,
        "fifth_cost_ratio": round(taking / alone_seconds, 4),
    }


def _ordered(graph: Graph, material: Material) -> Net:
    net = import_net(graph, material.calibration)
    trainer = Trainer(material, ElasticOptions(steps=0))
    trainer.prepare(net)
    in_order(net, importances(net, spaces_of(net), "taylor", trainer))
    return net


def _alone(start: Net, material: Material) -> tuple[dict[float, float], float]:
    accuracies, seconds = {}, 0.0
    for width in WIDTHS:
        net = cut_out(start, Size(width))
        clock = time.process_time()
        Trainer(material, ElasticOptions(steps=ALONE_STEPS)).train(net, ALONE_STEPS)
        seconds += time.process_time() - clock
        accuracies[width] = _accuracy(net, material.dataset)
    return accuracies, seconds


def _together(start: Net, material: Material) -> Net:
    net = start.copy()
    options = ElasticOptions(steps=ELASTIC_STEPS)
    train_together(net, sizes_of(options), Trainer(material, options), ELASTIC_STEPS)
    return net


def _taken(graph: Graph, net: Net, material: Material, width: float) -> Net:
    """As the search does it: the net stored with its normalisation folded, and the sub-network taken from that."""
    stored = import_net(export_net(net, graph, material.calibration), material.calibration)
    return subnet(stored, SubnetOptions(width=width), material)


def _accuracy(net: Net, data: Dataset) -> float:
    x, y = data.rows("test")
    net.eval()
    with torch.no_grad():
        return float(np.mean(net(torch.from_numpy(x)).numpy().argmax(1) == y))
