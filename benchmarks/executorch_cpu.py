"""A network in ExecuTorch with XNNPACK, dense and compressed: size of the .pte file, what was delegated, time in turns.

The network has random weights; the plan is that of a budget of MACs. It needs the package executorch.

    python benchmarks/executorch_cpu.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import tuckertree as tt


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="torchvision:resnet18")
    parser.add_argument("--macs", default="2x")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    dense, x = tt.build(options.network).eval(), torch.randn(1, 3, 224, 224)
    result = tt.compress(dense, x, tt.Budget(macs=options.macs))
    macs = result.plan.macs
    print(f"{options.network}: {macs[0] / macs[1]:.2f} times fewer MACs, {options.threads} threads, batch 1")
    with tempfile.TemporaryDirectory() as folder:
        files = {"dense": Path(folder) / "dense.pte", "compressed": Path(folder) / "compressed.pte"}
        left = [lowered(dense, x, files["dense"]), lowered(result.model, x, files["compressed"])]
        methods = [opened(file, options.threads) for file in files.values()]
        for name, file, calls in zip(files, files.values(), left, strict=True):
            print(f"{name:<10}  {file.stat().st_size / 2**20:.1f} MiB, outside XNNPACK: {calls or 'nothing'}")
        for model, method in zip((dense, result.model), methods, strict=True):
            with torch.no_grad():
                torch.testing.assert_close(method.execute([x])[0], model(x), rtol=1e-4, atol=1e-4)
        before, after = in_turns(methods, x, options.rounds)
    pairs = sorted(a / b for a, b in zip(before, after, strict=True))
    low, _, high = statistics.quantiles(pairs, n=4)
    times = statistics.median(before), statistics.median(after)
    print(
        f"time        {times[0] * 1e3:.1f} ms -> {times[1] * 1e3:.1f} ms: {times[0] / times[1]:.2f} times faster"
    )
    print(f"            quartiles of {len(pairs)} rounds {low:.2f} to {high:.2f}")


def lowered(model: nn.Module, x: Tensor, file: Path) -> list[str]:
    """Write a model as a .pte file; gives the names of what XNNPACK does not take."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = to_edge_transform_and_lower(
        torch.export.export(model, (x,)), partitioner=[XnnpackPartitioner()]
    )
    file.write_bytes(program.to_executorch().buffer)
    nodes = program.exported_program().graph.nodes
    called = {node.target.__name__ for node in nodes if node.op == "call_function"}
    return sorted(called - {"executorch_call_delegate", "getitem"})


def opened(file: Path, threads: int) -> Any:
    """The method of a file, to be run."""
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    portable_lib._unsafe_reset_threadpool(threads)
    return Runtime.get().load_program(file).load_method("forward")


def in_turns(methods: list[Any], x: Tensor, rounds: int) -> tuple[list[float], ...]:
    """Seconds of each, run in turns that change their order, after three runs that do not count."""
    times: tuple[list[float], ...] = tuple([] for _ in methods)
    for number in range(-3, rounds):
        order = list(zip(methods, times, strict=True))
        for method, seconds in order if number % 2 else reversed(order):
            start = time.perf_counter()
            method.execute([x])
            if number >= 0:
                seconds.append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()
