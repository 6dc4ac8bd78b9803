"""Every chain of a network as the fusion variant that its runtime runs fastest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError
from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree.core.layers import Chain, FusionVariant, contract_chain, fusion_variants
from tuckertree.measure import ExampleInputs, watch_input
from tuckertree.measure import run as run_once
from tuckertree.network.surgery import replace_layers
from tuckertree.runtimes.cache import LatencyCache
from tuckertree.runtimes.candidates import CandidateTime, time_candidates
from tuckertree.runtimes.runtime import Runtime


@dataclass(frozen=True)
class ContractedLayer:
    """What became of one chain.

    Attributes
    ----------
    name
        Where it is in the model.
    kernel
        Kernel shape ``(T, C, D1, ..., DN)`` of one group.
    input
        Shape of its input.
    variant
        The variant taken; the dense one where no variant was faster by more than noise.
    times
        Name and time of every variant, against the dense layer.
    """

    name: str
    kernel: tuple[int, ...]
    input: tuple[int, ...]
    variant: FusionVariant
    times: tuple[tuple[str, CandidateTime], ...]

    def time(self, name: str) -> CandidateTime:
        """Time of the variant of that name."""
        return dict(self.times)[name]


@dataclass(frozen=True)
class Contraction:
    """A network with its chains contracted, and what was measured for it.

    Attributes
    ----------
    model
        The same function up to rounding; it shares no memory with the one given.
    layers
        One entry for each chain.
    """

    model: nn.Module
    layers: tuple[ContractedLayer, ...]


def contract(
    model: nn.Module,
    runtime: Runtime,
    example_inputs: ExampleInputs,
    *,
    repeats: int = 25,
    cache: LatencyCache | None = None,
    tick: ProgressCallback = no_progress,
) -> Contraction:
    """Fuse every chain of a model in the way that a runtime runs fastest.

    Each distinct layer is measured by itself, once: its dense variant and every variant of its chain in turns. The
    fastest variant is taken if it beats the dense layer by more than noise; otherwise the layer becomes dense,
    with the weight the chain stands for.

    Parameters
    ----------
    model
        A compressed model, on any device; it is not changed.
    example_inputs
        Of the batch and size the model will run with.
    repeats
        Rounds of each measurement.
    cache
        As in :func:`time_candidates`.

    Raises
    ------
    TuckertreeError
        If the model has no chain, does not run on the inputs, or the runtime cannot run a layer.
    """
    chains = {name: module for name, module in model.named_modules() if isinstance(module, Chain)}
    if not chains:
        raise TuckertreeError("there is nothing to contract: the model has no factored layer")
    inputs = _inputs_of(model, chains, example_inputs)
    found: dict[object, tuple[FusionVariant, tuple[tuple[str, CandidateTime], ...]]] = {}
    layers, modules = [], {}
    for number, (name, chain) in enumerate(chains.items()):
        if name not in inputs:
            continue  # the forward pass does not call it
        shape, dtype = inputs[name]
        key = (chain.stages, shape, dtype)
        if key not in found:
            found[key] = _fastest(chain, shape, dtype, runtime, repeats, cache)
        variant, times = found[key]
        layers.append(ContractedLayer(name, chain.dense.kernel_shape, shape, variant, times))
        modules[name] = contract_chain(chain, variant)
        tick("contracting", number + 1, len(chains))
    return Contraction(replace_layers(model, modules), tuple(layers))


def _fastest(
    chain: Chain,
    shape: Sequence[int],
    dtype: torch.dtype,
    runtime: Runtime,
    repeats: int,
    cache: LatencyCache | None,
) -> tuple[FusionVariant, tuple[tuple[str, CandidateTime], ...]]:
    *factored, dense = fusion_variants(chain.stages, chain.cuts)
    ordered = (dense, *factored)
    modules = [contract_chain(chain, variant).cpu() for variant in ordered]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, generator=generator).to(dtype)
    times = time_candidates(modules, x, runtime, repeats=repeats, cache=cache)
    best = min(range(len(ordered)), key=lambda i: times[i].ratio.median)
    variant = ordered[best] if times[best].is_faster() else dense
    return variant, tuple((f.name, t) for f, t in zip(ordered, times, strict=True))


def _inputs_of(
    model: nn.Module, chains: dict[str, Chain], example_inputs: ExampleInputs
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and type of what each chain is first called with."""
    found: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}

    def look(name: str, x: Tensor) -> None:
        found.setdefault(name, (tuple(x.shape), x.dtype))

    hooks = [watch_input(chain, partial(look, name)) for name, chain in chains.items()]
    try:
        run_once(model, example_inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found
