"""The factors of a network's chains, chosen so that 8 bits lose little: the same function."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import gcd

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tuckertree.core.decomposition import Factors
from tuckertree.core.decomposition.bases import change_basis, even_basis, gram_of_rest, shared_range
from tuckertree.core.layers import Chain
from tuckertree.core.layers.spec import weight_of
from tuckertree.measure import ExampleInputs, copy_model
from tuckertree.measure import run as run_once

_LEVELS, _LARGEST = 255, 127
"""Steps of the values' range, and the largest weight, in 8 bits."""
_SAMPLES = 2**16
_UNSEEN = 1e-3
"""Share of what the others do to the outputs that each value is taken to do on images that are not seen."""
_SHARES = (0.0, 0.25, 0.5)
"""How far channels are scaled, of the way from those that fill the range to those that the outputs answer to alike."""
_FEW, _MOST, _NUMBERS = 32, 128, 2**20
"""Least and most images that factors are chosen by, and numbers in all images between the two."""
_SMALL, _TINY = 1e-9, torch.finfo(torch.float32).tiny


def rebalance_for_int8(model: nn.Module, images: ExampleInputs) -> nn.Module:
    """Copy a model with other factors in its chains, which lose less when weights and activations go to 8 bits.

    In each space between two stages the basis is chosen in which all values are equally large and the outputs answer
    to all alike (:func:`~tuckertree.core.decomposition.bases.even_basis`), scaled so that every channel fills the range
    which all of them share. Each chain is tried with rounded weights and activations on the images, and keeps its own
    factors where the others are no better. The function is the same up to rounding of the arithmetic, and so are ranks
    and costs.

    Parameters
    ----------
    model
        Any network; what is no chain stays as it is.
    images
        A batch of its inputs, some tens of images.

    Returns
    -------
    torch.nn.Module
        A copy that shares no memory with the model.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> from tuckertree.calibration import rebalance_for_int8
    >>> layer, images = torch.nn.Conv2d(32, 64, 3), torch.randn(8, 32, 8, 8)
    >>> model = torch.nn.Sequential(tt.factorize(layer, "ht2", (8, 12, 10)))
    >>> other = rebalance_for_int8(model, images)
    >>> torch.allclose(other(images), model(images), atol=1e-5)
    True
    """
    model = copy_model(model)
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, Chain) and len(module) > 1 and _is_plain(module):
                _at_first_call(module, stack)
        run_once(model, images)
    return model


