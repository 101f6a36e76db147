"""One training, many sizes: sub-networks share weights, and are good without training of their own."""

import pytest
import torch

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph.batch_norm import insert_batch_norm
from compression_jobs.pipeline.graph.channels import spaces_of
from compression_jobs.pipeline.graph.net import BatchNorm, Net
from compression_jobs.pipeline.graph.slicing import Size, Slice, cut_out, in_order, recalibrate
from compression_jobs.pipeline.graph.torch_import import import_net
from compression_jobs.pipeline.passes.losses import ending_of, gradients_of
from tests.compression_jobs.pipeline.nets import NETS
from tests.compression_jobs.pipeline.passes.conftest import Studio, weights_of


@pytest.fixture(scope="module")
def elastic(studio: Studio) -> Net:
    net = studio.run("elastic", steps=250, narrowest=0.25, blocks=1)
    return import_net(studio.export(net), studio.material.calibration)


def test_every_width_and_depth_works_without_training_of_its_own(
    studio: Studio, elastic: Net, float_accuracy: float
) -> None:
    sizes = [(1.0, 0, 0.06), (0.75, 0, 0.08), (0.5, 0, 0.2), (0.75, 1, 0.2)]
    for width, out, lost in sizes:
        found = studio.run("subnet", elastic.copy(), width=width, blocks_out=out)
        assert studio.accuracy(found) > float_accuracy - lost, (width, out)
    widths = [w.shape[0] for w in weights_of(studio.export(found)).values()]
    assert widths == [12, 24, 10]


def test_a_net_that_was_not_trained_for_it_is_worse_narrow(studio: Studio, elastic: Net) -> None:
    plain = studio.accuracy(studio.run("subnet", width=0.5))
    assert studio.accuracy(studio.run("subnet", elastic.copy(), width=0.5)) > plain + 0.1


def test_without_recalibration_a_narrow_net_is_worse(studio: Studio, elastic: Net) -> None:
    net = elastic.copy()
    insert_batch_norm(net, torch.from_numpy(studio.material.calibration))
    cut = cut_out(net, Size(0.5))
    before = studio.accuracy(cut)
    recalibrate(cut, torch.from_numpy(studio.material.calibration))
    assert studio.accuracy(cut) > before + 0.1
    norm = next(op for op in cut if isinstance(op, BatchNorm))
    assert norm.momentum == 0.1


@pytest.mark.parametrize("name", NETS)
def test_a_slice_answers_as_the_cut_net_and_its_gradients_reach_the_whole_one(name: str) -> None:
    made = NETS[name]()
    net, rows = import_net(made.graph()), torch.from_numpy(made.rows(4))
    before = net(rows)
    in_order(net, [torch.arange(space.size).float() for space in spaces_of(net)])
    torch.testing.assert_close(net(rows), before, rtol=1e-4, atol=1e-5)
    scores = ending_of(net).scores
    part = Slice(net, Size(0.5), scores).eval()
    wanted = cut_out(net, Size(0.5)).values(rows, [scores])[0]
    torch.testing.assert_close(part.answer(rows), wanted)
    gradients_of(part.answer(rows).square().sum())
    layer = next(layer for space in spaces_of(net) for layer in space.layers("makes"))
    assert layer.weight.grad is not None
    half = -(-layer.width // 2)
    assert layer.weight.grad[:half].abs().sum() > 0
    assert layer.weight.grad[half:].abs().sum() == 0


def test_more_blocks_than_there_are_cannot_be_left_out(studio: Studio) -> None:
    with pytest.raises(Refused, match="has 1 residual blocks, 3 are to be left out"):
        studio.run("subnet", blocks_out=3)
