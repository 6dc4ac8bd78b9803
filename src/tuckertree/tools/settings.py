"""How a network is trained, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args, get_type_hints

from tuckertree._base.errors import UsageError

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("onecycle", "cosine")
PRECISIONS = ("32", "bf16")
AUGMENTATIONS = ("flip-crop", "cutout", "imagenet", "none")
STRATEGIES = ("auto", "ddp", "ddp_spawn", "fsdp")
STARTED_APART = ("ddp", "fsdp")


@dataclass(frozen=True)
class Settings:
    """How a network is trained.

    The same settings, data and starting weights give the same trained weights on one CPU, whether or not the
    run was interrupted: shuffling and augmentation depend on the seed, the epoch and the image alone.

    Attributes
    ----------
    epochs
        Times that all training images are seen.
    batch_size
        Images of one step, over all devices together. The images that do not fill the last batch are left
        out of the epoch (others in each).
    optimizer
        ``sgd``, with Nesterov momentum, or ``adamw``.
    lr
        The highest learning rate of the schedule. A short run of a network that is good already needs a lower one:
        `tuckertree finetune` takes 0.05, and less for fewer than 4,000 steps
        (:func:`~tuckertree.tools.training.default_finetune_lr`).
    schedule
        ``onecycle``: from lr / 25 up to lr in the first 30 % of all steps and down to lr / 250,000, both along
        a cosine (Smith, Topin 2019); ``cosine``: from lr down to zero. In both the rate changes at each step.
    weight_decay
        Weight decay, not on biases and the weights of norms, that is on no parameter of fewer than two dimensions.
    momentum
        Of SGD; AdamW takes it as its first beta.
    label_smoothing
        Label smoothing of the cross-entropy, in [0, 1).
    precision
        ``32``, or ``bf16`` for autocast to bfloat16.
    clip
        The largest norm of the whole gradient; None does not clip.
    ema
        Decay of the running average of the weights, such as 0.999, which is then what is validated and kept;
        None keeps the weights themselves.
    distill
        Weight alpha of distillation, if there is a teacher: the loss is
        ``(1 - alpha) CE + alpha T^2 KL(teacher || student)``, logits divided by ``T`` (Hinton et al. 2015).
    temperature
        ``T`` of it.
    augment
        ``flip-crop``: a crop after padding by 4 zeros, mirrored or not (He et al. 2016, section 4.2);
        ``cutout``: the same, and a square of half the side is blanked (DeVries, Taylor 2017);
        ``imagenet``: a part of 8 to 100 % of the area resized to the input, mirrored or not (Szegedy et al.
        2015); ``none``. The command line takes what suits the size of the images.
    channels_last
        Hold images and weights in the NHWC (channels last) memory format, which is faster on most CPUs.
    compile
        Let ``torch.compile`` make one program of the network; on one CUDA device forward and backward pass are one
        CUDA graph then, teacher and loss included, unless gradients are clipped or ADMM pulls.
    seed
        Seed of everything random. The validation images do not depend on it.
    validation
        Share of the training images that are not trained on but looked at after each epoch, in [0, 1).
    limit_train
        Use at most so many images of the training set, validation included.
    workers
        Processes that decode images; none for small images, which are decoded once and kept in memory.
    devices
        Number of devices, each with a copy of the network and its share of each batch. BatchNorm takes its
        statistics over all of them on CUDA; on the CPU over each share, so its results differ there.
    strategy
        How several devices work together, as Lightning calls it: ``auto``, which starts a process for each,
        ``ddp_spawn``, which is the same, or ``ddp``, for scripts started by ``torchrun``. ``fsdp`` is there on CUDA
        alone, started like ``ddp``, with all weights on each device, because checkpoints hold them whole; it has
        never been run.
    balance_factors
        Make the factors of a compressed network orthonormal and of equal norm first; its function stays.
    admm_rho
        Weight rho of the pull of a dense network towards the ranks of a plan, which must then be given:
        ``rho/2 ||W - Z + U||^2`` is added to the loss that is descended (not to the one reported), with ``Z``
        the truncation of ``W + U`` and ``U`` the sum of what was missing (ADMM, arXiv 2107.12422). None does
        without.
    admm_every
        Steps between two renewals of ``Z`` and ``U``, counted over the whole run; each decomposes all planned
        layers once.

    Raises
    ------
    UsageError
        If a value is not possible; the message names it and those that are.

    Examples
    --------
    >>> import tuckertree as tt
    >>> settings = tt.Settings(epochs=60, lr=0.02, ema=0.999)
    >>> settings.optimizer, settings.distill
    ('sgd', 0.9)
    >>> tt.Settings(epochs=60, optimizer="adam")
    Traceback (most recent call last):
    tuckertree.UsageError: optimizer must be one of sgd, adamw, not 'adam'
    """

    epochs: int
    batch_size: int = 128
    optimizer: str = "sgd"
    lr: float = 0.05
    schedule: str = "onecycle"
    weight_decay: float = 1e-4
    momentum: float = 0.9
    label_smoothing: float = 0.0
    precision: str = "32"
    clip: float | None = None
    ema: float | None = None
    distill: float = 0.9
    temperature: float = 4.0
    augment: str = "flip-crop"
    channels_last: bool = False
    compile: bool = False
    seed: int = 0
    validation: float = 0.1
    limit_train: int | None = None
    workers: int = 0
    devices: int = 1
    strategy: str = "auto"
    balance_factors: bool = True
    admm_rho: float | None = None
    admm_every: int = 100

    def __post_init__(self) -> None:
        self._check_types()
        for name, allowed in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
            ("augment", AUGMENTATIONS),
            ("strategy", STRATEGIES),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise UsageError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("devices", 1),
            ("workers", 0),
            ("seed", 0),
            ("admm_every", 1),
        ):
            _require(name, getattr(self, name), getattr(self, name) >= least, f"at least {least}")
        _require(
            "limit_train", self.limit_train, self.limit_train is None or self.limit_train >= 1, "at least 1"
        )
        _require("seed", self.seed, self.seed < 2**63, "less than 2^63")
        for name in ("lr", "temperature", "clip", "admm_rho"):
            value = getattr(self, name)
            _require(name, value, value is None or 0 < value < math.inf, "a positive number")
        _require("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "zero or more")
        for name in ("momentum", "label_smoothing", "validation"):
            _require(name, getattr(self, name), 0 <= getattr(self, name) < 1, "in [0, 1)")
        _require("distill", self.distill, 0 <= self.distill <= 1, "in [0, 1]")
        _require("ema", self.ema, self.ema is None or 0 < self.ema < 1, "in (0, 1)")
        if self.batch_size % self.devices:
            raise UsageError(
                f"batch_size {self.batch_size} must be a multiple of the {self.devices} devices that share it"
            )

    def _check_types(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            kinds = get_args(kind) or (kind,)
            allowed = (*kinds, int) if float in kinds else kinds
            if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in kinds):
                wanted = " or ".join("none" if k is type(None) else k.__name__ for k in kinds)
                raise UsageError(f"{name} must be of type {wanted}, not {value!r}")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Settings:
        """Make settings of the plain data that a recipe or :meth:`to_json` gives.

        Raises
        ------
        UsageError
            If there is a field that settings do not have, or a value is not possible.
        """
        known = [field.name for field in fields(cls)]
        for name in data:
            if name not in known:
                raise UsageError(f"unknown setting {name!r}; there are {', '.join(known)}")
        if "epochs" not in data:
            raise UsageError("the settings lack epochs")
        return cls(**data)

    def to_json(self) -> dict[str, object]:
        """All fields as plain data."""
        return asdict(self)


def _require(name: str, value: object, holds: bool, wanted: str) -> None:
    if not holds:
        raise UsageError(f"{name} must be {wanted}, not {value!r}")