def images_for_int8(image: Tensor) -> int:
    """How many images factors are chosen by: 32, and of small ones more, up to 128: what channels reach is seen of many.

    Parameters
    ----------
    image
        A batch of one or more.
    """
    return min(_MOST, max(_FEW, _NUMBERS // max(1, image.shape[1:].numel())))


def _is_plain(chain: Chain) -> bool:
    """Whether its stages are still layers with weights in floating point: others have taken their place in some models."""
    weights = [getattr(layer, "weight", None) for layer in chain]
    return all(isinstance(w, Tensor) and w.is_floating_point() for w in weights)


def _at_first_call(chain: Chain, stack: ExitStack) -> None:
    """Choose the factors of a chain when it is first called, by what it is called with."""

    def choose(chain: Chain, args: tuple[Tensor, ...], kwargs: dict[str, object]) -> None:
        handle.remove()
        if args and isinstance(args[0], Tensor) and args[0].numel():
            _choose(chain, args, kwargs)

    handle = chain.register_forward_pre_hook(choose, with_kwargs=True)
    stack.callback(handle.remove)


@torch.no_grad()
def _choose(chain: Chain, args: tuple[Tensor, ...], kwargs: dict[str, object]) -> None:
    dtype = weight_of(chain[0]).dtype
    own = Factors(tuple(core.clone() for core in chain.factors()))
    with _seen(chain) as values:
        exact = chain(*args, **kwargs)
    if not all(bool(each.isfinite().all()) for each in (exact, *values)):
        return
    best, least = own, _distance(_rounded_call(chain, args, kwargs), exact)
    try:
        evens = [even.to(dtype) for even in _evens(chain, own, values)]
    except RuntimeError:  # torch.linalg.LinAlgError: values that differ too much in size
        return
    for even in evens:
        chain.set_factors(even)
        lost = _distance(_rounded_call(chain, args, kwargs), exact)
        if lost < least:
            best, least = even, lost
    chain.set_factors(best)


def _evens(chain: Chain, factors: Factors, values: list[Tensor]) -> list[Factors]:
    """The factors in even bases by each of the shares, given the values between the stages in the present ones.

    Channels that fill the range have least of the values' rounding. Where the next stage has one scale for the weights of
    several of them, those that the outputs answer to alike have less of the weights'; a depthwise stage has a scale for each.
    """
    rows = factors.to(torch.float64).rows()
    groups = [stage.spec.groups for stage in chain.stages]
    found = []
    for bond, seen in enumerate(values):
        size = gcd(rows[bond].shape[-1], rows[bond + 1].shape[1])  # no block reaches over groups
        gram = gram_of_rest(rows[bond + 1 :], size)
        shares = _SHARES if rows[bond + 1].shape[1] > 1 else (0.0,) * len(_SHARES)
        found.append(_bases(_in_blocks(seen, size), gram, shares))
    return [_in_bases(rows, bases, groups) for bases in zip(*found, strict=True)]


def _in_bases(rows: Sequence[Tensor], bases: Sequence[Tensor], groups: Sequence[int]) -> Factors:
    """The same chain with a basis ``[blocks, b, b]`` in each space between two stages."""
    changed = list(rows)
    for bond, basis in enumerate(bases):
        changed[bond], changed[bond + 1] = change_basis(changed[bond], changed[bond + 1], basis)
    return Factors.of_rows(changed, groups)


def _bases(blocks: Tensor, gram: Tensor, shares: Sequence[float]) -> list[Tensor]:
    """Even bases ``[blocks, b, b]`` in which no channel reaches farther than the largest does now, one for each share.

    Few images do not show all that a channel can carry: what hardly carries anything is not scaled up without bound,
    and a block of such channels stays as it is.
    """
    eye = torch.eye(blocks.shape[-1]).to(blocks)
    moments = blocks.mT @ blocks / blocks.shape[1]
    carried = (moments * gram).sum((1, 2)) / len(eye)  # of the outputs' square, for each channel
    sizes = gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(_TINY)
    inverse = torch.linalg.inv(gram + _SMALL * sizes[:, None, None] * eye)
    basis = even_basis(moments + _UNSEEN * carried[:, None, None] * inverse, gram)
    inverse = torch.linalg.inv(basis)
    answers = (inverse.mT @ gram @ inverse).diagonal(dim1=1, dim2=2)
    low, high = (blocks @ basis.mT).aminmax(dim=1)
    low, high = low.clamp(max=0), high.clamp(min=0)
    high = high.maximum(_UNSEEN**0.5 * high.maximum(-low).amax(1, keepdim=True))
    heard = carried > _UNSEEN * carried.mean()
    if not heard.any():
        return [eye.expand_as(basis)] * len(shares)
    low, high, answers = (x[heard] for x in (low, high, answers))
    full = shared_range(low.flatten(), high.flatten(), answers.flatten()).reshape(answers.shape)
    bases = []
    for share in shares:
        scales = full.sign() * full.abs() ** (1 - share) * answers.clamp_min(_TINY) ** (share / 2)
        scales = scales / (scales.abs() * high.maximum(-low)).amax().clamp_min(_TINY)
        bases.append(eye.repeat(len(basis), 1, 1))
        bases[-1][heard] = basis[heard] * (blocks.abs().amax() * scales[..., None])
    return bases


def _in_blocks(values: Tensor, size: int) -> Tensor:
    """Values ``[..., C]``, evenly taken where they are many, as ``[C / size, samples, size]`` in float64."""
    rows = values.reshape(-1, values.shape[-1] // size, size)
    return rows[:: 1 + len(rows) // _SAMPLES].double().transpose(0, 1)


@contextmanager
def _seen(chain: Chain) -> Iterator[list[Tensor]]:
    """List what all stages but the last give, channels last, while the chain runs."""
    values: list[Tensor] = []

    def keep(layer: nn.Module, _: object, output: Tensor) -> None:
        taps = 0 if isinstance(layer, nn.Linear) else weight_of(layer).ndim - 2
        values.append(output.movedim(-1 - taps, -1))

    with ExitStack() as stack:
        for layer in list(chain)[:-1]:
            stack.callback(layer.register_forward_hook(keep).remove)
        yield values


def _rounded_call(chain: Chain, args: tuple[Tensor, ...], kwargs: dict[str, object]) -> Tensor:
    """What the chain gives with weights and activations in 8 bits: a scale for each output channel of a weight."""
    weights = {
        f"{name}.weight": rounded_weight(weight_of(layer), axis=1 if stage.spec.transposed else 0)
        for (name, layer), stage in zip(chain.named_children(), chain.stages, strict=True)
    }
    with ExitStack() as stack:
        for layer in list(chain)[:-1]:
            stack.callback(layer.register_forward_hook(lambda *given: rounded_values(given[-1])).remove)
        output: Tensor = functional_call(chain, weights, (rounded_values(args[0]), *args[1:]), kwargs)
    return output


def rounded_weight(weight: Tensor, axis: int) -> Tensor:
    """A weight in signed 8 bits, each slice along an axis with a scale of its own."""
    others = [other for other in range(weight.ndim) if other != axis]
    scale = weight.abs().amax(others, keepdim=True) / _LARGEST
    return (weight / scale.clamp_min(_TINY)).round() * scale


def rounded_values(values: Tensor) -> Tensor:
    """Values in unsigned 8 bits, with one range for all of them that holds zero."""
    low, high = values.amin().clamp(max=0), values.amax().clamp(min=0)
    scale = ((high - low) / _LEVELS).clamp_min(_TINY)
    zero = (-low / scale).round()
    return ((values / scale).round() + zero).clamp(0, _LEVELS).sub(zero) * scale


def _distance(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact.double()).square().sum())
