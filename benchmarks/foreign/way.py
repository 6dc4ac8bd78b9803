"""The way of one network: built, compressed, saved, loaded, trained for a step, exported; compared at each phase."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import tuckertree as tt
from foreign.network import Network
from tuckertree.core.layers import get_method
from tuckertree.io.export import export
from tuckertree.measure.nested import each_leaf, tensors
from tuckertree.planning import DENSE, Options, take_inventory

PHASES = ("build", "compress", "full ranks", "load", "train", "onnx")
SETTLING = 3
"""Passes that give BatchNorm its statistics."""
BATCHES = 2
"""Batches that calibrate."""
NOISE = 0.1
ROUNDING = 1e-3
"""Largest difference of the network at full ranks, and of its ONNX file, relative to the largest output."""
LONGEST = 400
"""Characters of a message that are kept."""
Row = dict[str, Any]


def travel(name: str, network: Network) -> None:
    """Take a network all the way; what is known is printed before each phase and at the end, as a line of JSON."""
    torch.set_num_threads(1)
    row = Row(network=name, error="")
    with tempfile.TemporaryDirectory() as folder:
        phases = way(network, Path(folder), row)
        for phase, step in zip(PHASES, phases, strict=True):
            row["station"] = phase
            print(json.dumps(row), flush=True)
            started = time.perf_counter()
            try:
                step()
            except Exception as error:
                row.setdefault("errors", {})[phase] = in_one_line(error)
                if phase in ("build", "compress"):
                    break  # there is nothing to go on with
            finally:
                row.setdefault("times", {})[phase] = round(time.perf_counter() - started, 1)
    row["error"] = "; ".join(f"{phase}: {text}" for phase, text in row.get("errors", {}).items())
    print(json.dumps(row), flush=True)


def in_one_line(error: Exception) -> str:
    """The message; errors that are not tuckertree's own with their type."""
    kind = "" if isinstance(error, tt.TuckertreeError) else f"{type(error).__name__}: "
    return (kind + " ".join(str(error).split()))[:LONGEST]


def way(network: Network, folder: Path, row: Row) -> list[Callable[[], None]]:
    """The phases; each leaves what it made for the next ones, and its figures in the row."""
    made: dict[str, Any] = {}

    def build() -> None:
        made["model"], made["inputs"] = settled(network), network.inputs(0)
        made["unseen"] = network.inputs(99)

    def compress() -> None:
        batches = [network.inputs(number) for number in range(1, 1 + BATCHES)]
        result = made["result"] = tt.compress(
            made["model"], made["inputs"], tt.Budget(macs=network.macs), calibration=batches, progress=False
        )
        plan = result.plan
        dense = [layer for layer in plan.layers if layer.method == DENSE]
        row.update(
            parameters=list(plan.parameters),
            macs=list(plan.macs),
            layers=len(plan.layers),
            compressed=len(plan.compressed),
            pruned=len(plan.pruned),
            reasons=dict(Counter(layer.reason for layer in dense).most_common()),
            output_error=difference(made["model"], result.model, made["unseen"], worst=False),
        )

    def full_ranks() -> None:
        plan = chains_everywhere(made["model"], made["inputs"], made["result"].plan)
        largest = tt.apply(made["model"], plan)
        row["chains"] = len(plan.compressed)
        row["full_ranks"] = difference(made["model"], largest, made["unseen"])
        if not within_rounding(row["full_ranks"]):
            own = difference(made["model"], made["model"], made["unseen"], jittered(made["unseen"]))
            row["jumps"] = not within_rounding(own)
            if row["jumps"]:
                return  # detections of random weights: which boxes are kept hangs on the last digit
            raise ValueError(
                f"at full ranks the outputs differ: {row['full_ranks'] or 'they have other sizes'}"
            )

    def load() -> None:
        saved = made["result"].save(folder / "saved")
        loaded = made["loaded"] = tt.load(saved, into=network.build(seed=1))
        for inputs in (made["inputs"], made["unseen"]):
            ours, theirs = outputs(made["result"].model, inputs), outputs(loaded, inputs)
            if not ours or len(ours) != len(theirs) or not all(map(same, ours, theirs)):
                raise ValueError("the loaded network gives other outputs")
        row["loaded"] = True

    def train() -> None:
        row["moved"] = training_step(made["loaded"], network)

    def onnx() -> None:
        inputs = made["inputs"]
        inputs = tuple(inputs.values()) if isinstance(inputs, Mapping) else inputs
        for dynamic in ("batch", "none"):
            try:
                written = export(
                    made["result"].model, folder / "a.onnx", inputs, dynamic=dynamic, tolerance=ROUNDING
                )
            except tt.TuckertreeError as error:
                row[f"onnx_{dynamic}"] = in_one_line(error)
                last = error
            else:
                row["onnx"] = {"batch": dynamic, "difference": written.difference}
                return
        row["dense_onnx"] = dense_export(made["model"], inputs)
        raise last

    return [build, compress, full_ranks, load, train, onnx]


