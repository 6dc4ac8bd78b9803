"""Candidates: their costs and errors against chains that are really made, and what the front leaves out."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.strategies import examples, method_cuts, methods_for
from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.core.decomposition import decompose
from tuckertree.core.decomposition.matricization import block_sizes
from tuckertree.core.layers import METHODS, chain_parameters, chain_stages, factorize
from tuckertree.core.layers.methods.cut import GRID, rank_grid
from tuckertree.planning import layer_candidates, take_inventory

SHAPES = {3: (9,), 4: (8, 9), 5: (4, 5, 6)}


def candidates_of(module, **options):
    torch.manual_seed(0)
    module.weight.data = torch.randn_like(module.weight) * torch.linspace(
        1, 0.1, module.weight.shape[1]
    ).reshape(-1, *(1 for _ in module.weight.shape[2:]))
    shape = (2, module.in_features) if isinstance(module, nn.Linear) else ()
    shape = shape or (1, module.in_channels, *SHAPES[module.weight.ndim])
    layer = take_inventory(nn.Sequential(module), torch.zeros(shape)).layers[0]
    kernel = layer.spec.kernel(module.weight).detach()
    return layer, kernel, layer_candidates(layer, kernel, **options)


def layers():
    return st.sampled_from(
        [
            lambda: nn.Conv2d(6, 8, 3, padding=1),
            lambda: nn.Conv2d(7, 5, 3, stride=2),
            lambda: nn.Conv2d(8, 6, (3, 2), stride=(1, 2), groups=2),
            lambda: nn.Conv2d(6, 9, (1, 3), padding=(0, 1), stride=2),
            lambda: nn.Conv2d(9, 7, 1),
            lambda: nn.ConvTranspose2d(6, 5, 3, stride=2),
            lambda: nn.Conv1d(6, 7, 3),
            lambda: nn.Conv3d(4, 5, (2, 3, 2)),
            lambda: nn.Linear(9, 8),
        ]
    )


@examples(20)
@given(layers())
def test_costs_and_errors_are_those_of_the_chain(make):
    module = make()
    layer, kernel, candidates = candidates_of(module)
    assert len(candidates) == len(candidates.ranks) == len(candidates.error) > 1
    for i, (method, ranks) in enumerate(zip(candidates.methods, candidates.ranks, strict=True)):
        if method == "dense":
            assert (ranks, float(candidates.error[i])) == ((), 0)
            assert (candidates.parameters[i], candidates.macs[i]) == (layer.spec.weights, layer.macs)
            continue
        chain = factorize(module, method, ranks)
        assert chain.ranks == ranks
        assert chain_parameters(chain.stages) == candidates.parameters[i] < layer.spec.weights
        assert layer.chain_macs(chain.stages) == candidates.macs[i] <= layer.macs
        error = chain.factors().relative_error(kernel) ** 2
        assert error <= float(candidates.error[i]) + 1e-6
        if method != "ht2" or len(ranks) == 2:
            assert error == pytest.approx(float(candidates.error[i]), abs=1e-6)
        elif len(ranks) == 3:  # the bound is a close one
            assert error >= 0.8 * float(candidates.error[i])


@examples(9)
@given(layers())
def test_no_choice_of_method_and_ranks_betters_the_front(make):
    module = make()
    layer, kernel, candidates = candidates_of(module)
    order = len(layer.spec.nontrivial_modes)
    for method in methods_for(order) if order else ("svd",):
        cuts = method_cuts(method, order)
        sizes = block_sizes(layer.spec.nontrivial_shape, cuts)
        limits = [
            min(torch.tensor(sizes[: i + 1]).prod(), torch.tensor(sizes[i + 1 :]).prod())
            for i in range(len(cuts))
        ]
        for ranks in itertools.product(*(range(1, int(limit) + 1, 2) for limit in limits)):
            factors = decompose(kernel, ranks, cuts)
            stages = chain_stages(layer.spec, cuts, factors.ranks)
            parameters, macs = chain_parameters(stages), layer.chain_macs(stages)
            if parameters >= layer.spec.weights or macs > layer.macs:
                continue
            at_most = (candidates.parameters <= parameters) & (candidates.macs <= macs)
            # The bound that chooses is a little above the error that an ht2 candidate really has.
            slack = 0.8 if method == "ht2" and order >= 2 else 1.0
            assert (
                slack * float(candidates.error[at_most].min()) <= factors.relative_error(kernel) ** 2 + 1e-9
            )


@pytest.mark.parametrize("round_to", [1, 4, 8, 16])
def test_ranks_are_multiples_or_as_many_as_there_can_be(round_to):
    layer, _, candidates = candidates_of(nn.Conv2d(24, 40, 3, padding=1), round_to=round_to)
    for method, ranks in zip(candidates.methods, candidates.ranks, strict=True):
        if method == "dense":
            continue
        if method == "depthwise":
            assert ranks[0] % max(round_to, 8) == 0
            continue
        cuts = method_cuts(method, 2)
        sizes = block_sizes(layer.spec.kernel_shape, cuts)
        assert all(rank % round_to == 0 or rank in (24, 40, sizes[0], sizes[-1]) for rank in ranks)


@examples(60)
@given(st.integers(1, 5000), st.sampled_from([1, 4, 8, 16]), st.sampled_from([24, 64, 1024]))
def test_a_grid_of_ranks_rises_from_the_smallest_to_the_limit(limit, round_to, most):
    ranks = rank_grid(limit, round_to, most)
    assert (ranks.diff() > 0).all()
    assert (int(ranks[0]), int(ranks[-1])) == (min(round_to, limit), limit)
    assert len(ranks) == -(-limit // round_to) if limit <= most * round_to else most / 2 < len(ranks) <= most


def test_a_large_layer_has_a_coarse_grid_with_every_small_rank():
    ranks = rank_grid(1536, 1, GRID)
    assert ranks[:8].tolist() == list(range(1, 9))
    assert float((ranks[1:] / ranks[:-1])[10:].max()) < 1.2


def test_only_the_methods_asked_for_are_candidates():
    _, _, candidates = candidates_of(nn.Conv2d(12, 12, 3), methods=("ht2",))
    assert set(candidates.methods) == {"dense", "ht2"}
    with pytest.raises(UsageError, match="unknown method 'tucker'"):
        candidates_of(nn.Conv2d(12, 12, 3), methods=("tucker",))
    _, _, pointwise = candidates_of(nn.Conv2d(12, 12, 1))
    assert set(pointwise.methods) == {"dense", "svd"}
    assert METHODS[0] == "ht2"


def test_a_kernel_of_zeros_costs_its_error_nothing():
    layer, kernel, _ = candidates_of(nn.Conv2d(6, 8, 3))
    candidates = layer_candidates(layer, torch.zeros_like(kernel))
    assert candidates.error.tolist() == [0.0]
    assert candidates.ranks[0] in ((1, 1, 1), (1, 1), (1,))


def test_a_layer_too_small_to_compress_stays_dense():
    _, _, candidates = candidates_of(nn.Conv2d(1, 2, 1))
    assert candidates.methods == ("dense",)


def test_a_kernel_with_nan_is_refused():
    layer, kernel, _ = candidates_of(nn.Conv2d(6, 8, 3))
    with pytest.raises(TuckertreeError, match="NaN or infinite"):
        layer_candidates(layer, kernel * torch.nan)


def test_a_measured_loss_takes_the_place_of_the_error():
    _, _, candidates = candidates_of(nn.Conv2d(6, 8, 3))
    measured = candidates.measured(lambda error: 3 * error.sqrt())
    assert torch.equal(measured.loss, 3 * candidates.error.sqrt())
    assert torch.equal(measured.error, candidates.error)


@pytest.mark.parametrize(
    "loss", [lambda e: -e, lambda e: 1 - e, lambda e: e / 0.0, lambda e: e * torch.nan], ids=range(4)
)
def test_a_loss_that_falls_or_is_not_finite_is_refused(loss):
    _, _, candidates = candidates_of(nn.Conv2d(6, 8, 3))
    with pytest.raises(UsageError, match="a loss must be finite"):
        candidates.measured(loss)
