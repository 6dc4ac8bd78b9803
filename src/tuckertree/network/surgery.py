"""Putting chains in a model: a plan applied, or its structure alone; and taking them out again."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from tuckertree._base.errors import TuckertreeError
from tuckertree._base.progress import ProgressCallback, no_progress, parallel_map
from tuckertree.core.decomposition import Spectra
from tuckertree.core.layers import DENSE_TYPES, Chain, LayerSpec, densify, empty_chain, factorize, weight_of
from tuckertree.measure import copy_model
from tuckertree.network.channels import prune
from tuckertree.planning import LayerPlan, Plan


def apply(
    model: nn.Module,
    plan: Plan,
    *,
    spectra: Mapping[str, Spectra] | None = None,
    tick: ProgressCallback = no_progress,
) -> nn.Module:
    """Apply a plan to a copy of a model.

    Parameters
    ----------
    model
        The dense model the plan was made for; it is not changed, and shares no memory with the result.
    plan
        Methods and ranks. No search is made; the same plan gives the same weights.
    spectra
        Spectra by layer name, if they are at hand (:func:`tuckertree.planning.survey`).

    Raises
    ------
    TuckertreeError
        If a layer of the plan is not in the model or has another shape, or its weight is not finite.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3))
    >>> plan = tt.plan(model, torch.zeros(1, 3, 16, 16), tt.Budget(params=0.5))
    >>> compressed = tt.apply(model, plan)
    >>> sum(p.numel() for p in compressed.parameters()) == plan.parameters[1] <= 0.5 * plan.parameters[0]
    True
    """
    layers = {layer.name: layer_for(model, layer) for layer in plan.compressed}

    def work(layer: LayerPlan) -> Chain:
        known = spectra.get(layer.name) if spectra else None
        try:
            return factorize(layers[layer.name], layer.method, layer.ranks, spectra=known)
        except TuckertreeError as error:
            raise TuckertreeError(f"{layer.name}: {error}") from error

    chains = parallel_map(work, plan.compressed, doing="factors", tick=tick, size=lambda p: p.parameters[0])
    result = copy_model(
        model, {layers[p.name]: chain for p, chain in zip(plan.compressed, chains, strict=True)}
    )
    return prune(result, plan.pruned)


def build_structure(model: nn.Module, plan: Plan) -> nn.Module:
    """Copy a dense model with uninitialised chains in the planned places, to load weights into.

    Raises
    ------
    TuckertreeError
        If a layer of the plan is not in the model or has another shape, or its ranks cannot be.
    """
    for pruned in plan.before:
        model = prune(model, pruned)
    chains: dict[nn.Module, nn.Module] = {}
    for layer in plan.compressed:
        dense = layer_for(model, layer)
        weight = weight_of(dense)
        try:
            chain = empty_chain(
                LayerSpec.of(dense), layer.method, layer.ranks, device=weight.device, dtype=weight.dtype
            )
        except TuckertreeError as error:
            raise TuckertreeError(f"{layer.name}: {error}") from error
        chains[dense] = chain.train(dense.training)
    return prune(copy_model(model, chains), plan.pruned)


def to_dense(model: nn.Module) -> nn.Module:
    """Copy a model with every chain multiplied out into the dense layer it stands for.

    The copy has the structure of the network before it was compressed, so that it can be compressed anew, further
    or otherwise. Its function is that of the model up to rounding: products are taken in float64 and kept in the
    type of the chain's weights, on their device, in the chain's training mode and ``requires_grad``.

    Parameters
    ----------
    model
        A compressed model; it is not changed, and shares no memory with the copy. One without chains is just copied.

    Returns
    -------
    torch.nn.Module
        Of the type of ``model``, with its attributes (such as the name of its architecture); where the model is
        itself a chain, the dense layer.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> model, image = tt.build("demo"), torch.randn(1, 3, 32, 32)
    >>> compressed = tt.compress(model, image, energy=0.8).model
    >>> dense = tt.to_dense(compressed)
    >>> dense.layer3[2].conv2
    Conv2d(64, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
    >>> torch.allclose(dense(image), compressed(image), atol=1e-3)
    True
    """
    return copy_model(
        model, {module: densify(module) for module in model.modules() if isinstance(module, Chain)}
    )


def is_compressed(model: nn.Module) -> bool:
    """Whether there is a chain in a model."""
    return any(isinstance(module, Chain) for module in model.modules())


def replace_layers(model: nn.Module, layers: Mapping[str, nn.Module]) -> nn.Module:
    """Copy a model with other modules in the named places, and wherever else the old ones are used."""
    return copy_model(model, {model.get_submodule(name): module for name, module in layers.items()})


def layer_for(model: nn.Module, layer: LayerPlan) -> nn.Module:
    """Find the layer that a plan speaks of.

    Raises
    ------
    TuckertreeError
        If it is not in the model, or has another shape.
    """
    try:
        module = model.get_submodule(layer.name)
    except AttributeError as error:
        raise TuckertreeError(
            f"the plan names a layer {layer.name!r} that this model does not have; it was made for another"
        ) from error
    if not isinstance(module, DENSE_TYPES):
        raise TuckertreeError(f"{layer.name} is a {type(module).__name__} here; the plan says {layer.kind}")
    spec = LayerSpec.of(module)
    if (spec.kind, spec.kernel_shape, spec.groups) != (layer.kind, layer.kernel, layer.groups):
        raise TuckertreeError(
            f"{layer.name} is {spec.kind} {list(spec.kernel_shape)} in {spec.groups} groups here; "
            f"the plan says {layer.kind} {list(layer.kernel)} in {layer.groups}"
        )
    return module
