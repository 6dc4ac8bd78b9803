"""Tuning a whole compressed network against the original, on unlabelled images.

Fitting goes from layer to layer, once. Here all layers change together by gradient steps on the distance of outputs and
features from the original's (:mod:`tuckertree.calibration.tuning_loss`), as MiR (arXiv 2201.02620) and PRACTISE
(arXiv 2202.07861) do. A few ways are tried for a few steps; the best goes on. What counts is the distance of the outputs
on images that are held out: the best state by it is kept, and the network stays as it was where there is none better.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from math import ceil, cos, inf, pi
from warnings import warn

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError, UsageError, first_line
from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree.calibration.balancing import balance_in_place
from tuckertree.calibration.distances import output_distances
from tuckertree.calibration.kept import changeable
from tuckertree.calibration.sources import Calibration, CalibrationData, CalibrationWarning, to_model
from tuckertree.calibration.tuning_images import TuningImages, can_move
from tuckertree.calibration.tuning_loss import Imitation
from tuckertree.core.layers import Chain
from tuckertree.measure import ExampleInputs, copy_model, preserved
from tuckertree.measure.forward import modes_of, set_modes, uncompiled
from tuckertree.network.surgery import layer_for
from tuckertree.planning import Plan, take_inventory

_CHECKS = 20
"""The held-out images are looked at so many times in a run."""
_TRIAL = 20
"""Each way is tried for one in so many steps."""
_TIMED = 3
"""Steps that are timed where minutes are given, after a first one."""
_WARM_UP = 0.1
_RATES = 3e-3, 5e-4, 1e-4
_NO_DERIVATIVE = "no derivative leads from the network's outputs to its weights, so it cannot be tuned"
_NORMS_NEED = 32
"""Images in a batch from which on BatchNorm is tried in training mode."""


@dataclass(frozen=True)
class Length:
    """How long to tune: a number of steps, or seconds that become one.

    Examples
    --------
    >>> from tuckertree.calibration import Length
    >>> Length.of("5min"), Length.of(300)
    (Length(steps=None, seconds=300.0), Length(steps=300, seconds=None))
    """

    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise UsageError("tuning takes either minutes or steps, such as minutes=5 or steps=300")
        if self.steps is not None and (
            not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 1
        ):
            raise UsageError(f"steps of tuning are a whole number from 1 on, not {self.steps!r}")
        if self.seconds is not None and not 0 < self.seconds < inf:
            raise UsageError(f"tuning takes more than no time, not {self.seconds / 60:g} minutes")

    @classmethod
    def of(cls, text: str | int) -> Length:
        """Read ``5min``, ``90s``, ``1h``, or a number of steps.

        Raises
        ------
        UsageError
            If it is none of these.
        """
        if isinstance(text, int):
            return cls(steps=text)
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)|(\d+)", str(text).strip())
        if found is None:
            raise UsageError(
                f"tuning takes a time such as 5min or 90s, or a number of steps such as 300, not {text!r}"
            )
        if found[3]:
            return cls(steps=int(found[3]))
        return cls(seconds=float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]])


@dataclass(frozen=True)
class Way:
    """How steps are made.

    Attributes
    ----------
    batch_norm
        Whether BatchNorms that may change are in training mode.
    rate
        The highest learning rate of Adam; it rises for a tenth of the steps and falls along a cosine.
    """

    batch_norm: bool
    rate: float


@dataclass(frozen=True)
class Tuning:
    """What tuning did.

    Attributes
    ----------
    steps, batch, seed
        With these the run can be repeated; ``best`` is the step whose state was kept, 0 where that is the start.
    seconds
        It took, trials included.
    before, after
        Relative distance of the outputs from the original's on the images held out.
    images, held_out
        Their numbers.
    way
        How the steps were made.
    note
        Why it ended early, or nothing was gained.
    interrupted
        Whether it was interrupted.
    """

    steps: int
    best: int
    seconds: float
    before: float
    after: float
    images: int
    held_out: int
    batch: int
    seed: int
    way: Way | None = None
    note: str = ""
    interrupted: bool = False

    def to_json(self) -> dict[str, object]:
        """As JSON data."""
        return asdict(self)

    def __str__(self) -> str:
        """One line."""
        if self.best:
            gained = (
                f"{self.steps} steps in {self.seconds:.0f} s: outputs {self.before:.4f} -> {self.after:.4f}"
            )
            gained += f" from the original's on {self.held_out} images held out"
        else:
            gained = f"nothing changed, distance of the outputs {self.before:.4f} on {self.held_out} images held out"
        return gained + (f" ({self.note})" if self.note else "")


def tune_network(
    model: nn.Module,
    original: nn.Module,
    images: CalibrationData | Calibration,
    length: Length,
    *,
    plan: Plan | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    way: Way | None = None,
    tick: ProgressCallback = no_progress,
) -> tuple[nn.Module, Tuning]:
    """Tune a compressed network; see :func:`tuckertree.tune`.

    Parameters
    ----------
    model, original
        The compressed and the dense network; neither is changed.
    images
        Without labels.
    length
        Steps, or time.
    plan
        Says which layers were left out; without it only those that are frozen are kept.
    seed
        Of the order of the images and how they are moved.
    batch_size
        By default 64, of large images 16.
    way
        How to make steps; by default that of a few which is best on the images held out.

    Returns
    -------
    tuple[torch.nn.Module, Tuning]
        A copy, and what was done. Where nothing was gained the copy is equal to ``model`` to the bit.

    Raises
    ------
    TuckertreeError
        If the networks do not belong together, do not run on the images, or have no outputs that can be compared or
        differentiated.

    Warns
    -----
    CalibrationWarning
        If nothing was gained, or the run ended early.
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"a batch holds at least one image, not {batch_size}")
    began = time.perf_counter()
    with preserved(original):
        run = _Run(model, original, TuningImages(Calibration(images), batch_size), plan, seed, tick)
        tuning = run.tune(length, way)
        result = run.result()
    tuning = replace(tuning, seconds=round(time.perf_counter() - began, 3))
    if tuning.note:
        warn(f"tuning: {tuning}", CalibrationWarning, stacklevel=3)
    return result, tuning


