"""Loss, learning rate, parameter groups and the running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuckertree.tools.settings import Settings

WARM_UP, START, END = 0.3, 25.0, 1e4


def default_finetune_lr(steps: int, optimizer: str = "sgd") -> float:
    """A highest learning rate for a network that is good already: 0.05 from 4,000 steps on, less for fewer.

    What a rate upsets takes time to come back, and a short run has none. For batches of about a hundred; AdamW
    gets a fiftieth.
    """
    return 0.05 * min(1.0, (max(steps, 1) / 4000) ** 0.75) / (50 if optimizer == "adamw" else 1)


def learning_rate(settings: Settings, step: int, steps: int) -> float:
    """The learning rate of step ``step`` of ``steps``; a function of nothing else, so it needs no state."""
    if settings.schedule == "cosine":
        return settings.lr * (1 + math.cos(math.pi * step / steps)) / 2
    low, end = settings.lr / START, settings.lr / START / END
    top = WARM_UP * steps - 1
    if step <= top:
        return _along_cosine(low, settings.lr, step / top if top > 0 else 1.0)
    return _along_cosine(settings.lr, end, (step - top) / (steps - 1 - top))


def _along_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def make_optimizer(network: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """The optimizer; its learning rate is set before each step."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, 0.999))
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)


def loss_of(logits: Tensor, labels: Tensor, settings: Settings, teacher: Tensor | None = None) -> Tensor:
    """Cross-entropy, mixed with the distance from a teacher's answers if there is one.

    Parameters
    ----------
    logits, teacher
        ``[batch, classes]``, of the network and of its teacher.
    labels
        int64 ``[batch]``.

    Returns
    -------
    Tensor
        ``(1 - alpha) CE + alpha T^2 KL(teacher || network)``, both logits divided by ``T``: the mean over
        the batch (Hinton, Vinyals, Dean, arXiv 1503.02531).
    """
    logits = logits.float()
    entropy = functional.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
    if teacher is None:
        return entropy
    T, alpha = settings.temperature, settings.distill
    own = functional.log_softmax(logits / T, dim=1)
    wanted = functional.log_softmax(teacher.float() / T, dim=1)
    distance = functional.kl_div(own, wanted, reduction="batchmean", log_target=True)
    return (1 - alpha) * entropy + alpha * T**2 * distance


class RunningAverage:
    """Exponential average of a network's parameters and buffers; the first steps weigh more.

    The decay of step ``t`` is the smaller of the one given and ``(1 + t) / (10 + t)``.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights after a step; whole numbers, such as counters, are copied."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        own: list[Tensor] = []
        new: list[Tensor] = []
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                own.append(self.state[name])
                new.append(tensor)
            else:
                self.state[name].copy_(tensor)
        torch._foreach_lerp_(own, new, 1 - decay)  # all in one launch

    def swap(self, network: nn.Module) -> None:
        """Exchange the average and the weights; twice puts both back."""
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                held = tensor.clone()
                tensor.copy_(self.state[name])
                self.state[name].copy_(held)

    def to(self, device: torch.device) -> None:
        """Copy the average to where the network is: no other process shares its memory then."""
        self.state = {name: tensor.to(device, copy=True) for name, tensor in self.state.items()}

    def to_data(self) -> dict[str, object]:
        """What a checkpoint keeps."""
        return {"updates": self.updates, "state": self.state}

    def from_data(self, data: Mapping[str, Any]) -> None:
        """Take up what a checkpoint kept."""
        self.updates = data["updates"]
        for name, tensor in self.state.items():
            tensor.copy_(data["state"][name])
