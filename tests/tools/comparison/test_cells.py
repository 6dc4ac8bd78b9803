"""Methods and budgets by their names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tuckertree as tt
from tuckertree.tools.comparison import Method, Outcome, Score, Settings, cells_of
from tuckertree.tools.comparison.cells import budget_of

METHODS = ("ht2", "tucker2", "spatial", "svd", "cp", "channels", "prune", "default")
names = st.sampled_from([*METHODS, *(f"{name}:weights" for name in METHODS if name != "channels")])
shares = st.sampled_from(["1.5x", "2x", "0.4", "4x"])


@given(names)
def test_a_method_is_called_as_it_was_typed(name):
    assert str(Method.of(f" {name} ")) == name
    assert Method.of(name).fitted == (":" not in name)


@given(st.lists(names, min_size=1), st.lists(shares, min_size=1))
def test_every_method_meets_every_budget_once_and_has_a_file_of_its_own(methods, budgets):
    cells = cells_of(methods, budgets)
    assert len(cells) == len(set(methods)) * len(set(budgets)) == len({cell.file for cell in cells})
    assert not any(sign in cell.file for cell in cells for sign in ':/\\"*?')


@pytest.mark.parametrize("name", ["tt", "ht2:", "ht2:images", "channels:weights", "", "dense", ":weights"])
def test_an_unknown_method_is_refused_with_the_known_ones(name):
    with pytest.raises(tt.UsageError, match=r"known: ht2, tucker2, spatial, svd, cp.*prune, default"):
        cells_of([name], ["2x"])


@pytest.mark.parametrize(
    ("methods", "budgets", "by"),
    [
        (["ht2"], ["two"], "macs"),
        (["ht2"], ["0"], "macs"),
        (["ht2"], [], "macs"),
        ([], ["2x"], "macs"),
        (["ht2"], ["2x"], "size"),
    ],
)
def test_what_is_no_budget_is_refused(methods, budgets, by):
    with pytest.raises(tt.UsageError):
        cells_of(methods, budgets, by)


def test_budgets_are_of_macs_or_of_parameters():
    assert (budget_of("2x", "macs").macs, budget_of("0.4", "params").params) == (0.5, 0.4)


def test_without_images_no_channels_can_be_chosen():
    assert set(Method.of("default").among) - set(Method.of("default:weights").among) == {"channels"}


def test_methods_are_joined_to_a_choice_among_them():
    assert Method.of("ht2+svd").among == ("ht2", "svd")
    assert Method.of("cp+default").among == ("cp", *Method.of("default").among)
    assert Method.of("default+ht2").among == Method.of("default").among
    assert str(Method.of("default+cp:weights")) == "default+cp:weights"
    assert "channels" not in Method.of("default+cp:weights").among
    for name in ("ht2+", "+", "prune+ht2", "ht2+zz", "ht2+channels:weights"):
        with pytest.raises(tt.UsageError, match="unknown method"):
            Method.of(name)


@pytest.mark.parametrize(
    "given", [{"tune": "soon"}, {"by": "size"}, {"runtime": "none"}, {"runtime": "torch", "threads": 0}]
)
def test_settings_that_cannot_be_are_refused(given):
    with pytest.raises(tt.UsageError):
        Settings(**given)


def test_what_failed_for_a_reason_that_may_pass_is_not_final():
    (cell,) = cells_of(["ht2"], ["2x"])
    assert Outcome("ht2", "2x", score=Score(10, 90.0, 80.0, 95.0)).is_final
    assert Outcome.failure(cell, "out of reach", unreachable=True).is_final
    assert not Outcome.failure(cell, "no such package").is_final