def check_tunable(model: nn.Module, images: Calibration) -> None:
    """Refuse, before any work is done for it, a network that cannot be tuned.

    Raises
    ------
    TuckertreeError
        If it has no floating-point outputs, or no derivative leads from them to its weights.
    """
    twin = copy_model(model)
    for parameter in twin.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    first = to_model(next(iter(images.in_batches(2))), twin)
    with preserved(twin), _tunable(twin, []):
        if not Imitation(twin, first).loss(twin, first).requires_grad:
            raise TuckertreeError(_NO_DERIVATIVE)


@dataclass
class _State:
    """Values of what is tuned, and how far the outputs are with them."""

    distance: float
    values: list[Tensor] = field(default_factory=list)
    step: int = 0


class _Run:
    """One tuning of one network."""

    def __init__(
        self,
        model: nn.Module,
        original: nn.Module,
        images: TuningImages,
        plan: Plan | None,
        seed: int,
        tick: ProgressCallback,
    ) -> None:
        self._model, self._images, self._seed, self._tick = model, images, seed, tick
        self._original, self._student = _wide(original), _wide(copy_model(model))
        first = to_model(images.first, self._original)
        self._imitation = Imitation(self._original, first)
        self._moved = can_move(first, self._imitation.outputs)
        self._parameters, self._norms = _free_parts(self._student, self._original, plan, first)
        for parameter in self._student.parameters():
            parameter.requires_grad_(any(parameter is each for each in self._parameters))
        before = self._distance(self._student)
        free = {id(p) for p in self._parameters}
        for module in self._student.modules():
            if isinstance(module, Chain) and all(id(stage.weight) in free for stage in module):
                balance_in_place(module)
        self._start = self._best = _State(before, self._values())

    def tune(self, length: Length, way: Way | None) -> Tuning:
        """Make steps, and keep the best state."""
        steps, note, interrupted = length.steps or 0, "", False
        if not len(self._images) or not self._parameters:
            why = (
                "no parameter may change" if len(self._images) else "there is one image, and none to hold out"
            )
            return self._told(0, None, why)
        chosen, done = way, 0
        try:
            ways = [way] if way else self._ways()
            if length.seconds is not None:
                steps = self._steps_within(length.seconds, ways)
            if way is None:
                chosen = self._tried(ways, steps)
            assert chosen is not None
            for done in self._steps(chosen, steps):
                if done % ceil(steps / _CHECKS) == 0 or done == steps:
                    self._look(done, steps)
        except KeyboardInterrupt:
            note, interrupted = f"interrupted after {done} steps", True
        except FloatingPointError as error:
            note = str(error)
        if not self._best.step and not note:
            note = "it does not bring the outputs nearer to the original's"
        return self._told(steps, chosen, note, interrupted=interrupted)

    def _told(self, steps: int, way: Way | None, note: str, *, interrupted: bool = False) -> Tuning:
        return Tuning(
            steps=steps,
            best=self._best.step,
            seconds=0.0,
            before=self._start.distance,
            after=self._best.distance,
            images=len(self._images),
            held_out=len(self._images.held),
            batch=self._images.size,
            seed=self._seed,
            way=way,
            note=note,
            interrupted=interrupted,
        )

    def result(self) -> nn.Module:
        """A copy of the network in its own types and modes, in the best state."""
        result = copy_model(self._model)
        if self._best.step:
            self._set(self._best.values)
            tuned = {id(x) for x in self._tuned}
            own = result.state_dict()
            for name, value in self._student.state_dict(keep_vars=True).items():
                if id(value) in tuned:
                    own[name].copy_(value.detach())
        return result

    def _ways(self) -> list[Way]:
        """Those that are tried."""
        found = [Way(batch_norm=False, rate=rate) for rate in _RATES]
        if self._norms and self._images.size >= _NORMS_NEED:
            found.append(Way(batch_norm=True, rate=_RATES[0]))
        return found

    def _tried(self, ways: list[Way], steps: int) -> Way:
        """The way that leads nearest to the original in a few steps."""
        trial, found = _trial(steps), list[float]()
        for number, way in enumerate(ways):
            try:
                for done in self._steps(way, trial):
                    self._tick("trials", number * trial + done, len(ways) * trial)
                found.append(self._distance(self._student))
            except FloatingPointError:
                found.append(inf)
        return ways[found.index(min(found))]

    def _steps_within(self, seconds: float, ways: list[Way]) -> int:
        """How many steps can be made, trials and all, by the time that the first ones take."""
        began = time.perf_counter()
        for done in self._steps(ways[-1], 1 + _TIMED):
            if done == 1:
                first = time.perf_counter()
        each = (time.perf_counter() - first) / _TIMED
        looked = time.perf_counter()
        self._distance(self._student)
        looks = (time.perf_counter() - looked) * (_CHECKS + len(ways))
        left = seconds - (time.perf_counter() - began) - looks
        trials = len(ways) if len(ways) > 1 else 0
        return max(1, int(left / each / (1 + trials / _TRIAL)))

    def _steps(self, way: Way, steps: int) -> Iterator[int]:
        """Make steps from the start, and say how many are done.

        Raises
        ------
        FloatingPointError
            If the loss is not finite.
        """
        self._set(self._start.values)
        optimizer = torch.optim.Adam(self._parameters)
        generator = torch.Generator().manual_seed(self._seed)
        batches = self._images.batches(generator, moved=self._moved)
        with _tunable(self._student, self._norms if way.batch_norm else []):
            for step in range(steps):
                for group in optimizer.param_groups:
                    group["lr"] = way.rate * _share(step, steps)
                inputs = to_model(next(batches), self._student)
                loss = self._imitation.loss(self._student, inputs)
                if not loss.isfinite():
                    raise FloatingPointError(f"the loss became NaN or infinite at step {step + 1}")
                optimizer.zero_grad()
                _backward(loss)
                optimizer.step()
                yield step + 1

    def _look(self, done: int, steps: int) -> None:
        """Measure the outputs on the images held out, and keep the state if it is the best."""
        distance = self._distance(self._student)
        if distance < self._best.distance:
            self._best = _State(distance, self._values(), done)
        self._tick(
            f"tuning: {distance:.4f} from the original, at best {self._best.distance:.4f}", done, steps
        )

    def _distance(self, model: nn.Module) -> float:
        return output_distances(self._original, (model,), self._images.held, in_units=True)[0]

    @property
    def _tuned(self) -> list[Tensor]:
        return [*self._parameters, *(x for norm in self._norms for x in norm.buffers())]

    def _values(self) -> list[Tensor]:
        return [x.detach().clone() for x in self._tuned]

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for x, value in zip(self._tuned, values, strict=True):
            x.copy_(value)


