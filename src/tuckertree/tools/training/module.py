"""The training loop as a LightningModule. Importing this module imports Lightning."""

from __future__ import annotations

import copy
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from tuckertree._base.checkpoints import write_checkpoint
from tuckertree._base.progress import ProgressCallback
from tuckertree.tools.settings import Settings
from tuckertree.tools.training.admm import Admm
from tuckertree.tools.training.checkpoints import EPOCH, STEP
from tuckertree.tools.training.graph import CapturedPass
from tuckertree.tools.training.optimisation import RunningAverage, learning_rate, loss_of, make_optimizer
from tuckertree.tools.training.quiet import hush
from tuckertree.tools.training.randomness import seed_of
from tuckertree.tools.training.sources import BatchSource, Order, in_order
from tuckertree.tools.training.streams import Share, StreamedImages

CHECK_EVERY = 50
"""Steps between looks at the loss where a look costs: it waits for the device, and for the other processes."""
ENDED = "ended.txt"
DIVERGED, INTERRUPTED = "diverged", "interrupted"


class RunEndedError(Exception):
    """The run ends before its last epoch; the reason is in the folder, in :data:`ENDED`."""


@dataclass
class Position:
    """Where a run is: ``batch`` batches into epoch ``epoch``, both counted from zero; and how it went."""

    epoch: int = 0
    batch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


