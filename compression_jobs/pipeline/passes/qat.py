"""Quantization-aware training: int8 imitated while training, ranges of weights and activations learned.

Jacob et al. 2018, section 3; learned clipping: Esser et al. 2020 (LSQ), Jain et al. 2020 (TQT). `quantize` takes
the learned ranges as they are. Sparsity and, when asked, shared values stay (collaborative QAT of TensorFlow).
"""

import torch

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph.batch_norm import fold_batch_norm
from compression_jobs.pipeline.graph.fake_quant import FakeQuant, WeightQuant
from compression_jobs.pipeline.graph.net import Conv, Dense, Net, Op, Plain
from compression_jobs.pipeline.graph.quant_ranges import Histogram, find_range
from compression_jobs.pipeline.passes.keepers import Keeper, values_shared, zeros_kept
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.training import Trainer
from compression_jobs.pipeline.passes.training_options import QatOptions

ROWS = 256
FUSED = ("Relu", "Clip")
RESCALED = ("Add", "GlobalAveragePool")
BINS = 2048
NOTHING = 1e-6


def qat(net: Net, options: QatOptions, material: Material) -> Net:
    """The net trained so that int8 costs it little, with the ranges that `quantize` will use."""
    fold_batch_norm(net)
    keepers: list[Keeper] = []
    if options.keep_clusters:
        keepers.append(values_shared(net))
    if options.keep_sparsity:
        keepers.append(zeros_kept(net))
    insert_fake_quant(net, options, material)
    trainer = Trainer(material, options)
    trainer.train(net, options.steps, tuple(keepers))
    take_ranges(net)
    return net


def insert_fake_quant(net: Net, options: QatOptions, material: Material) -> None:
    """Imitate int8 where the quantised graph will have it; ranges start from the calibration rows."""
    names = quantised_tensors(net)
    rows = torch.from_numpy(material.calibration[:ROWS])
    if not len(rows):
        raise Refused(
            "there are no calibration rows to start the ranges from", remedy="mark rows as calibration"
        )
    net.eval()
    with torch.no_grad():
        found = dict(zip(names, net.values(rows, names), strict=True))
    for layer in net.layers():
        if isinstance(layer, (Conv, Dense)):
            layer.quantizer = WeightQuant(layer.weight, layer.out_axis, options.granularity)
    for name in names:
        reach = net.ranges.get(name) or _best_range(found[name])
        _quantize_tensor(net, name, reach)


def _best_range(values: torch.Tensor) -> tuple[float, float]:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if high - low < NOTHING:
        return 0.0, 1.0  # it may come alive while training
    histogram = Histogram(low, high, torch.zeros(BINS, dtype=torch.float64).numpy())
    histogram.add(values.numpy())
    return find_range(histogram, "mse")


def quantised_tensors(net: Net) -> list[str]:
    """The tensors that get a scale of their own: inputs, and what layers, sums and means make, activation included."""
    rescaled = [op for op in net if isinstance(op, (Conv, Dense)) or _is_plain(op, RESCALED)]
    return list(dict.fromkeys([net.source, *(_behind_activation(net, op) for op in rescaled)]))


def _is_plain(op: Op, types: tuple[str, ...]) -> bool:
    return isinstance(op, Plain) and op.op_type in types


def _behind_activation(net: Net, op: Op) -> str:
    if net.used_once(op.output):
        follower = net.readers(op.output)[0]
        if _is_plain(follower, FUSED):
            return follower.output
    return op.output


def _quantize_tensor(net: Net, name: str, reach: tuple[float, float]) -> None:
    """Let all readers of a tensor read its stored value; the tensor keeps its name, its plain value gets another."""
    stored = net.fresh_name(f"{name}_stored")
    for op in net:
        op.inputs = [stored if each == name else each for each in op.inputs]
    net.outputs = [stored if each == name else each for each in net.outputs]
    fresh = FakeQuant(net.fresh_name(f"{name}_quant"), name, stored, reach)
    maker = net.producer(name)
    if maker is None:
        net.set_ops([fresh, *net])
    else:
        net.insert_after(maker, fresh)


def take_ranges(net: Net) -> None:
    """Take the imitation out; weights become what int8 stores and the learned ranges stay with the net."""
    with torch.no_grad():
        for layer in net.layers():
            layer.weight.data = layer.used_weight.detach().clone()
            layer.quantizer = None
    for op in list(net):
        if isinstance(op, FakeQuant):
            net.ranges[op.inputs[0]] = op.range()
            net.replace(op, [])
            net.redirect(op.output, op.inputs[0])
