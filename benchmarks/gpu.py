"""Networks on a GPU: dense against chains in several exact forms, eager, as CUDA graphs and compiled.

Torchvision's architectures with random weights; every convolution but the first and the 1x1 factored by HT-2 with all
ranks at a share of the channels, down to multiples of 16. bf16, NHWC, inference. For each batch the dense network and
the forms run in turns. Forms of the whole network: four layers, three (the middle merged, as Tucker-2 has them), two (both
ends merged); mixed: each layer in the form that is fastest by itself, dense among them; with Triton: forms in Triton
kernels are tried too. The runtime `triton` runs whole networks: BatchNorms folded, residuals and ReLU in the kernels of
chains. What it is compared with is the dense network with its BatchNorms folded by torch.fx; both as CUDA graphs.

    python benchmarks/gpu.py --output docs/results
    python benchmarks/gpu.py --device cpu --tiny        # the same code on a processor, kernels interpreted, in minutes
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

import tuckertree
from latency import factored
from merging import write_on_device
from tuckertree.core.layers import Chain, contract_chain, fusion_variants
from tuckertree.io.report import FittingTable
from tuckertree.measure import count_macs, synchroniser
from tuckertree.network.surgery import replace_layers
from tuckertree.runtimes import get_runtime
from tuckertree.runtimes.triton_chain import fused_chain, unfit
from tuckertree.runtimes.triton_runtime import TritonRunnable, TritonRuntime

NETWORKS = ("torchvision:resnet18", "torchvision:resnet50", "torchvision:vgg16_bn")
WITH_TRITON, FOLDED = "mixed, with Triton", "dense, folded"
WHOLE = {"four layers": (0, 1, 2), "three layers": (0, 2), "two layers": (1,)}
TOLERANCE = 0.05
"""Largest relative difference of outputs in bf16, which has 8 bits."""


@dataclass(frozen=True)
class Form:
    """How a layer is run: the cuts that stay, none if it is dense; in Triton kernels or in torch's layers."""

    cuts: tuple[int, ...]
    is_triton: bool = False

    def __str__(self) -> str:
        return f"{NAMES[len(self.cuts)]}{' Triton' if self.is_triton else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--shares", nargs="+", type=int, default=(2, 4), help="ranks = channels / share")
    parser.add_argument("--batches", nargs="+", type=int, default=(1, 64))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0, help="no further measurement is begun after")
    parser.add_argument("--compile", nargs="*", default=NETWORKS[:1], help="networks to compile, too")
    parser.add_argument("--tiny", action="store_true", help="one small network, one batch, few rounds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder for gpu.json and gpu.md")
    options = parser.parse_args()
    options.size, options.rounds = 224, 9
    if options.tiny:
        options.networks, options.shares, options.batches = ["torchvision:resnet18"], [2], [1]
        options.size, options.rounds, options.compile = 32, 3, []
    options.dtype = torch.bfloat16
    if options.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
        options.dtype = torch.float16  # the interpreter has no bf16
    torch.backends.cudnn.benchmark = True
    deadline = time.monotonic() + 60 * options.minutes
    results: list[dict[str, Any]] = []
    for name in options.networks:
        for share in options.shares:
            for batch in options.batches:
                if time.monotonic() < deadline:
                    results += compare(name, share, batch, options)
                    if options.output:
                        write_on_device("gpu", results, KIND, markdown, options)
    Console(width=160).print(FittingTable(COLUMNS, cells(results)))