def _wide(model: nn.Module) -> nn.Module:
    """The model, or a copy in float32 where it is in a type of half the size."""
    small = any(p.is_floating_point() and p.itemsize < 4 for p in model.parameters())
    return copy_model(model).float() if small else model


def _free_parts(
    student: nn.Module, original: nn.Module, plan: Plan | None, first: ExampleInputs
) -> tuple[list[nn.Parameter], list[nn.Module]]:
    """The parameters that may change, and the BatchNorms whose statistics may."""
    plan = plan or Plan((), {}, (0, 0), (0, 0))
    for layer in plan.compressed:
        layer_for(original, layer)
    layers = take_inventory(original, first).layers
    free = changeable(original, plan, layers, first)
    try:
        modules = {layer.name: student.get_submodule(layer.name) for layer in layers}
        norms = [student.get_submodule(name) for name in sorted(free.norms)]
    except AttributeError as error:
        raise TuckertreeError(
            f"the original has a layer that the compressed network lacks: {first_line(error)}"
        ) from error
    found: dict[int, nn.Parameter] = {}
    for name, module in modules.items():
        parts = list(module) if isinstance(module, Chain) else [module]
        chosen = [part._parameters.get("weight") for part in parts if name in free.kernels]
        chosen += [parts[-1]._parameters.get("bias")] if name in free.biases else []
        found |= {id(p): p for p in chosen if p is not None}
    found |= {id(p): p for norm in norms for p in norm.parameters(recurse=False)}
    kept = [p for name in modules.keys() - free.kernels for p in modules[name].parameters()]
    trained = any(p.requires_grad for p in student.parameters())
    return [
        p
        for p in found.values()
        if p.is_floating_point()
        and (p.requires_grad or not trained)
        and all(p is not other for other in kept)
    ], norms