def dense_export(model: nn.Module, inputs: Any) -> str:
    """What becomes of the network before it was compressed on the way to ONNX: an error, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            export(model, Path(folder) / "a.onnx", inputs, dynamic="none", tolerance=ROUNDING)
        except tt.TuckertreeError as error:
            return in_one_line(error)
    return ""


def settled(network: Network) -> nn.Module:
    """The network in evaluation mode, in a state as after training.

    What holds one value at first (gains of 1, branches and heads that begin with 0) gets noise, BatchNorm the
    statistics of a few inputs; otherwise parts of the network would be dead, and equal whatever they compute.
    """
    model = network.build(seed=0).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.is_floating_point() and bool((p == p.flatten()[0]).all()):
                p.add_(NOISE * torch.randn_like(p))
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the mean of all passes
        norm.reset_running_stats()
        norm.train()
    with torch.no_grad():
        for number in range(SETTLING if norms else 0):
            call(model, network.inputs(1000 + number))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def chains_everywhere(model: nn.Module, inputs: Any, plan: tt.Plan) -> tt.Plan:
    """The plan with a chain in place of every layer that can be one, at ranks that lose nothing."""
    layers = []
    for layer, planned in zip(take_inventory(model, inputs).layers, plan.layers, strict=True):
        method, _ = Options().method(layer)
        cuts = () if method == DENSE else get_method(method).cuts(layer.spec)
        layers.append(replace(planned, method=method, ranks=tuple(2**31 for _ in cuts)))
    return replace(plan, layers=tuple(layers), pruned=())


def training_step(model: nn.Module, network: Network) -> float:
    """One step of SGD in training mode; gives the share of trained tensors that it moved."""
    torch.manual_seed(0)
    model.train()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trained.items()}
    chains = {
        id(p) for module in model.modules() if isinstance(module, tt.Chain) for p in module.parameters()
    }
    loss = loss_of(model, network)
    if not loss.isfinite():
        raise ValueError("the loss is not finite")
    loss.backward()
    for name, p in trained.items():
        if id(p) in chains and p.grad is None:
            raise ValueError(f"{name} of a chain takes no part in training")
        if p.grad is not None and not p.grad.isfinite().all():
            raise ValueError(f"the gradient of {name} is not finite")
    torch.optim.SGD(trained.values(), lr=1e-2).step()
    moved = [not torch.equal(before[name], p) for name, p in trained.items()]
    return sum(moved) / len(moved)


def loss_of(model: nn.Module, network: Network) -> Tensor:
    """Losses that the network gives itself, or the mean squares of its outputs."""
    if network.targets is not None:
        found = model(*network.inputs(0), network.targets())
        return torch.stack(list(found.values())).sum()
    values = [y for y in tensors(call(model, network.inputs(0))) if y.requires_grad]
    return torch.stack([y.float().square().mean() for y in values]).sum()


def call(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Tensor):
        return model(inputs)
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


@torch.no_grad()
def outputs(model: nn.Module, inputs: Any) -> list[Tensor]:
    torch.manual_seed(0)  # some draw noise in their forward pass
    return tensors(call(model.eval(), inputs))


def same(some: Tensor, other: Tensor) -> bool:
    return some.dtype == other.dtype and some.shape == other.shape and bool((some == other).all())


def within_rounding(found: float | None) -> bool:
    return found is not None and found <= ROUNDING


def jittered(inputs: Any) -> Any:
    """Inputs that differ in their last digits."""

    def noisy(x: Any) -> Any:
        is_noisy = isinstance(x, Tensor) and x.is_floating_point()
        return x * (1 + 1e-6 * torch.randn_like(x)) if is_noisy else x

    return each_leaf(inputs, noisy)


def difference(
    model: nn.Module, other: nn.Module, inputs: Any, inputs_of_other: Any = None, *, worst: bool = True
) -> float | None:
    """Difference of the floating outputs: the largest of all, or ||y' - y|| / ||y||; none where sizes differ."""
    theirs = outputs(other, inputs if inputs_of_other is None else inputs_of_other)
    pairs = list(zip(outputs(model, inputs), theirs, strict=False))
    pairs = [(a.double(), b.double()) for a, b in pairs if a.is_floating_point() and a.numel()]
    if not pairs or any(a.shape != b.shape for a, b in pairs):
        return None
    if worst:
        return max(float((a - b).abs().max() / a.abs().max().clamp_min(1e-30)) for a, b in pairs)
    lost = sum(float((a - b).square().sum()) for a, b in pairs)
    return float((lost / max(sum(float(a.square().sum()) for a, _ in pairs), 1e-30)) ** 0.5)
