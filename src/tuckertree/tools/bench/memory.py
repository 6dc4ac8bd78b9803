"""Memory of a network, measured in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from tuckertree._base.errors import TuckertreeError
from tuckertree.runtimes import get_runtime

_PEAK = Path("/proc/self/clear_refs")
_RUNS = 3


def peak_memory(runtime: str, threads: int, file: Path, inputs: Sequence[Tensor]) -> int | None:
    """Bytes that a new process holds at the most, above its packages, while it loads a file and runs it.

    Parameters
    ----------
    file
        A file that the runtime opens.
    inputs
        All that it takes, in order.

    Returns
    -------
    int or None
        Resident memory; None where the system does not say (anywhere but on Linux, and in some containers).

    Raises
    ------
    TuckertreeError
        If the process fails.
    """
    if not os.access(_PEAK, os.W_OK):
        return None
    sent = BytesIO()
    torch.save(list(inputs), sent)
    arguments = [runtime, str(threads), str(file)]
    done = subprocess.run(  # noqa: S603  (our own module)
        [sys.executable, "-P", "-W", "ignore", "-m", "tuckertree.tools.bench.memory", *arguments],
        capture_output=True,
        input=sent.getvalue(),
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    if done.returncode:
        last = (
            done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        )[-1]
        raise TuckertreeError(f"the memory of {file.name} on {runtime} cannot be measured: {last}")
    return int(json.loads(done.stdout))


def _main() -> None:
    name, threads, file = sys.argv[1:]
    runtime = get_runtime(name, threads=int(threads))
    torch.set_num_threads(int(threads))
    inputs = torch.load(BytesIO(sys.stdin.buffer.read()), weights_only=True)
    _PEAK.write_text("5", encoding="utf-8")  # the peak is what is held now
    before = _status("VmRSS")
    once = runtime.open(Path(file)).bind(inputs)
    for _ in range(_RUNS):
        once()
    print(_status("VmHWM") - before)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    _main()
