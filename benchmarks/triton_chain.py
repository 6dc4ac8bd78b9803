"""Single layers on a GPU: dense, as chains of torch layers, and as chains in Triton kernels.

3x3 layers of ResNet-18 and VGG-16 with random weights, in HT-2 form with all ranks at a share of the channels; bf16,
NHWC, inference. Each form is a CUDA graph of ten runs, and all take turns. The Triton forms keep some of the cuts and
have no kernel for the 1x1 at the end. Outputs are compared with the chain's in single precision before anything is
timed.

    python benchmarks/triton_chain.py --output docs/results
    python benchmarks/triton_chain.py --device cpu --tiny   # the same code in Triton's interpreter, in a minute
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from gpu import captured, eager, in_turns
from merging import write_on_device
from tuckertree._base.errors import first_line
from tuckertree.core.layers import Chain, contract_chain, factorize, fusion_variants
from tuckertree.runtimes.triton_chain import fused_chain

LAYERS = {
    "resnet18": ((64, 56), (128, 28), (256, 14), (512, 7)),
    "vgg16": ((64, 224), (128, 112), (256, 56), (512, 28), (512, 14)),
}
DENSE = ("dense", "dense, no bias")
TORCH = {"four layers": (0, 1, 2), "three layers": (0, 2), "two layers": (1,)}
TRITON = {"triton 3x3+1x1": (2,), "triton 3x1, 1x3+1x1": (1, 2), "triton 1x1, 3x3+1x1": (0, 2)}
REPEATS = 10
TOLERANCE = 0.02
"""Largest relative difference from the outputs in single precision; bf16 has 8 bits."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=LAYERS, default=tuple(LAYERS))
    parser.add_argument("--shares", nargs="+", type=int, default=(4, 2), help="ranks = channels / share")
    parser.add_argument("--batches", nargs="+", type=int, default=(64, 1))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=5.0, help="no further layer is begun after")
    parser.add_argument("--tiny", action="store_true", help="one small layer, one batch, few rounds")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder for triton_chain.json and triton_chain.md")
    options = parser.parse_args()
    if options.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
    options.dtype = (
        torch.float16 if options.device == "cpu" else torch.bfloat16
    )  # the interpreter has no bf16
    torch.backends.cudnn.benchmark = True
    deadline = time.monotonic() + 60 * options.minutes
    results: list[dict[str, Any]] = []
    for network, channels, size, share, batch in cases(options):
        if time.monotonic() < deadline:
            results += compare(network, channels, size, share, batch, options)
            if options.output:
                write_on_device("triton_chain", results, KIND, markdown, options)


def cases(options: argparse.Namespace) -> Iterator[tuple[str, int, int, int, int]]:
    """Network, channels, size, share and batch of each comparison."""
    if options.tiny:
        yield "tiny", 32, 8, 2, 2
        return
    for batch in options.batches:
        for network in options.networks:
            for channels, size in LAYERS[network]:
                for share in options.shares:
                    yield network, channels, size, share, batch