def compare(name: str, share: int, batch: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time one network and batch in all forms, each way it can be run."""
    torch.manual_seed(options.seed)
    x = torch.randn(batch, 3, options.size, options.size)
    dense = tuckertree.build(name).eval()
    chains = replace_layers(dense, factored(dense, share, linear=False))
    place = partial(ready, options=options)
    x = x.to(options.device, options.dtype).contiguous(memory_format=torch.channels_last)
    models = {"dense": place(dense)}
    models |= {label: place(in_form(chains, cuts)) for label, cuts in WHOLE.items()}
    chosen = fastest_forms(place(chains), x, options)
    models["mixed"] = place(in_forms(chains, {name: form.cuts for name, form in chosen["mixed"].items()}))
    if options.device != "cpu":
        models[WITH_TRITON] = in_triton(place(chains), chosen[WITH_TRITON])
    agree(models["four layers"], [model for label, model in models.items() if label != "dense"], x)
    ways: dict[str, tuple[Make, Mapping[str, nn.Module]]] = {"eager": (eager, models)}
    if options.device != "cpu":
        ways["CUDA graph"] = captured, models
        if name in options.compile:
            ways["compiled, CUDA graph"] = compiled, models
    forms = {label: in_form(chains, cuts) for label, cuts in WHOLE.items()}
    if options.tiny:
        forms = {"two layers": forms["two layers"]}
    else:
        cuts = {name: form.cuts for name, form in chosen[WITH_TRITON].items()}
        forms[WITH_TRITON] = in_forms(chains, cuts)
    on_runtime = {FOLDED: place(fuse(dense))} | in_runtime(forms, x, options)
    ways["Triton runtime"] = captured if options.device != "cpu" else eager, on_runtime
    counted = models | {
        label: place(in_forms(chains, {name: form.cuts for name, form in forms.items()}))
        for label, forms in chosen.items()
    }
    macs = {label: count_macs(model, x) / batch for label, model in counted.items()}
    macs[FOLDED] = macs["dense"]
    found = []
    for way, (make, those) in ways.items():
        runs = {label: make(model, x) for label, model in those.items()}
        times = in_turns(list(runs.values()), options)
        least = median(times[0])
        found += [
            {
                "network": name,
                "ranks": f"channels/{share}",
                "batch": batch,
                "way": way,
                "form": label,
                "ms": 1e3 * median(seconds),
                "macs_less": macs["dense"] / macs[label],
                "faster": median(a / b for a, b in zip(times[0], seconds, strict=True)),
                "spread": (max(seconds) - min(seconds)) / median(seconds),
                "layers": layers_of(label, way, chosen),
            }
            for label, seconds in zip(runs, times, strict=True)
        ]
        print(f"{name} channels/{share} batch {batch} {way}: dense {1e3 * least:.3f} ms", flush=True)
    return found


def ready(model: nn.Module, *, options: argparse.Namespace) -> nn.Module:
    """A copy for inference on the device, in NHWC and the type that is measured."""
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    return copied.to(options.device, options.dtype).to(memory_format=torch.channels_last)


def in_runtime(
    models: Mapping[str, nn.Module], x: Tensor, options: argparse.Namespace
) -> dict[str, nn.Module]:
    """What the runtime `triton` makes of networks; on a processor all their chains are in Triton kernels."""
    if options.device == "cpu":
        runtime = TritonRuntime(1, "cpu", timer=lambda runs: range(len(runs), 0, -1))
    else:
        runtime = get_runtime("triton", device=options.device)  # type: ignore[assignment]
    found = {}
    for label, model in models.items():
        loaded = runtime.load(ready(model, options=options), [x])
        assert isinstance(loaded, TritonRunnable)
        found[label] = loaded.network
    return found


def in_form(chains: nn.Module, cuts: Sequence[int]) -> nn.Module:
    """All chains in the form that keeps these cuts; one that has fewer cuts stays as it is."""
    wanted = {name: cuts for name, chain in chains_of(chains).items() if len(chain.cuts) == 3}
    return in_forms(chains, wanted)


def in_forms(chains: nn.Module, cuts: Mapping[str, Sequence[int]]) -> nn.Module:
    """Each chain in the form that keeps its cuts; none are the dense layer."""
    replaced = {
        name: contract_chain(chain, form)
        for name, chain in chains_of(chains).items()
        if name in cuts
        for form in fusion_variants(chain.stages, chain.cuts)
        if form.cuts == tuple(cuts[name])
    }
    return replace_layers(chains, replaced)


def chains_of(model: nn.Module) -> dict[str, Chain]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Chain)}


def in_triton(chains: nn.Module, forms: Mapping[str, Form]) -> nn.Module:
    """Each chain, on its device, in its form: in Triton kernels or in torch's layers."""
    fused = {
        name: fused_chain(chain, form.cuts)
        for name, chain in chains_of(chains).items()
        if (form := forms[name]).is_triton
    }
    return replace_layers(
        in_forms(chains, {n: form.cuts for n, form in forms.items() if n not in fused}), fused
    )


def fastest_forms(model: nn.Module, x: Tensor, options: argparse.Namespace) -> dict[str, dict[str, Form]]:
    """The fastest form of each chain, timed by itself on the input it gets, equal layers once: without, and with Triton."""
    inputs: dict[str, Tensor] = {}
    hooks = [
        chain.register_forward_pre_hook(lambda _, args, name=name: inputs.__setitem__(name, args[0].clone()))
        for name, chain in chains_of(model).items()
    ]
    with torch.inference_mode():
        model(x)
    for hook in hooks:
        hook.remove()
    on_gpu = options.device != "cpu"
    make = captured if on_gpu else eager
    known: dict[Any, dict[str, Form]] = {}
    chosen: dict[str, dict[str, Form]] = {"mixed": {}, WITH_TRITON: {}}
    for name, chain in chains_of(model).items():
        key = (chain.stages, inputs[name].shape)
        if key not in known:
            choices = fusion_variants(chain.stages, chain.cuts)
            layers = {
                Form(form.cuts): ready(contract_chain(chain, form), options=options) for form in choices
            }
            if on_gpu and unfit(chain) is None:
                layers |= {
                    Form(form.cuts, is_triton=True): fused_chain(chain, form.cuts)
                    for form in choices
                    if form.cuts
                }
            times = in_turns([make(layer, inputs[name]) for layer in layers.values()], options)
            ordered = sorted(zip(layers, times, strict=True), key=lambda pair: median(pair[1]))
            known[key] = {
                WITH_TRITON: ordered[0][0],
                "mixed": next(form for form, _ in ordered if not form.is_triton),
            }
        for label, form in known[key].items():
            chosen[label][name] = form
    return chosen


def eager(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """One call after the other."""

    def run() -> object:
        with torch.inference_mode():
            return model(x)

    return run


def captured(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """All kernels in one launch."""
    run = eager(model, x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = run()

    def replay(_kept: object = kept) -> None:
        graph.replay()

    return replay


def compiled(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """What inductor makes of it, captured."""
    torch._dynamo.reset()
    return captured(torch.compile(model, dynamic=False), x)  # type: ignore[arg-type]


def in_turns(runs: Sequence[Callable[[], object]], options: argparse.Namespace) -> list[list[float]]:
    """Seconds of one run of each, in rounds in which each has a turn of about ten milliseconds."""
    synchronise = synchroniser(options.device)

    def turn(run: Callable[[], object], count: int) -> float:
        synchronise()
        start = time.perf_counter()
        for _ in range(count):
            run()
        synchronise()
        return (time.perf_counter() - start) / count

    for run in runs:
        turn(run, 2)
    counts = [max(1, min(200, int(0.01 / max(turn(run, 3), 1e-6)))) for run in runs]
    rounds = [
        [turn(run, count) for run, count in zip(runs, counts, strict=True)] for _ in range(options.rounds)
    ]
    return [list(times) for times in zip(*rounds, strict=True)]


def agree(model: nn.Module, others: Sequence[nn.Module], x: Tensor) -> None:
    """Compare outputs: all forms are the same function."""
    with torch.inference_mode():
        wanted = model(x).float()
        for other in others:
            error = float((other(x).float() - wanted).norm() / wanted.norm())
            if not error < TOLERANCE:
                raise SystemExit(f"a form gives other outputs: relative difference {error:.3f}")


NAMES = {3: "four", 2: "three", 1: "two", 0: "dense"}
Make = Callable[[nn.Module, Tensor], Callable[[], object]]
COLUMNS = ("network", "ranks", ">batch", "run", "form", ">ms", ">MACs less", ">faster", "layers by form")


def layers_of(label: str, way: str, chosen: Mapping[str, Mapping[str, Form]]) -> str:
    """The forms of a mixed network's layers; what runs them the runtime `triton` chooses itself."""
    if label not in chosen:
        return ""
    forms = chosen[label]
    return by_form({n: Form(form.cuts) for n, form in forms.items()} if way == "Triton runtime" else forms)


def by_form(chosen: Mapping[str, Form]) -> str:
    found = Counter(map(str, chosen.values()))
    return ", ".join(f"{count} {name}" for name, count in sorted(found.items()))


def cells(results: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            row["network"],
            row["ranks"],
            str(row["batch"]),
            row["way"],
            row["form"],
            f"{row['ms']:.3f}",
            f"{row['macs_less']:.2f}x",
            f"{row['faster']:.2f}x",
            row["layers"],
        )
        for row in results
    ]


KIND = ("device", "network", "ranks", "batch", "way", "form")


def markdown(report: dict[str, Any]) -> str:
    machine = report["environment"]
    devices = ", ".join(dict.fromkeys(row["device"] for row in report["results"]))
    lines = [
        "# On a GPU",
        "",
        "Torchvision's architectures with random weights; every convolution but the first and the 1x1 in HT-2 form, all",
        "ranks at a share of the channels in multiples of 16; bf16, NHWC, 224 x 224, inference. Four, three and two layers:",
        "all chains in that exact form (three: the middle merged, as in Tucker-2; two: both ends merged). Mixed: each",
        "layer in the form that is fastest by itself, dense among them; with Triton: forms in Triton kernels too. Eager: call by call; CUDA graph: the same kernels in",
        "one launch; compiled: inductor's kernels in one launch; Triton runtime: the runtime `triton` in one launch, against the",
        "dense network with its BatchNorms folded.",
        f"Medians of {report['rounds']} rounds in turns; faster: than the",
        "dense network run the same way. Measured by `python benchmarks/gpu.py --output docs/results`; "
        f"seed {report['seed']}, tuckertree {machine['tuckertree']},",
        f"torch {machine['torch']}, {devices}.",
        "",
        "| " + " | ".join(column.lstrip(">") for column in COLUMNS) + " |",
        "|" + "".join("---:|" if column.startswith(">") else "---|" for column in COLUMNS),
        *("| " + " | ".join(line) + " |" for line in cells(report["results"])),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