def _trial(steps: int) -> int:
    return max(5, steps // _TRIAL)


def _share(step: int, steps: int) -> float:
    """Of the highest rate: up along a line for a tenth of the steps, down along a cosine to nothing."""
    place, top = (step + 1) / steps, max(_WARM_UP, 1 / steps)
    return place / top if place < top else (1 + cos(pi * (place - top) / (1 - top + 1 / steps))) / 2


def _backward(loss: Tensor) -> None:
    """Send the loss back; raises TuckertreeError where that cannot be."""
    if not loss.requires_grad:
        raise TuckertreeError(_NO_DERIVATIVE)
    try:
        loss.backward()
    except RuntimeError as error:
        raise TuckertreeError(
            f"the network's outputs cannot be differentiated: {first_line(error)}"
        ) from error


@contextmanager
def _tunable(student: nn.Module, norms: list[nn.Module]) -> Iterator[None]:
    """Evaluation mode but for some norms."""
    modes = modes_of(student)
    # In evaluation mode cuDNN does not differentiate recurrent layers.
    recurrent = any(isinstance(module, nn.RNNBase) for module in student.modules())
    cudnn = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
    try:
        set_modes(dict.fromkeys(modes, False) | dict.fromkeys(norms, True))
        with cudnn, uncompiled(), torch.enable_grad():
            yield
    finally:
        set_modes(modes)
