"""Names of layers, wanted by pattern."""

from fnmatch import fnmatchcase

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tuckertree import Energy, Ranks
from tuckertree._base.errors import UsageError
from tuckertree.planning import Options, make_plan, survey, take_inventory
from tuckertree.planning.patterns import fits

NAMES = st.sets(st.text("ab[]*?!", min_size=1, max_size=5), min_size=1, max_size=6)


@given(NAMES, st.data())
def test_a_name_fits_itself_alone(names, data):
    pattern = data.draw(st.sampled_from(sorted(names)))
    assert {name for name in names if fits(name, pattern, names)} == {pattern}


@given(NAMES, st.text("ab[]*?!", max_size=5))
def test_any_other_pattern_is_one_of_a_shell(names, pattern):
    if pattern not in names:
        assert {n for n in names if fits(n, pattern, names)} == {n for n in names if fnmatchcase(n, pattern)}


def plan_of(rule, **options):
    model = nn.Sequential()
    for name in ("net[0]", "net0", "a*", "ab"):
        model.add_module(name, nn.Conv2d(8, 8, 3, padding=1))
    inventory = take_inventory(model, torch.zeros(1, 8, 8, 8))
    wanted = Options(first="ht2", **options).among(inventory.layers)
    return make_plan(inventory, survey(model, inventory, wanted), rule, wanted)


@pytest.mark.parametrize(
    ("include", "compressed"),
    [
        (["net[0]"], ["net[0]"]),
        (["a*"], ["a*"]),
        (["a?"], ["a*", "ab"]),
        (["net*"], ["net[0]", "net0"]),
        (["net[[]0]", "ab"], ["net[0]", "ab"]),
    ],
)
def test_layers_whose_names_hold_the_signs_of_patterns(include, compressed):
    plan = plan_of(Energy(0.3), include=include)
    assert [layer.name for layer in plan.compressed] == compressed
    excluded = plan_of(Energy(0.3), exclude=include)
    assert not {layer.name for layer in excluded.compressed} & {*compressed}
    assert len(excluded.compressed) == 4 - len(compressed)


def test_ranks_by_a_name_are_those_of_that_layer_alone():
    plan = plan_of(Ranks({"net[0]": 2, "a*": 1}))
    assert {layer.name: layer.ranks for layer in plan.compressed} == {"net[0]": (2, 2, 2), "a*": (1, 1, 1)}
    assert plan.rule == {"rule": "ranks", "layers": {"net[0]": 2, "a*": 1}}


def test_a_pattern_that_only_a_shell_would_fit_nothing_with_is_refused():
    with pytest.raises(UsageError, match=r"no layer is named 'net\[1\]'"):
        plan_of(Energy(0.3), include=["net[1]"])
