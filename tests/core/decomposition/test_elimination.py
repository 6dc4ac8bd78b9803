"""Backward elimination loses exactly what least squares over the channels that stay would lose."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tuckertree.core.decomposition.elimination import eliminate


def problem(seed, readers, channels, rows, noise=0.3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(readers, channels, 4 * channels, generator=generator, dtype=torch.float64)
    moments = x @ x.mT / x.shape[-1] + noise * torch.eye(channels, dtype=torch.float64)
    weights = torch.randn(readers, rows, channels, generator=generator, dtype=torch.float64)
    return moments, weights


def refitted_loss(moment, weight, kept):
    """The least squared error of any weights for the kept channels, by solving for them."""
    kept = list(kept)
    best = torch.linalg.solve(moment[kept][:, kept], moment[kept] @ weight.T).T
    error = weight.clone()
    error[:, kept] -= best
    return float((error @ moment * error).sum())


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000), readers=st.integers(1, 3), channels=st.integers(2, 90), rows=st.integers(1, 6)
)
def test_the_loss_is_that_of_least_squares_over_what_stays(seed, readers, channels, rows):
    moments, weights = problem(seed, readers, channels, rows)
    widths = sorted({*range(1, channels, max(channels // 5, 1))}, reverse=True)
    path = eliminate(moments, weights.mT @ weights, widths)
    assert sorted(path.order.tolist()) == list(range(channels))
    for width, losses in zip(path.widths, path.loss, strict=True):
        kept = path.kept(width)
        assert len(kept) == width
        wanted = [refitted_loss(m, w, kept) for m, w in zip(moments, weights, strict=True)]
        assert losses.tolist() == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def test_one_channel_fewer_is_the_one_that_costs_least():
    moments, weights = problem(3, 2, 7, 4)
    path = eliminate(moments, weights.mT @ weights, [6])
    every = [
        sum(refitted_loss(m, w, set(range(7)) - {gone}) for m, w in zip(moments, weights, strict=True))
        for gone in range(7)
    ]
    assert {*range(7)} - {*path.kept(6)} == {every.index(min(every))}


def test_what_others_say_goes_for_nothing():
    moments, weights = problem(0, 1, 5, 3, noise=1e-9)
    repeat = torch.cat([torch.eye(5), torch.eye(5)[:2]]).double()  # two channels twice
    moment = repeat @ moments @ repeat.T + 1e-9 * torch.eye(7).double()
    weight = weights @ torch.cat([torch.eye(5), torch.eye(5)[:, :2]], 1).double()
    path = eliminate(moment, weight.mT @ weight, [5, 4])
    assert path.loss[0].item() < 1e-6 * path.loss[1].item()
