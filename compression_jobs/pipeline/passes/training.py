"""The training loop that all passes share: Adam, cosine schedule, a budget of steps, one seed, one thread."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph.batch_norm import insert_batch_norm
from compression_jobs.pipeline.graph.net import Net
from compression_jobs.pipeline.passes.adam import Adam
from compression_jobs.pipeline.passes.keepers import Keeper
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.losses import (
    Objective,
    ending_of,
    gradients_of,
    no_gradients,
    seeded,
    similarity_loss,
)
from compression_jobs.pipeline.passes.training_options import TrainingOptions
from compression_jobs.pipeline.passes.units import Units
from compression_jobs.pipeline.scoring import Judge

WARM_UP = 0.1  # share of the steps
STEPS_A_WORD = 10
ROWS_AT_ONCE = 256


@dataclass
class Trainer:
    """Trains a Net on the rows of a job."""

    material: Material
    options: TrainingOptions
    steps_total: int = 0
    steps_done: int = 0
    similarity: float = 0.0
    other_teacher: Net | None = None
    chance: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.chance = seeded(self.material.seed)
        self.steps_total = self.steps_total or self.options.steps
        self.x, self.y = self._rows("train")
        if len(self.x) < 2:
            raise Refused(
                "the dataset has no rows to train on",
                remedy="mark rows as train, or use recipes without training",
            )
        self.units = Units() if self.material.dataset.task == "classification" else Units.of(self._truth)
        listens = bool(self.options.distillation or self.similarity)
        self.teacher = (self.other_teacher or self.material.teacher()) if listens else None
        self._taught = self._answers(self.teacher) if self.teacher else None

    def prepare(self, net: Net) -> None:
        """Put batch normalisation back, with statistics of the calibration rows."""
        insert_batch_norm(net, torch.from_numpy(self.material.calibration))

    def train(
        self, net: Net, steps: int, keepers: tuple[Keeper, ...] = (), rate: float | None = None
    ) -> None:
        """Train for so many steps and leave the net ready to answer; ranges learned before are forgotten."""
        net.ranges = {}
        self.train_with(net, steps, lambda rows: gradients_of(self.loss(net, rows)), keepers, rate)

    def train_with(
        self,
        net: Net,
        steps: int,
        gradients: Callable[[Tensor], None],
        keepers: tuple[Keeper, ...] = (),
        rate: float | None = None,
    ) -> None:
        """The loop of `train` with other gradients: `gradients` adds those of some train rows to the parameters."""
        net.train()
        with self.units.used_by(net):
            self._loop(net, steps, gradients, keepers, rate)
        net.eval()

    def _loop(
        self,
        net: Net,
        steps: int,
        gradients: Callable[[Tensor], None],
        keepers: tuple[Keeper, ...],
        rate: float | None,
    ) -> None:
        optimizer = Adam(net, rate or self.options.rate)
        batches = self._batches()
        for step in range(steps):
            no_gradients(net)
            gradients(next(batches))
            for keeper in keepers:
                if keeper.before_step is not None:
                    keeper.before_step()
            optimizer.step(cosine(step, steps))
            for keeper in keepers:
                keeper.after_step(step, steps)
            self._count()

    def loss(self, net: Net, rows: Tensor) -> Tensor:
        """The loss on some train rows."""
        x = self.x[rows]
        if not self.similarity or self.teacher is None:
            return self.loss_of(net, net.values(x, [ending_of(net).scores])[0], rows)
        scores, mine = net.values(x, [ending_of(net).scores, embedding_of(net)])
        with torch.no_grad():
            theirs = self.teacher.values(x, [embedding_of(self.teacher)])[0]
        return self.loss_of(net, scores, rows) + self.similarity * similarity_loss(mine, theirs)

    def loss_of(self, net: Net, scores: Tensor, rows: Tensor, taught: Tensor | None = None) -> Tensor:
        """The loss of scores for some train rows; `taught` are other scores to learn from than the teacher's."""
        if taught is None and self._taught is not None:
            taught = self.units.inside(self._taught[rows])
        return self._objective(net).loss(scores, self.units.inside(self._truth[rows]), taught)

    def lesson(self, scores: Tensor, rows: Tensor) -> Tensor:
        """What sub-networks learn from: the whole net's scores of this moment, averaged with the teacher's if it has one.

        The whole net alone (Yu & Huang 2019) is an unsteady teacher as long as it learns itself.
        """
        if self._taught is None:
            return scores
        return (scores + self.units.inside(self._taught[rows])) / 2

    def loss_on(self, net: Net, split: str) -> float:
        """The mean loss on labels of a split, not trained on."""
        x, y = self._rows(split)
        truth = x if self.material.dataset.task == "reconstruction" else y
        objective, name, total = self._objective(net), ending_of(net).scores, 0.0
        net.eval()
        with torch.no_grad():
            for rows in pieces(torch.arange(len(x)), ROWS_AT_ONCE):
                scores = net.values(x[rows], [name])[0]
                total += float(objective.loss(scores, truth[rows], None)) * len(rows)
        return total / max(len(x), 1)

    def accuracy_on(self, net: Net, split: str) -> float:
        """The score of the task on a split."""
        x, y = self._rows(split)
        net.eval()
        with torch.no_grad():
            answers = torch.cat([net(rows) for rows in pieces(x, ROWS_AT_ONCE)])
        return Judge(self.material.dataset.task, x.numpy(), y.numpy()).accuracy(answers.numpy()).value

    @property
    def _truth(self) -> Tensor:
        """What the net should answer to each train row."""
        return self.x if self.material.dataset.task == "reconstruction" else self.y

    def some_batches(self, count: int) -> Iterator[Tensor]:
        """Indexes of train rows for measuring gradients."""
        batches = self._batches()
        return (next(batches) for _ in range(count))

    def _objective(self, net: Net) -> Objective:
        data = self.material.dataset
        options = self.options
        return Objective(
            data.task, data.classes, ending_of(net).squeeze, options.distillation, options.temperature
        )

    def _rows(self, split: str) -> tuple[Tensor, Tensor]:
        x, y = self.material.dataset.rows(split)
        if self.material.dataset.task == "reconstruction" and split == "train":
            x, y = x[y == 0], y[y == 0]
        return torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(np.ascontiguousarray(y))

    def _answers(self, teacher: Net) -> Tensor:
        name = ending_of(teacher).scores
        with torch.no_grad():
            return torch.cat([teacher.values(rows, [name])[0] for rows in pieces(self.x, ROWS_AT_ONCE)])

    def _batches(self) -> Iterator[Tensor]:
        """Row indexes for ever: every row once an epoch, in an order of the seed; a rest of one row is left out."""
        size = min(self.options.batch, len(self.x))
        while True:
            order = torch.randperm(len(self.x), generator=self.chance)
            for rows in pieces(order, size):
                if len(rows) > 1:
                    yield rows

    def _count(self) -> None:
        self.steps_done += 1
        if self.steps_done % STEPS_A_WORD == 0 or self.steps_done == self.steps_total:
            self.material.tell(self.steps_done, self.steps_total)


def cosine(step: int, steps: int) -> float:
    """The share of the learning rate: a short warm-up, then half a cosine (Loshchilov & Hutter 2017)."""
    rising = max(int(steps * WARM_UP), 1)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1)))


def embedding_of(net: Net) -> str:
    """The tensor that the last layer reads."""
    layers = net.layers()
    return layers[-1].inputs[0] if layers else net.source


def pieces(rows: Tensor, size: int) -> Iterator[Tensor]:
    """The rows in blocks of a size; the last may be shorter."""
    return (rows[at : at + size] for at in range(0, len(rows), size))