class TrainingModule(lightning.LightningModule):
    """A network, its optimiser and its data.

    Everything random is a function of the settings' seed, the epoch, the batch and the image, so a checkpoint
    holds no state of a random generator. The learning rate is a function of the step.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: Settings,
        train: BatchSource | StreamedImages,
        validation: BatchSource | None,
        teacher: nn.Module | None,
        folder: Path,
        identity: dict[str, Any],
        checkpoint_steps: int | None,
        tick: ProgressCallback | None,
        admm: Admm | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.settings, self.folder, self.identity = settings, folder, identity
        self.train_source, self.validation_source = train, validation
        self.order = Order(len(train), settings.batch_size, settings.seed)
        self.position = Position()
        self.average = RunningAverage(network, settings.ema) if settings.ema else None
        self.admm = admm
        self.sums = torch.zeros(3, dtype=torch.float64)  # loss, correct predictions, images
        self.checkpoint_steps, self.tick = checkpoint_steps, tick
        self._optimizer_state: dict[str, object] | None = None
        # In lists, so that they are no part of this module.
        self._teacher: list[Any] = [] if teacher is None else [teacher]
        self._compiled: list[Any] = []
        self._captured: CapturedPass | None = None
        self._stop = False
        self._started = time.perf_counter()

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        hush()  # it is unpickled nowhere but in the processes that a run starts

    # What is saved and restored

    def state(self) -> dict[str, object]:
        """All that a run needs to go on, as tensors and plain data."""
        optimizer = self.trainer.optimizers[0].state_dict() if self.trainer.optimizers else None
        return {
            "identity": self.identity,
            "epoch": self.position.epoch,
            "batch": self.position.batch,
            "history": self.position.history,
            "seconds": self.position.seconds + time.perf_counter() - self._started,
            "sums": self.sums,
            "network": self.network.state_dict(),
            "optimizer": optimizer,
            "average": None if self.average is None else self.average.to_data(),
            "admm": None if self.admm is None else self.admm.to_data(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the state of a checkpoint, before the run starts."""
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.from_data(state["average"])
        if self.admm is not None:
            self.admm.from_data(state["admm"])
        self.position = Position(state["epoch"], state["batch"], list(state["history"]), state["seconds"])
        self.sums = state["sums"].clone()
        self._optimizer_state = state["optimizer"]

    def _save(self, name: str) -> None:
        if self.trainer.is_global_zero:
            write_checkpoint(self.folder / name, self.state())

    # Hooks of Lightning

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimiser, in the state of the checkpoint if there is one."""
        optimizer = make_optimizer(self.network, self.settings)
        if self._optimizer_state is not None:
            # A copy: what comes from another process may lie in memory that both write to.
            optimizer.load_state_dict(copy.deepcopy(self._optimizer_state))
        return optimizer

    def train_dataloader(self) -> object:
        """The share of this process in the training batches."""
        workers = self.settings.workers
        if isinstance(self.train_source, StreamedImages):
            return self.train_source.loader(self._share, workers)
        return self.train_source.loader(self._training_batches, workers)

    def val_dataloader(self) -> object:
        """The share of this process in the validation images."""
        if self.validation_source is None:
            return []
        return self.validation_source.loader(self._validation_batches, self.settings.workers)

    def _share(self) -> Share:
        where, world = self.position, self.trainer.world_size
        size = self._batch() // world
        return Share(where.epoch, where.batch, self.order.batches, size, self.global_rank, world)

    def _training_batches(self) -> Iterator[Any]:
        where = self.position
        return self.order.epoch(where.epoch, where.batch, self.global_rank, self.trainer.world_size)

    def _validation_batches(self) -> Iterator[Any]:
        assert self.validation_source is not None
        return in_order(len(self.validation_source), self.global_rank, self.trainer.world_size)

    def transfer_batch_to_device(self, batch: object, device: torch.device, dataloader_idx: int) -> object:  # noqa: ARG002
        """Have the source make images and labels on the device."""
        source = self.validation_source if self.trainer.validating else self.train_source
        assert source is not None
        images, labels = source.prepare(batch, device)
        if self.settings.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return images, labels

    def on_fit_start(self) -> None:
        """Prepare what depends on the device."""
        self.network.train()
        exact = torch.float32 if self.device.type == "mps" else torch.float64  # which mps has not
        self.sums = self.sums.to(self.device, exact, copy=True)
        for teacher in self._teacher:
            teacher.to(self.device).eval().requires_grad_(False)
        if self.average is not None:
            self.average.to(self.device)
        if self.admm is not None:
            self.admm.to(self.device)
        if self.settings.channels_last:
            for module in (self.network, *self._teacher):
                module.to(memory_format=torch.channels_last)
        if self.settings.compile:
            self._compiled = [torch.compile(self.network)]
            self._teacher = [torch.compile(teacher) for teacher in self._teacher]

    def on_train_start(self) -> None:
        """Save the start, and let Ctrl-C and SIGTERM end the run at the end of a step."""
        self._started = time.perf_counter()
        if self.position == Position():
            self._save(EPOCH)
        if self.trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):  # put back by who starts the run
                signal.signal(number, self._asked_to_stop)

    def _asked_to_stop(self, number: int, frame: object) -> None:  # noqa: ARG002
        if self._stop:  # asked twice: at once, without a checkpoint
            raise KeyboardInterrupt
        self._stop = True

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:  # noqa: ARG002
        """Set the learning rate, and the generator that dropout draws from."""
        where = self.position
        torch.manual_seed(seed_of("step", self.settings.seed, where.epoch, where.batch, self.global_rank))
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self._rate()

    def _rate(self) -> float:
        step = self.position.epoch * self.order.batches + self.position.batch
        return learning_rate(self.settings, step, self.settings.epochs * self.order.batches)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        """The loss of one batch; where the pass is a CUDA graph, the step too."""
        images, labels = batch
        if self.automatic_optimization:
            loss, logits = self._forward(images, labels)
        else:
            if self._captured is None:
                self._captured = CapturedPass(self.network, self._forward, images, labels)
            loss, logits = self._captured(images, labels)
            self.optimizers().step()  # type: ignore[union-attr]
        self._count(loss, logits, labels)
        return loss if self.admm is None else loss + self.admm.penalty()

    def _forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self._compiled[0](images) if self._compiled else self.network(images)
        wanted = None
        for teacher in self._teacher:
            with torch.no_grad():
                wanted = teacher(images)
        return loss_of(logits, labels, self.settings, wanted), logits

    def _count(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        right = (logits.detach().argmax(1) == labels).sum()
        number = torch.full_like(right, len(labels))
        self.sums += torch.stack([loss.detach() * len(labels), right, number]).to(self.sums)

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:  # noqa: ARG002
        """Average the weights, look at the loss, save if it is time, and stop if asked to."""
        if self.average is not None:
            self.average.update(self.network)
        rate = self._rate()
        self.position.batch += 1
        done, total = self.position.batch, self.order.batches
        if self.admm is not None:
            self.admm.after_step(self.position.epoch * total + done)
        alone = self.device.type == "cpu" and self.trainer.world_size == 1
        if alone or done % CHECK_EVERY == 0:
            loss = float(self._totals()[0])
            if not torch.isfinite(torch.tensor(loss)):
                self._end(DIVERGED)
        if done % CHECK_EVERY == 0 and self.logger is not None:
            step = self.position.epoch * total + done
            self.logger.log_metrics({"loss": loss / done / self._batch(), "learning_rate": rate}, step)
        if self.tick is not None and self.trainer.is_global_zero:
            self.tick(f"epoch {self.position.epoch + 1} of {self.settings.epochs}", done, total)
        if done < total:
            if self.checkpoint_steps and done % self.checkpoint_steps == 0:
                self._save(STEP)
            if self._stop:
                self._save(STEP)
                self._end(INTERRUPTED)

    def _batch(self) -> int:
        return min(self.order.batch_size, self.order.count)

    def _totals(self) -> Tensor:
        return self.trainer.strategy.reduce(self.sums.clone(), reduce_op="sum").cpu()

    def on_validation_epoch_start(self) -> None:
        """Put the average in the place of the weights, and count anew."""
        if self.average is not None:
            self.average.swap(self.network)
        self._training_totals = self._totals()
        self.sums = torch.zeros_like(self.sums)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:  # noqa: ARG002
        """Count loss and correct predictions, without a teacher."""
        images, labels = batch
        logits = self.network(images)
        self._count(nn.functional.cross_entropy(logits.float(), labels), logits, labels)

    def on_validation_epoch_end(self) -> None:
        """Put the weights back."""
        if self.average is not None:
            self.average.swap(self.network)

    def on_train_epoch_end(self) -> None:
        """Write down how the epoch went, and save its end."""
        if self.validation_source is None:
            totals, validation = self._totals(), None
        else:
            totals, validation = self._training_totals, self._totals()
        finite = bool(totals.isfinite().all()) and (validation is None or bool(validation.isfinite().all()))
        if not finite or not all(bool(p.isfinite().all()) for p in self.network.parameters()):
            self._end(DIVERGED)
        last = self.position.epoch * self.order.batches + self.order.batches - 1
        row = {
            "epoch": self.position.epoch + 1,
            "learning_rate": learning_rate(self.settings, last, self.settings.epochs * self.order.batches),
            **_shares("train", totals),
            **({} if validation is None else _shares("validation", validation)),
            **({} if self.admm is None else {"truncation_error": self.admm.truncation_error()}),
        }
        self.position.history = [*self.position.history, row]
        self.position.epoch, self.position.batch = self.position.epoch + 1, 0
        self.sums = torch.zeros_like(self.sums)
        if self.logger is not None:
            numbers = {name: value for name, value in row.items() if name != "epoch"}
            self.logger.log_metrics(numbers, self.position.epoch * self.order.batches)
        self._save(EPOCH)
        if self._stop and self.position.epoch < self.settings.epochs:
            self._end(INTERRUPTED)

    def _end(self, reason: str) -> None:
        if self.trainer.is_global_zero:
            (self.folder / ENDED).write_text(reason, encoding="utf-8")
        self.trainer.strategy.barrier()
        raise RunEndedError(reason)


def _shares(part: str, totals: Tensor) -> dict[str, float]:
    loss, right, images = totals.tolist()
    return {f"{part}_loss": loss / images, f"{part}_top1": 100 * right / images}
