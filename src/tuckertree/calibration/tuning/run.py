"""One run of tuning: ways tried, steps made, the best state kept."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from math import ceil, cos, inf, isfinite, pi
from typing import Any

import torch
from torch import Tensor, nn

from tuckertree._base.progress import ProgressCallback
from tuckertree.calibration.distances import output_distances
from tuckertree.calibration.sources import to_model
from tuckertree.calibration.tuning.images import TuningImages, can_move
from tuckertree.calibration.tuning.loss import Imitation
from tuckertree.calibration.tuning.parts import (
    backward,
    free_parts,
    in_single_precision,
    lay_channels_last,
    tunable,
)
from tuckertree.calibration.tuning.record import Length, Tuning, Way
from tuckertree.calibration.tuning.resuming import Checkpoint
from tuckertree.calibration.tuning.starts import balance_free, uncorrected, values_in
from tuckertree.measure import copy_model
from tuckertree.planning import Plan

_CHECKS = 20
"""The held-out images are looked at so many times in a run."""
_TRIAL, _ENOUGH, _ROOMY = 30, 100, 150
"""Each way is tried for so many steps, where there are enough; where time is given, there must be room for trials too."""
_LITTLE = 1.1
"""A way is taken if the outputs are at most so many times as far as at the start after its trial; it gains later."""
_TIMED = 3
"""Steps that are timed where minutes are given, after a first one."""
_WARM_UP = 0.1
_RATES = 3e-3, 1e-3, 3e-4, 1e-4
_NORMS_NEED = 32
"""Images in a batch from which on BatchNorm is tried in training mode."""


@dataclass
class _State:
    """Values of what is tuned, and how far the outputs are with them."""

    distance: float
    values: list[Tensor] = field(default_factory=list)
    step: int = 0


class TuningRun:
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
        self._original, self._student = in_single_precision(original), in_single_precision(model)
        first = to_model(images.first, self._original)
        self._imitation = Imitation(self._original, first)
        self._moved = can_move(first, self._imitation.outputs)
        self._parameters, self._norms = free_parts(self._student, self._original, plan, first)
        for parameter in self._student.parameters():
            parameter.requires_grad_(any(parameter is each for each in self._parameters))
        before = self._distance(self._student)
        balance_free(self._student, self._parameters)
        for network in (self._original, self._student):
            lay_channels_last(network, first)
        self._plan = plan
        self._start = self._best = _State(before, self._values())
        self._course = list[tuple[int, float]]()
        self._uncorrected: list[Tensor] | None = None

    def tune(self, length: Length, way: Way | None, checkpoint: Checkpoint) -> Tuning:
        """Make steps, from where a checkpoint was written on, and keep the best state."""
        steps, note, interrupted = length.steps or 0, "", False
        if not len(self._images) or not self._parameters:
            why = (
                "no parameter may change" if len(self._images) else "there is one image, and none to hold out"
            )
            return self._told(0, None, why)
        chosen, done = way, 0
        try:
            steps, chosen = self._resumed(checkpoint.state) or self._settled(length, way)
            for done in self._steps(chosen, steps, checkpoint.state):
                if done % ceil(steps / _CHECKS) == 0 or done == steps:
                    self._look(done, steps)
                    checkpoint.write(self._kept(chosen, steps, done))
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
            course=tuple((step, far if isfinite(far) else None) for step, far in self._course),
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

    def _kept(self, way: Way, steps: int, done: int) -> dict[str, object]:
        """What the run goes on from; the order of the images follows from the seed and the steps done."""
        return {
            "steps": steps,
            "done": done,
            "way": asdict(way),
            "values": self._values(),
            "optimizer": self._optimizer.state_dict(),
            "best": vars(self._best),
            "course": self._course,
        }

    def _resumed(self, state: dict[str, Any] | None) -> tuple[int, Way] | None:
        """Steps and way of a run that was interrupted, and its best state."""
        if state is None:
            return None
        self._best, self._course = _State(**state["best"]), list(state.get("course", ()))
        return state["steps"], Way(**state["way"])

    def _settled(self, length: Length, way: Way | None) -> tuple[int, Way]:
        """How many steps are made, and how."""
        began = time.perf_counter()
        if way is None or not way.corrected:
            self._uncorrected = self._without_correction()
        if way is not None and self._uncorrected is None:
            way = replace(way, corrected=True)  # there is no other start
        ways = [way] if way else self._ways()
        if length.steps is not None:
            return length.steps, self._tried(ways, _trial(length.steps))
        assert length.seconds is not None
        end = began + length.seconds
        each, look = self._timed(ways[0])

        def room() -> int:
            return int((end - time.perf_counter() - _CHECKS * look) / each)

        if room() >= _ROOMY:
            chosen = self._tried(ways, _trial(_ENOUGH))
            return max(_ENOUGH, room()), chosen
        steps = max(1, int(room() * _ENOUGH / _ROOMY))
        return steps, self._tried(ways, _trial(steps))

    def _timed(self, way: Way) -> tuple[float, float]:
        """Seconds of a step, and of a look at the images held out."""
        times = [time.perf_counter() for _ in self._steps(way, 1 + _TIMED)]
        began = time.perf_counter()
        self._distance(self._student)
        return (times[-1] - times[0]) / _TIMED, time.perf_counter() - began

    def _ways(self) -> list[Way]:
        """Those that are tried, the boldest first."""
        in_training = bool(self._norms) and self._images.at_once >= _NORMS_NEED
        bold = [Way(True, _RATES[0])] if in_training else []
        bold.append(Way(False, _RATES[0]))
        given = [*bold, *(Way(False, rate) for rate in _RATES[1:])]
        return given if self._uncorrected is None else [replace(way, corrected=False) for way in bold] + given

    def _without_correction(self) -> list[Tensor] | None:
        """Values to start from, of factors that do not make up for each other."""
        other = uncorrected(self._original, self._plan, self._images.learned)
        values = None if other is None else values_in(other, self._student, self._tuned)
        if values is not None:
            self._set(values)
            balance_free(self._student, self._parameters)
            values = self._values()
        return values

    def _tried(self, ways: list[Way], steps: int) -> Way:
        """The boldest way by which little is lost after some steps; the best where there is none.

        The nearest is no good choice: after few steps that is the gentlest, which falls behind later.
        """
        found: list[float] = []
        for number, way in enumerate(ways if len(ways) > 1 else ()):
            try:
                for done in self._steps(way, steps):
                    self._tick("trials", number * steps + done, len(ways) * steps)
                found.append(self._distance(self._student))
            except FloatingPointError:
                found.append(inf)
            if found[-1] <= _LITTLE * self._start.distance:
                return way
        return ways[found.index(min(found))] if found else ways[0]

    def _steps(self, way: Way, steps: int, state: dict[str, Any] | None = None) -> Iterator[int]:
        """Make steps from the start, or from the state that a run was interrupted in, and say how many are done.

        Raises
        ------
        FloatingPointError
            If the loss is not finite.
        """
        self._set(self._uncorrected if self._uncorrected and not way.corrected else self._start.values)
        optimizer = self._optimizer = torch.optim.Adam(self._parameters)
        generator = torch.Generator().manual_seed(self._seed)
        batches = self._images.steps(generator, moved=self._moved)
        norms = self._norms if way.batch_norm else []
        begun = 0
        if state is not None:
            self._set(state["values"])
            optimizer.load_state_dict(state["optimizer"])
            begun = state["done"]
        for _ in range(begun):
            next(batches)
        for step in range(begun, steps):
            for group in optimizer.param_groups:
                group["lr"] = way.rate * _share(step, steps)
            optimizer.zero_grad()
            with tunable(self._student, norms):
                of_step = next(batches)
                for inputs in of_step:
                    loss = self._imitation.loss(self._student, to_model(inputs, self._student)) / len(of_step)
                    if not loss.isfinite():
                        raise FloatingPointError(f"the loss became NaN or infinite at step {step + 1}")
                    backward(loss)
            optimizer.step()
            yield step + 1

    def _look(self, done: int, steps: int) -> None:
        """Measure the outputs on the images held out, and keep the state if it is the best."""
        distance = self._distance(self._student)
        self._course.append((done, distance))
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


def _trial(steps: int) -> int:
    """Steps of a trial; the same for all runs that are long enough, so that it need not be known how long."""
    return _TRIAL if steps >= _ENOUGH else max(3, steps // 5)


def _share(step: int, steps: int) -> float:
    """Of the highest rate: up along a line for a tenth of the steps, down along a cosine to nothing."""
    place, top = (step + 1) / steps, max(_WARM_UP, 1 / steps)
    return place / top if place < top else (1 + cos(pi * (place - top) / (1 - top + 1 / steps))) / 2
