"""Several methods at one budget, all else equal."""

import tempfile
from functools import partial
from pathlib import Path

from tuckertree.tools.comparison import Settings, compare, demo_task

if __name__ == "__main__":  # each network is made in a process of its own, which imports this file
    with tempfile.TemporaryDirectory() as folder:
        task = partial(demo_task, 100)  # the packaged network, 100 images to measure and to fit to
        found = compare(task, ["svd:weights", "ht2:weights"], ["1.5x"], Path(folder) / "cmp", Settings())
        for outcome in found.outcomes:
            score = outcome.score
            print(f"{outcome.method} at {outcome.budget}: {outcome.failed or f'top-1 {score.top1:.1f}'}")
