"""What training minimises: the task's loss on labels, and the distance to the original model's answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from compression_jobs.pipeline.graph.net import Net, Plain, Reshape

F = nn.functional


@dataclass(frozen=True)
class Ending:
    """The tensor that the loss reads, and what squeezes it into probabilities or shares afterwards, if anything."""

    scores: str
    squeeze: str | None = None


def ending_of(net: Net) -> Ending:
    """Where the scores are: before a last softmax or sigmoid, because their logarithms are better conditioned."""
    name = net.outputs[0]
    op = net.producer(name)
    while isinstance(op, Reshape):
        name = op.inputs[0]
        op = net.producer(name)
    if isinstance(op, Plain) and op.op_type in ("Softmax", "Sigmoid", "LogSoftmax"):
        return Ending(op.inputs[0], op.op_type)
    return Ending(net.outputs[0])


SQUEEZES: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda scores: scores,
    "Sigmoid": torch.sigmoid,
    "Softmax": lambda scores: F.softmax(scores, 1),
    "LogSoftmax": lambda scores: F.log_softmax(scores, 1),
}


@dataclass(frozen=True)
class Objective:
    """The loss of a task, with the share that the teacher has in it (Hinton et al. 2015)."""

    task: str
    classes: int
    squeeze: str | None
    distillation: float
    temperature: float

    def loss(self, scores: Tensor, truth: Tensor, taught: Tensor | None) -> Tensor:
        """The loss of a batch against labels, values or, in reconstruction, the rows themselves; `taught` are the
        teacher's scores."""
        flat = self._answers(scores)
        own = self._of_truth(flat, truth)
        if taught is None or not self.distillation:
            return own
        other = self._of_teacher(flat, self._answers(taught))
        return (1 - self.distillation) * own + self.distillation * other

    def _answers(self, scores: Tensor) -> Tensor:
        """One flat row each; logarithms of chances stay what they are, numbers are squeezed as the model does."""
        flat = scores.reshape(len(scores), -1)
        return flat if self.task == "classification" else SQUEEZES[self.squeeze](flat)

    def _of_truth(self, scores: Tensor, truth: Tensor) -> Tensor:
        if self.task != "classification":
            return F.mse_loss(scores, truth.reshape(scores.shape))
        if scores.shape[1] == 1:
            wanted = truth.reshape(-1, 1).float()
            if self.squeeze:
                return F.binary_cross_entropy_with_logits(scores, wanted)
            return F.mse_loss(scores, wanted)
        return F.cross_entropy(scores, truth)

    def _of_teacher(self, scores: Tensor, taught: Tensor) -> Tensor:
        """KL at the temperature times its square, so that its gradients keep their size."""
        if self.task != "classification" or scores.shape[1] == 1:
            return F.mse_loss(scores, taught)
        soft = F.log_softmax(scores / self.temperature, 1)
        goal = F.log_softmax(taught / self.temperature, 1)
        return F.kl_div(soft, goal, reduction="batchmean", log_target=True) * self.temperature**2


def similarity_loss(mine: Tensor, theirs: Tensor) -> Tensor:
    """How differently two nets see which rows of a batch are alike (Tung & Mori 2019)."""

    def alike(values: Tensor) -> Tensor:
        flat = values.reshape(len(values), -1)
        return F.normalize(flat @ flat.T, dim=1)

    return ((alike(mine) - alike(theirs)) ** 2).sum() / len(mine) ** 2


def gradients_of(loss: Tensor) -> None:
    """Add the gradients of a loss to the parameters."""
    cast(Callable[[], Any], loss.backward)()


def no_gradients(net: nn.Module) -> None:
    """Forget the gradients."""
    for parameter in net.parameters():
        parameter.grad = None


def seeded(seed: int) -> torch.Generator:
    """One thread and one seed: the same result each time."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)
