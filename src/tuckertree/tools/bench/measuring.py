"""Networks on runtimes, in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from torch import nn

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree.measure import Timing, time_in_turns
from tuckertree.measure.latency import least_of_each
from tuckertree.runtimes import Runtime, to_onnx
from tuckertree.runtimes.runtime import Runnable
from tuckertree.tools.bench.memory import peak_memory
from tuckertree.tools.bench.subjects import Subject

_LEAST_OF = 5
_PAUSE = 0.1


@dataclass(frozen=True)
class Measured:
    """One network on one runtime.

    Attributes
    ----------
    name, runtime
        Who ran on what.
    batch, threads
        Samples in one run; threads it might use.
    seconds
        Of one run, the least in each group of five rounds: median and quartiles.
    time_ratio
        Its time over the first network's on the same runtime: the ratio of the medians, and quartiles over the groups.
    macs, mac_ratio
        Multiply-accumulates of one sample, and over the first network's.
    memory
        Bytes that a process of its own holds at the most while it loads and runs the network, above what it
        held before with all packages imported; None where that cannot be measured.
    size
        Bytes of the file or the weights.
    """

    name: str
    runtime: str
    batch: int
    threads: int
    seconds: Timing
    time_ratio: Timing
    macs: int
    mac_ratio: float
    memory: int | None
    size: int

    @property
    def throughput(self) -> float:
        """Samples in a second."""
        return self.batch / self.seconds.median

    @property
    def realised(self) -> float:
        """Share of the saved work that is saved time: how many times faster over how many times less MACs."""
        return self.mac_ratio / self.time_ratio.median


def bench(
    subjects: Sequence[Subject],
    runtimes: Sequence[Runtime],
    *,
    repeats: int = 25,
    memory: bool = True,
    pause: float = _PAUSE,
    tick: ProgressCallback = no_progress,
) -> list[Measured]:
    """Time networks against the first of them, on each runtime in one process and in turns.

    Parameters
    ----------
    subjects
        The networks; an ONNX file runs only where ONNX is read.
    repeats
        Rounds on each runtime; at least five.
    memory
        Measure the memory too, in a process for each network and runtime.
    pause
        Seconds of rest before each run (:func:`tuckertree.measure.time_in_turns` says what for).

    Returns
    -------
    list of Measured
        For each runtime the subjects in their order.

    Raises
    ------
    TuckertreeError
        If a runtime cannot run a network.
    UsageError
        If there is nothing to time, or a file is to run on a runtime that reads no ONNX.
    """
    if not subjects or not runtimes:
        raise UsageError("a comparison needs at least one network and one runtime")
    if repeats < _LEAST_OF:
        raise UsageError(f"a measurement needs at least {_LEAST_OF} rounds, got {repeats}")
    for subject in subjects:
        for runtime in runtimes:
            if subject.model is None and not runtime.reads_onnx:
                what = "is" if subject.plan is None else "runs as"
                raise UsageError(
                    f"{subject.name} {what} an ONNX file, which the runtime {runtime.name} does not read"
                )
    with tempfile.TemporaryDirectory(prefix="tuckertree-") as folder:
        files = [_onnx_file(subject, runtimes, Path(folder)) for subject in subjects]
        return [
            measured
            for runtime in runtimes
            for measured in _on(runtime, subjects, files, repeats, memory, pause, Path(folder), tick)
        ]


def _on(
    runtime: Runtime,
    subjects: Sequence[Subject],
    files: Sequence[Path | None],
    repeats: int,
    memory: bool,
    pause: float,
    folder: Path,
    tick: ProgressCallback,
) -> list[Measured]:
    with runtime.active():
        loaded = [_make_ready(runtime, s, file) for s, file in zip(subjects, files, strict=True)]
        runs = [runnable.bind(s.all_inputs) for runnable, s in zip(loaded, subjects, strict=True)]
        times = time_in_turns(runs, repeats=repeats, settle=True, pause=pause, tick=tick)
    found = []
    for subject, file, seconds in zip(subjects, files, times, strict=True):
        found.append(
            Measured(
                name=subject.name,
                runtime=runtime.name,
                batch=len(subject.inputs),
                threads=runtime.threads,
                seconds=Timing.of(least_of_each(seconds, _LEAST_OF)),
                time_ratio=_ratio(seconds, times[0]),
                macs=subject.macs,
                mac_ratio=subject.macs / subjects[0].macs if subjects[0].macs else 1.0,
                memory=_memory(runtime, subject, file, folder) if memory else None,
                size=subject.size,
            )
        )
    return found


def _ratio(seconds: Sequence[float], reference: Sequence[float]) -> Timing:
    """Time over that of a reference; its middle is that of the times that are shown, so that they agree."""
    own, other = (median(least_of_each(values, _LEAST_OF)) for values in (seconds, reference))
    groups = Timing.of_ratios(seconds, reference, _LEAST_OF)
    return Timing(own / other, min(groups.low, own / other), max(groups.high, own / other))


def _make_ready(runtime: Runtime, subject: Subject, file: Path | None) -> Runnable:
    if runtime.reads_onnx:
        assert file is not None
        return runtime.open(file)
    assert subject.model is not None
    return runtime.load(subject.model, [subject.inputs])


def _onnx_file(subject: Subject, runtimes: Sequence[Runtime], folder: Path) -> Path | None:
    """The ONNX file of a subject, written now if it has none and one is needed."""
    if subject.file is not None or not any(runtime.reads_onnx for runtime in runtimes):
        return subject.file
    assert isinstance(subject.model, nn.Module)
    path = folder / f"{len(list(folder.iterdir()))}.onnx"
    path.write_bytes(to_onnx(subject.model, [subject.inputs]).SerializeToString())
    return path


def _memory(runtime: Runtime, subject: Subject, file: Path | None, folder: Path) -> int | None:
    if not runtime.measures_memory or runtime.device != "cpu":
        return None
    if not runtime.reads_onnx:
        assert subject.model is not None
        file = folder / f"{len(list(folder.iterdir()))}{runtime.suffix}"
        try:
            runtime.write(subject.model, [subject.inputs], file)
        except TuckertreeError:
            return None  # what cannot be exported cannot be given to another process
    assert file is not None
    return peak_memory(runtime.name, runtime.threads, file, subject.all_inputs)