def compare(
    network: str, channels: int, size: int, share: int, batch: int, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Time one layer in all forms; one that does not run or is wrong has no time."""
    torch.manual_seed(options.seed)
    layer = nn.Conv2d(channels, channels, 3, padding=1)
    rank = max(16, channels // share)
    chain = factorize(layer, "ht2", (rank, rank, rank))
    x = torch.randn(batch, channels, size, size, device=options.device).to(options.dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    models: dict[str, nn.Module] = {"dense": ready(layer, x)}
    models["dense, no bias"] = copy.deepcopy(models["dense"])
    models["dense, no bias"].register_parameter("bias", None)
    models |= {name: ready(in_form(chain, cuts), x) for name, cuts in TORCH.items()}
    failures: dict[str, str] = {}
    wanted = in_single_precision(chain, x)
    start = time.perf_counter()
    for name, cuts in TRITON.items():
        try:
            models[name] = fused_chain(ready(chain, x), cuts)  # type: ignore[arg-type]
            with torch.inference_mode():
                error = float((models[name](x).float() - wanted).norm() / wanted.norm())
            if not error < TOLERANCE:
                raise ArithmeticError(f"outputs differ by {error:.3f}")
        except Exception as error:  # whatever a compiler says: the other forms are timed
            failures[name] = f"{type(error).__name__}: {first_line(error)}"
            models.pop(name, None)
    del wanted
    spent = time.perf_counter() - start
    times = dict(zip(models, timed(list(models.values()), x, options), strict=True))
    row = {
        "network": network,
        "layer": f"{channels} at {size}x{size}",
        "ranks": f"channels/{share}",
        "batch": batch,
    }
    found = [
        {
            **row,
            "form": name,
            "us": 1e6 * median(times[name]) if name in times else None,
            "faster": median(a / b for a, b in zip(times["dense"], times[name], strict=True))
            if name in times
            else None,
            "failure": failures.get(name, ""),
        }
        for name in (*DENSE, *TORCH, *TRITON)
    ]
    told = ", ".join(
        f"{each['form']} {each['us']:.1f} us {each['faster']:.2f}x"
        if each["us"]
        else f"{each['form']} {each['failure']}"
        for each in found
    )
    print(f"{network} {row['layer']} {row['ranks']} batch {batch} ({spent:.0f} s): {told}", flush=True)
    return found


def ready(model: nn.Module, x: Tensor) -> nn.Module:
    """A copy for inference on such inputs."""
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    return copied.to(x.device, x.dtype).to(memory_format=torch.channels_last)


def in_form(chain: Chain, cuts: Sequence[int]) -> nn.Module:
    """The chain with these cuts kept."""
    return next(
        contract_chain(chain, form)
        for form in fusion_variants(chain.stages, chain.cuts)
        if form.cuts == tuple(cuts)
    )


def in_single_precision(chain: Chain, x: Tensor) -> Tensor:
    """Outputs of the chain with its weights rounded, computed in single precision."""
    rounded = copy.deepcopy(chain).to(x.dtype).to(x.device, torch.float32)
    with torch.inference_mode(), torch.backends.cudnn.flags(benchmark=False, allow_tf32=False):
        return rounded(x.float())


class Repeated(nn.Module):
    """A layer, run several times on the same input."""

    def __init__(self, layer: nn.Module, times: int) -> None:
        super().__init__()
        self.layer, self.times = layer, times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            y = self.layer(x)
        return y


def timed(models: Sequence[nn.Module], x: Tensor, options: argparse.Namespace) -> list[list[float]]:
    """Seconds of one run of each model, in rounds."""
    make: Callable[[nn.Module, Tensor], Callable[[], object]] = eager if options.device == "cpu" else captured
    repeats = 1 if options.device == "cpu" else REPEATS
    runs = [make(Repeated(model, repeats), x) for model in models]
    return [[seconds / repeats for seconds in times] for times in in_turns(runs, options)]


COLUMNS = ("network", "layer", "ranks", ">batch", "form", ">us", ">faster")


KIND = ("device", "network", "layer", "ranks", "batch", "form")


def markdown(report: dict[str, Any]) -> str:
    machine = report["environment"]
    devices = ", ".join(dict.fromkeys(row["device"] for row in report["results"]))
    lines = [
        "# Single layers in Triton",
        "",
        "3x3 layers with random weights, in HT-2 form with all ranks at a share of the channels; bf16, NHWC, inference;",
        f"CUDA graphs of {REPEATS} runs, medians of {report['rounds']} rounds in turns; faster: than the dense layer. No bias: torch",
        "adds the bias of a convolution in a kernel of its own. Four, three and two layers: torch's, in that exact form.",
        "Triton: one kernel for each part between commas, the bias in the last. Measured by",
        f"`python benchmarks/triton_chain.py --output docs/results`; seed {report['seed']}, tuckertree {machine['tuckertree']}, "
        f"torch {machine['torch']}, {devices}.",
        "",
        "| " + " | ".join(column.lstrip(">") for column in COLUMNS) + " |",
        "|" + "".join("---:|" if column.startswith(">") else "---|" for column in COLUMNS),
    ]
    for row in report["results"]:
        time_of = (
            (f"{row['us']:.1f}", f"{row['faster']:.2f}x") if row["us"] is not None else (row["failure"], "")
        )
        cells = (row["network"], row["layer"], row["ranks"], str(row["batch"]), row["form"], *time_of)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
