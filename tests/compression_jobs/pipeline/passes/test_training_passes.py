"""Each pass that trains does to the graph what it says, keeps what the net knows, and does the same each time."""

from typing import Any

import numpy as np
import pytest
import torch

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph.batch_norm import fold_batch_norm
from compression_jobs.pipeline.graph.blocks import residual_blocks
from compression_jobs.pipeline.graph.channels import keep_channels, spaces_of
from compression_jobs.pipeline.graph.costs import parameters, total_macs
from compression_jobs.pipeline.graph.quant_reference import run_float
from compression_jobs.pipeline.graph.torch_import import import_net
from compression_jobs.pipeline.passes.dictionary import learn
from compression_jobs.pipeline.passes.options import QuantizeOptions
from compression_jobs.pipeline.passes.quantize import quantize
from tests.compression_jobs.pipeline.nets import NETS, Net
from tests.compression_jobs.pipeline.passes.conftest import Studio, weights_of


def short(**options: Any) -> dict[str, Any]:
    return {"steps": 80, "rate": 1e-2, **options}


@pytest.mark.parametrize("scope", ["global", "per_layer"])
def test_pruning_makes_the_share_of_weights_exactly_zero(
    studio: Studio, scope: str, float_accuracy: float
) -> None:
    net = studio.run("prune", **short(sparsity=0.75, scope=scope))
    layers = weights_of(studio.export(net))
    shares = [float((w == 0).mean()) for w in layers.values()]
    total = sum((w == 0).sum() for w in layers.values()) / sum(w.size for w in layers.values())
    assert total == pytest.approx(0.75, abs=0.005)
    assert (max(shares) - min(shares) < 0.01) == (scope == "per_layer")
    assert studio.accuracy(net) > float_accuracy - 0.15


def test_a_soft_zero_may_come_back_and_the_share_still_holds(studio: Studio) -> None:
    nets = {mode: studio.run("prune", **short(steps=30, mode=mode)) for mode in ("hard", "soft")}
    zeros = {mode: [w == 0 for w in weights_of(studio.export(net)).values()] for mode, net in nets.items()}
    assert any((a != b).any() for a, b in zip(zeros["hard"], zeros["soft"], strict=True))
    for masks in zeros.values():
        assert np.concatenate([m.ravel() for m in masks]).mean() == pytest.approx(0.8, abs=0.005)


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
def test_pruned_channels_are_really_gone(studio: Studio, importance: str, float_accuracy: float) -> None:
    net = studio.run("prune_channels", **short(ratio=0.4, rounds=2, importance=importance, steps=120))
    graph = studio.export(net)
    before, after = weights_of(studio.graph), weights_of(graph)
    assert [w.shape[0] for w in after.values()] == [10, 10, 10, 20, 10]
    assert [w.shape[0] for w in before.values()] == [16, 16, 16, 32, 10]
    assert total_macs(graph) < total_macs(studio.graph) * 0.45
    assert parameters(graph) < parameters(studio.graph) * 0.42
    assert studio.accuracy(net) > float_accuracy - 0.06


