"""Methods and budgets by their names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tuckertree as tt
from tuckertree.tools.comparison import Method, Outcome, Score, Settings, cells_of
from tuckertree.tools.comparison.cells import budget_of

METHODS = ("ht2", "tucker2", "spatial", "svd", "depthwise", "cp", "channels", "prune", "default")
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
    with pytest.raises(
        tt.UsageError, match=r"known: ht2, tucker2, spatial, svd, depthwise, cp.*prune, default"
    ):
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
    assert Method.of("cp+default").among == (*Method.of("default").among, "cp")
    assert str(Method.of("default+cp:weights")) == "default+cp:weights"
    assert "channels" not in Method.of("default+cp:weights").among
    for name in ("ht2+", "+", "prune+ht2", "ht2+zz", "ht2+channels:weights"):
        with pytest.raises(tt.UsageError, match="unknown method"):
            Method.of(name)


@given(
    st.permutations(["ht2", "tucker2", "spatial", "svd", "depthwise", "channels"]),
    st.integers(1, 6),
    st.sampled_from(["", ":weights"]),
)
def test_equal_choices_are_one_method(names, count, images):
    chosen = [name for name in names[:count] if not (images and name == "channels")] or ["ht2"]
    found = Method.of("+".join(chosen) + images)
    assert found == Method.of("+".join(sorted(chosen)) + images) == Method.of(str(found))
    assert set(found.among) == set(chosen)
    assert len(cells_of(["+".join(chosen), "+".join(reversed(chosen))], ["2x"])) == 1


def test_all_that_default_chooses_among_is_default():
    assert str(Method.of("svd+channels+ht2+spatial+cp+depthwise+tucker2")) == "default+cp"
    assert str(Method.of("svd+ht2+depthwise+spatial+tucker2:weights")) == "default:weights"
    assert str(Method.of("svd+ht2+spatial+tucker2")) == "ht2+tucker2+spatial+svd"


@pytest.mark.parametrize(
    "name", ["ht2+ht2", "default+ht2", "cp+default+cp", "default+default", "svd+svd:weights"]
)
def test_a_method_that_is_named_twice_is_refused(name):
    with pytest.raises(tt.UsageError, match=r"names (ht2|cp|svd) twice"):
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
