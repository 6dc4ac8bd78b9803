"""A run on Lightning's trainer, and how it ends. Importing this module imports Lightning."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import torch

from tuckertree._base.errors import TuckertreeError, argument
from tuckertree._base.extras import require_extra
from tuckertree.tools.training.module import DIVERGED, ENDED, TrainingModule
from tuckertree.tools.training.quiet import load_lightning, quiet


def fit(module: TrainingModule, device: str, *, log: bool) -> bool:
    """Run the epochs that are left; whether the loss diverged on the way.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C or SIGTERM, when a checkpoint has been written.
    TuckertreeError
        If a process of the run ends, an image cannot be read, or the memory is too small.
    """
    left = module.settings.epochs - module.position.epoch
    if left <= 0:
        return False
    reason = ""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with torch.random.fork_rng(devices=[]), quiet():
        trainer = _trainer(module, device, left, log=log)
        try:
            trainer.fit(module)
        except (SystemExit, KeyboardInterrupt):  # Lightning turns Ctrl-C into the former
            _end_processes(trainer)
            raise KeyboardInterrupt(f"interrupted; {_go_on(module.folder)}") from None
        except torch.OutOfMemoryError as error:
            raise TuckertreeError(
                f"out of memory on {device}: give a smaller batch size; {_go_on(module.folder)}"
            ) from error
        except Exception as error:
            ended = module.folder / ENDED
            reason = ended.read_text(encoding="utf-8") if ended.is_file() else ""
            ended.unlink(missing_ok=True)
            if not reason:
                complaint = _last_line(error)
                if isinstance(error, TuckertreeError):
                    raise type(error)(complaint) from error
                if module.settings.devices == 1 and not str(error).startswith("DataLoader worker"):
                    raise
                raise TuckertreeError(
                    f"a process of the run ended: {complaint}; {_go_on(module.folder)}"
                ) from error
        finally:
            # Both Lightning and the module set handlers; only the main thread may.
            if threading.current_thread() is threading.main_thread():
                for number, handler in handlers.items():
                    signal.signal(number, handler)
    if reason and reason != DIVERGED:
        raise KeyboardInterrupt(f"interrupted; {_go_on(module.folder)}")
    return reason == DIVERGED


def _go_on(folder: Path) -> str:
    return f"the last checkpoint is in {folder}, go on with {argument('resume')}"


def _last_line(error: Exception) -> str:
    """What an error says; one that comes from another process has its traceback in it."""
    *before, last = str(error).strip().splitlines() or [type(error).__name__]
    return last.partition(": ")[2] or last if any("Traceback" in line for line in before) else last


def _trainer(module: TrainingModule, device: str, epochs: int, *, log: bool) -> Any:
    lightning = load_lightning()
    settings = module.settings
    kind = torch.device(device)
    one_gpu = settings.devices == 1 and kind.index is not None and kind.type != "cpu"
    # What ADMM adds changes its tensors, and clipping looks at all gradients: neither is in the graph.
    captured = settings.compile and kind.type == "cuda" and settings.devices == 1
    module.automatic_optimization = not (captured and settings.clip is None and module.admm is None)
    strategy: object = settings.strategy
    if strategy == "auto" and settings.devices > 1:
        strategy = "ddp_spawn"
    elif strategy == "fsdp":
        strategies = require_extra("lightning.pytorch.strategies", extra="training")
        # Checkpoints and results read the weights off the network, so no process may hold a part of them alone.
        strategy = strategies.FSDPStrategy(sharding_strategy="NO_SHARD")
    loggers = False
    if log:
        tensorboard = require_extra("lightning.pytorch.loggers", extra="training")
        loggers = tensorboard.TensorBoardLogger(module.folder, name="logs", version="")
    return lightning.Trainer(
        accelerator="gpu" if kind.type == "cuda" else kind.type,
        devices=[kind.index] if one_gpu else settings.devices,
        strategy=strategy,
        precision="bf16-mixed" if settings.precision == "bf16" else "32-true",
        max_epochs=epochs,
        gradient_clip_val=settings.clip,
        benchmark=kind.type == "cuda" or None,
        sync_batchnorm=kind.type == "cuda" and settings.devices > 1,
        default_root_dir=module.folder,
        logger=loggers,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        limit_val_batches=None if module.validation_source is not None else 0,
    )


def _end_processes(trainer: Any) -> None:
    for process in getattr(trainer.strategy.launcher, "procs", ()):
        process.terminate()
