"""As many recipes as fit in a given time on one machine with a GPU, the most telling ones first.

Each is a `tuckertree reproduce` of its own; what is done is copied to the output folder as it ends. At the end of the time the
others are told to stop, save a checkpoint, and go on when this is run again with the same folder. Several at a time share
the GPU by turns: three on an H200 took half as long again as one after the other would have, by their steps timed alone.

A name is that of a recipe in recipes/cifar10, with `:SEED` for another seed and `SCHEDULE/` before it for a schedule
of `tuckertree reproduce`: `cpu/resnet20-2.5x:1`.

    python benchmarks/gpu_recipes.py DATA/cifar10 --minutes 60 --output out/recipes
    python benchmarks/gpu_recipes.py DATA/cifar10 --device cpu --tiny --minutes 2 --output out/tiny
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRST = (
    "resnet20-3.8x",
    "resnet20-2.5x",
    "resnet56-4.0x",
    "vgg19-15x",
    "resnet20-8.4x",
    "resnet32-3.9x",
    "resnet20-6.75x",
    "resnet56-2.6x",
)
GPU = ("training.precision=bf16", "training.channels_last=true", "training.compile=true")
GRACE = 30.0


@dataclass
class Run:
    """One recipe under way."""

    name: str
    process: subprocess.Popen[bytes]
    folder: Path
    begun: float = field(default_factory=time.monotonic)
    epochs: list[float] = field(default_factory=list)
    seen: int = 0

    def look(self) -> None:
        """Note when an epoch has ended."""
        found = [path for path in self.folder.glob("*.partial/stage-*/epoch.ckpt") if path.exists()]
        stamp = max((path.stat().st_mtime_ns for path in found), default=0)
        if stamp != self.seen:
            self.seen = stamp
            self.epochs.append(time.monotonic())

    @property
    def epoch_seconds(self) -> float | None:
        """Mean time of an epoch so far; the first, in which everything is compiled, does not count."""
        if len(self.epochs) < 4:
            return None
        return (self.epochs[-1] - self.epochs[2]) / (len(self.epochs) - 3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipes", nargs="+", default=FIRST, help="[SCHEDULE/]NAME[:SEED]")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--jobs", type=int, default=1, help="recipes at a time; they share the GPU by turns")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="one epoch of few images: does it work?")
    parser.add_argument("--set", nargs="*", default=[], help="further changes, as of tuckertree reproduce")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * options.minutes
    waiting, running, done = list(options.recipes), list[Run](), list[str]()
    said = 0.0
    try:
        while (waiting or running) and time.monotonic() < deadline:
            while waiting and len(running) < options.jobs:
                running.append(start(waiting.pop(0), options))
            for run in list(running):
                run.look()
                if run.process.poll() is not None:
                    running.remove(run)
                    done += ended(run, options)
            if time.monotonic() - said > 15:
                said = time.monotonic()
                print(" | ".join(map(status, running)), flush=True)
            time.sleep(0.5)
    finally:
        stop(running)
    print(f"done: {', '.join(done) or 'none'}; not begun: {', '.join(waiting) or 'none'}")
    print(f"stopped, to go on: {', '.join(run.name for run in running) or 'none'}")


def start(name: str, options: argparse.Namespace) -> Run:
    """Begin a recipe, or go on with it."""
    folder = options.output / name.replace("/", "-").replace(":", "-seed")
    folder.mkdir(exist_ok=True)
    for old in folder.glob("log*.txt"):
        old.rename(folder / f"log-{old.stat().st_mtime_ns}.txt")
    schedule, _, seeded = name.rpartition("/")
    recipe, _, seed = seeded.partition(":")
    changes = [*(GPU if options.device != "cpu" else ()), *options.set]
    changes += [f"training.seed={seed}"] if seed else []
    command = [sys.executable, "-m", "tuckertree", "reproduce", str(ROOT / f"recipes/cifar10/{recipe}.yaml")]
    command += ["--schedule", schedule] if schedule else []
    command += ["--data", str(options.data), "--device", options.device, "--output", str(folder / "run")]
    command += [word for change in changes for word in ("--set", change)]
    command += ["--epochs", "1", "--limit-train", "512"] if options.tiny else []
    if (folder / "run.partial").is_dir():
        command.append("--resume")
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    return Run(name, process, folder)


def ended(run: Run, options: argparse.Namespace) -> list[str]:
    """Copy what a recipe gave, or show why it failed."""
    seconds = time.monotonic() - run.begun
    if run.process.returncode:
        print(f"{run.name} failed after {seconds:.0f} s:\n{tail(run)}", flush=True)
        return []
    results = options.output / "results"
    results.mkdir(exist_ok=True)
    shutil.copy(run.folder / "run" / "result.json", results / f"cifar10-{run.folder.name}.json")
    print(f"{run.name} done in {seconds:.0f} s:\n{tail(run)}", flush=True)
    return [run.name]


def tail(run: Run) -> str:
    return "\n".join((run.folder / "log.txt").read_text(errors="replace").splitlines()[-12:])


def status(run: Run) -> str:
    each = run.epoch_seconds
    return f"{run.name}: {max(len(run.epochs) - 1, 0)} epochs" + (
        "" if each is None else f", {each:.2f} s each"
    )


def stop(running: list[Run]) -> None:
    """Let what still runs save a checkpoint and end."""
    for run in running:
        run.process.send_signal(signal.SIGTERM)
    for run in running:
        try:
            run.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            run.process.kill()


if __name__ == "__main__":
    main()
