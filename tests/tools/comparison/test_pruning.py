"""Structured pruning within a budget."""

import pytest
import torch

import tuckertree as tt
from tests.tools.comparison.cases import Chosen, Twice, tiny
from tuckertree.measure import count_macs, count_parameters
from tuckertree.tools.comparison import prune
from tuckertree.tools.data import open_calibration
from tuckertree.tools.models import resolve

pytest.importorskip("torch_pruning")
EXAMPLE = torch.zeros(1, 3, 32, 32)


@pytest.mark.parametrize("budget", [tt.Budget(macs=0.2), tt.Budget(params="2x")])
def test_the_network_keeps_the_budget_and_hardly_more_than_it_must(budget):
    dense = tiny()
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    small = prune(dense, EXAMPLE, budget)
    macs = count_macs(small, EXAMPLE) / count_macs(dense, EXAMPLE)
    params = count_parameters(small) / count_parameters(dense)
    share, wanted = (macs, budget.macs) if budget.macs else (params, budget.params)
    assert 0.85 * wanted < share <= wanted
    assert small(EXAMPLE).shape == (1, 10)
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())


def test_with_images_statistics_are_taken_anew_and_nothing_else_changes():
    dense = tiny()
    images = open_calibration("demo", resolve("demo").preprocessing, limit=24)
    plain, fitted = (prune(dense, EXAMPLE, tt.Budget(macs="1.5x"), x).state_dict() for x in (None, images))
    changed = {name for name in plain if not torch.equal(plain[name], fitted[name])}
    assert changed
    assert all("running" in name or "num_batches" in name for name in changed)


def test_layers_that_end_in_the_outputs_keep_their_channels():
    dense = Twice().eval()
    small = prune(dense, EXAMPLE, tt.Budget(macs=0.5))
    assert [y.shape for y in small(EXAMPLE)] == [y.shape for y in dense(EXAMPLE)]
    assert small.first.out_channels < small.middle.out_channels == 16


def test_outputs_that_it_does_not_see_are_not_changed_in_silence():
    with pytest.raises(tt.TuckertreeError, match="its outputs would have other sizes"):
        prune(Twice(hidden=True).eval(), EXAMPLE, tt.Budget(macs=0.5))


def test_what_is_frozen_stays_so():
    dense = tiny()
    for parameter in dense[0].parameters():
        parameter.requires_grad_(False)
    small = prune(dense, EXAMPLE, tt.Budget(macs=0.7))
    assert not any(p.requires_grad for p in small[0].parameters())
    assert all(p.requires_grad for p in small[3].parameters())


def test_a_budget_out_of_reach_says_what_is_within():
    with pytest.raises(tt.UnreachableTargetError, match=r"does not reach macs 0.001; the nearest .* 0\.\d+$"):
        prune(tiny(), EXAMPLE, tt.Budget(macs=0.001))


def test_a_network_that_cannot_be_traced_is_refused_in_one_line():
    with pytest.raises(tt.TuckertreeError, match=r"^torch-pruning cannot prune this network: ") as caught:
        prune(Chosen().eval(), EXAMPLE, tt.Budget(macs=0.5))
    assert "\n" not in str(caught.value)