def test_rounds_end_at_the_budget_and_a_round_below_the_floor_is_taken_back(studio: Studio) -> None:
    full = parameters(studio.graph)
    options = {"ratio": 0.8, "rounds": 4, "steps": 40, "rate": 1e-2}
    budgeted = studio.export(studio.run("prune_channels", **options, parameters=full // 2))
    assert full // 8 < parameters(budgeted) <= full // 2
    whole = studio.export(studio.run("prune_channels", **options, floor=1.0))
    assert parameters(whole) == full
    lowest = studio.run("prune_channels", **options, floor=0.5)
    assert studio.accuracy(lowest) >= 0.5
    assert parameters(studio.export(lowest)) < full


def test_layers_compete_for_channels_when_the_scope_is_global(studio: Studio) -> None:
    net = studio.run("prune_channels", steps=0, ratio=0.5, rounds=1, scope="global", multiple_of=2)
    widths = [w.shape[0] for w in weights_of(studio.export(net)).values()][:-1]
    assert widths[0] == widths[2]  # added to each other
    assert all(width % 2 == 0 for width in widths)
    assert len({width / full for width, full in zip(widths, [16, 16, 16, 32], strict=True)}) > 1


@pytest.mark.parametrize("name", NETS)
def test_channels_that_carry_nothing_can_be_taken_out_unnoticed(name: str) -> None:
    """Zeroing a channel and taking it out must be the same, through sums, pools, depthwise layers and reshapes."""
    made = NETS[name]()
    net, rows = import_net(made.graph()), torch.from_numpy(made.rows(4))
    spaces = spaces_of(net)
    assert spaces
    for space in spaces:
        for layer in space.layers("makes", "follows"):
            layer.weight.data[0], layer.bias.data[0] = 0, 0
    before = net(rows)
    for space in spaces:
        keep_channels(net, space, torch.arange(1, space.size))
    torch.testing.assert_close(net(rows), before, rtol=1e-4, atol=1e-5)
    assert [space.size for space in spaces_of(net)] == [space.size for space in spaces]


def test_channels_that_cannot_be_followed_are_left_whole() -> None:
    made = Net(2, 6, 6).conv(2, 6)
    made.node("Transpose", perm=[0, 2, 3, 1]).reshape(1, 96).dense(96, 5).node("Relu").dense(5, 3)
    spaces = spaces_of(import_net(made.graph()))
    assert [space.size for space in spaces] == [5]


def test_a_dropped_block_is_gone_and_the_net_relearns(studio: Studio, float_accuracy: float) -> None:
    net = studio.run("drop_layers", **short(steps=150))
    operators = [node.op_type for node in studio.export(net).nodes]
    assert residual_blocks(net) == []
    assert "Add" not in operators
    assert operators.count("Conv") == 2
    assert studio.accuracy(net) > float_accuracy - 0.1
    with pytest.raises(Refused, match="has 0 residual blocks, 1 are to be dropped"):
        studio.run("drop_layers", net)


def test_a_student_is_narrower_and_learns(studio: Studio, float_accuracy: float) -> None:
    net = studio.run("distill", **short(steps=200, width=0.75, similarity=1.0))
    assert [w.shape[0] for w in weights_of(studio.export(net)).values()] == [12, 12, 12, 24, 10]
    assert studio.accuracy(net) > float_accuracy - 0.08


def test_factors_multiply_to_the_layer_at_full_energy_and_save_at_less(
    studio: Studio, float_accuracy: float
) -> None:
    exact = studio.run("factorize", steps=0, energy=1.0)
    assert studio.accuracy(exact) == float_accuracy
    thin = studio.run("factorize", **short(energy=0.8, steps=120))
    graph = studio.export(thin)
    assert parameters(graph) < parameters(studio.graph) * 0.6
    assert total_macs(graph) < total_macs(studio.graph) * 0.7
    assert len(weights_of(graph)) > len(weights_of(studio.graph))
    assert studio.accuracy(thin) > float_accuracy - 0.1


def test_ranks_follow_a_budget_of_weights(studio: Studio) -> None:
    full = parameters(studio.graph)
    for budget in (0.3, 0.6):
        left = parameters(studio.export(studio.run("factorize", steps=0, budget=budget)))
        assert 0.6 * budget < left / full <= budget + 0.06  # biases are not in the budget


def test_clusters_share_their_values_after_training(studio: Studio, float_accuracy: float) -> None:
    pruned = studio.run("prune", **short(sparsity=0.5, steps=40, scope="per_layer"))
    net = studio.run("cluster", pruned, steps=40, clusters=8)
    start = studio.run(
        "cluster",
        studio.run("prune", **short(sparsity=0.5, steps=40, scope="per_layer")),
        steps=0,
        clusters=8,
    )
    for name, weights in weights_of(studio.export(net)).items():
        assert len(np.unique(weights)) <= 9, name
        assert (weights == 0).mean() == pytest.approx(0.5, abs=0.01)
        assert set(np.unique(weights)) != set(np.unique(weights_of(studio.export(start))[name]))
    assert studio.accuracy(net) > float_accuracy - 0.15


def test_large_layers_become_sparse_sums_of_atoms(studio: Studio, float_accuracy: float) -> None:
    net = studio.run("dictionary", **short(atoms=0.75, nonzeros=4, steps=120))
    layers = weights_of(studio.export(net))
    codes = {name: w.reshape(len(w), -1) for name, w in layers.items() if name.endswith("_a")}
    assert len(codes) == 3
    assert all(((w != 0).sum(axis=0) <= 4).all() for w in codes.values())
    assert studio.accuracy(net) > float_accuracy - 0.1


def test_a_dictionary_finds_what_was_made_of_few_atoms() -> None:
    chance = np.random.default_rng(0)
    true = chance.standard_normal((20, 6))
    codes = np.zeros((6, 200))
    codes[chance.integers(0, 6, 200), np.arange(200)] = chance.standard_normal(200)
    basis, found = learn(true @ codes, 6, 1, np.random.default_rng(3))
    assert np.linalg.norm(true @ codes - basis @ found) < 0.5 * np.linalg.norm(true @ codes)
    assert ((found != 0).sum(axis=0) <= 1).all()


class TestQuantizationAwareTraining:
    """What was trained is what runs in int8."""

    @pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
    def test_the_integer_graph_answers_as_the_trained_one(self, studio: Studio, granularity: str) -> None:
        net = studio.run("qat", steps=30, granularity=granularity)
        graph = studio.export(net)
        options = QuantizeOptions.model_validate({"granularity": granularity})
        integers = quantize(graph, options, studio.material)
        for name, (low, high) in net.ranges.items():
            held = [t for t in integers.tensors.values() if t.name.split("/channels_last")[0] == name]
            assert held
            assert held[0].scale == pytest.approx((high - low) / 255, rel=1e-6)
        x, _ = studio.data.rows("validation")
        with torch.no_grad():
            wanted = net(torch.from_numpy(x)).numpy()
        assert (run_float(integers, x).argmax(1) == wanted.argmax(1)).mean() > 0.98
        for op, layer in zip(integers.weighted(), weights_of(graph).values(), strict=True):
            assert op.weights.per_channel == (granularity == "per_channel")
            rows = np.abs(layer.reshape(len(layer), -1)).max(axis=1)
            assert np.max(op.weights.scales) == pytest.approx(rows.max() / 127, rel=1e-6)

    def test_training_repairs_what_per_tensor_weights_break(self, studio: Studio) -> None:
        """Channel scales spread so far that one scale a tensor leaves most channels few levels."""
        net = spread(studio)
        quantised = {}
        for name, given in (
            ("before", net),
            ("after", studio.run("qat", net.copy(), **short(granularity="per_tensor", rate=5e-3))),
        ):
            made = quantize(studio.export(given), QuantizeOptions(granularity="per_tensor"), studio.material)
            quantised[name] = studio.accuracy(
                lambda x, made=made: torch.from_numpy(run_float(made, x.numpy()))
            )
        assert quantised["after"] > quantised["before"] + 0.1

    def test_zeros_and_shared_values_stay(self, studio: Studio) -> None:
        pruned = studio.run("prune", **short(steps=30, sparsity=0.5))
        clustered = studio.run("cluster", pruned, steps=0, clusters=8)
        zeros = [w == 0 for w in weights_of(studio.export(clustered)).values()]
        options = {"steps": 20, "granularity": "per_tensor", "keep_clusters": True}
        integers = quantize(
            studio.export(studio.run("qat", clustered, **options)),
            QuantizeOptions(granularity="per_tensor"),
            studio.material,
        )
        for op, mask in zip(integers.weighted(), zeros, strict=True):
            assert len(np.unique(op.weights.values)) <= 9
            assert (op.weights.values == 0).sum() >= mask.sum()

    def test_ranges_are_forgotten_when_training_goes_on(self, studio: Studio) -> None:
        net = studio.run("qat", steps=2)
        assert studio.export(net).ranges
        assert not studio.export(studio.run("prune", net, steps=2)).ranges


def spread(studio: Studio) -> Any:
    """The same function with channel scales far apart between layers that relu joins."""
    net = studio.net()
    fold_batch_norm(net)
    chance = torch.Generator().manual_seed(0)
    for space in spaces_of(net):
        factor = torch.exp(torch.rand(space.size, generator=chance) * 5 - 2.5)
        for layer in space.layers("makes"):
            layer.weight.data *= factor.reshape(-1, *[1] * (layer.weight.dim() - 1))
            layer.bias.data *= factor
        for layer in space.layers("reads"):
            layer.weight.data /= factor.reshape(1, -1, *[1] * (layer.weight.dim() - 2))
    return net


@pytest.mark.parametrize("name", ["prune_channels", "distill", "cluster", "dictionary", "qat", "elastic"])
def test_the_same_seed_gives_the_same_bytes(studio: Studio, name: str) -> None:
    made = {studio.export(studio.run(name, steps=6)).to_bytes() for _ in range(2)}
    assert len(made) == 1
