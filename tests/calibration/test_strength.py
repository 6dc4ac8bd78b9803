"""How far fits follow the images: judged by images that they have not seen."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

import tuckertree as tt
from tests.calibration.cases import generator
from tuckertree.calibration import calibrate, output_distances
from tuckertree.calibration.batchnorm import held_out
from tuckertree.calibration.distances import Comparison
from tuckertree.calibration.least_squares import corrected, reading
from tuckertree.calibration.moment import InputSecondMoment
from tuckertree.calibration.pairs import FOLDS, Pair
from tuckertree.calibration.strength import NONE, choose_strength, shrunk_by_folds
from tuckertree.io.report import too_few_images
from tuckertree.tools.data import batches, open_calibration
from tuckertree.tools.models import resolve

KERNEL = torch.randn(1, 7, 5, generator=generator(), dtype=torch.float64)


def pair(x, z) -> Pair:
    """Of rows ``[n, 5]``."""
    z_mean, x_mean = z.mean(0)[None], x.mean(0)[None]
    gram = (z.mT @ z / len(z))[None]
    return Pair(InputSecondMoment(gram, z_mean, 1, len(z)), (z.mT @ x / len(z))[None], x_mean, gram)


def rows(count: int, seed: int):
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lost(kernel, x, z, *, centred: bool, original=KERNEL) -> float:
    error = x @ original[0].mT - z @ kernel[0].mT
    return float((error - error.mean(0) if centred else error).square().sum())


@pytest.mark.parametrize("centred", [False, True])
def test_what_the_images_show_is_corrected(centred):
    z = rows(4000, 0) + 1
    x = z @ (torch.eye(5, dtype=torch.float64) + 0.3 * rows(5, 1))
    folds = [pair(*both) for both in zip(x.split(1000), z.split(1000), strict=True)]
    whole = Pair.joined(folds)
    strength = choose_strength(KERNEL, folds, centred=centred)
    fitted = strength.correct(KERNEL, whole.centred() if centred else whole)
    assert lost(fitted, x, z, centred=centred) < 1e-3 * lost(KERNEL, x, z, centred=centred)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(2, 12),
    st.booleans(),
    st.floats(0, 2) | st.floats(-18, 0).map(lambda e: 10**e),
)
@example(seed=2, count=2, centred=False, noise=2.220446049250313e-16)
def test_the_chosen_strength_gains_on_the_folds_that_are_left_out_or_nothing_is_fitted(
    seed, count, centred, noise
):
    z = rows(FOLDS * count, seed)
    x = z + noise * rows(FOLDS * count, seed + 1)
    parts = list(zip(x.split(count), z.split(count), strict=True))
    folds = [pair(*both) for both in parts]
    strength = choose_strength(KERNEL, folds, centred=centred)
    before = after = 0.0
    for place, (unseen_x, unseen_z) in enumerate(parts):
        others = Pair.joined([*folds[:place], *folds[place + 1 :]])
        dx, dz = unseen_x, unseen_z
        if centred:
            dx, dz, others = dx - others.mean[0], dz - others.moment.mean[0], others.centred()
        before += lost(KERNEL, dx, dz, centred=False)
        after += lost(strength.correct(KERNEL, others), dx, dz, centred=False)
    assert after < before if strength.share else strength == NONE


def test_nothing_is_fitted_where_there_is_nothing_to_correct_or_no_image_to_judge_by():
    z = rows(40, 0)
    alike = [pair(part, part) for part in z.split(10)]
    assert choose_strength(KERNEL, alike, centred=True) == NONE
    assert choose_strength(KERNEL, [pair(2 * z, z)], centred=False) == NONE


def test_a_moment_is_shrunk_as_far_as_it_differs_between_images():
    def shrunk_by(parts) -> float:
        folds = [pair(part, part) for part in parts]
        moment = Pair.joined(folds).moment
        wide = shrunk_by_folds(moment, folds, centred=False).patch - moment.patch
        scale = moment.patch.diagonal(dim1=1, dim2=2).mean() * torch.eye(5, dtype=torch.float64)
        return float(wide.norm() / (moment.patch - scale).norm())

    spread = torch.diag(torch.arange(1.0, 6, dtype=torch.float64))
    few, many = ((rows(4 * count, 3) @ spread).split(count) for count in (3, 300))
    assert shrunk_by([rows(9, 0)] * 4) < 1e-12
    assert shrunk_by(many) < 0.05 < shrunk_by(few) <= 1.0
    repeated = [part.repeat(100, 1) for part in few]  # as many rows, no more images
    assert shrunk_by(repeated) == pytest.approx(shrunk_by(few))


@pytest.mark.filterwarnings("ignore:fewer calibration patches")
def test_with_few_images_a_correction_is_no_worse_on_others_than_none():
    model = tt.build("demo")
    preprocessing = resolve("demo").preprocessing
    images = next(batches(open_calibration("demo", preprocessing, limit=160), batch_size=160))[0]
    seen, unseen = images[:32], images[32:]
    plan = tt.compress(model, seen[:1], energy=0.5).plan
    none = calibrate(model, plan, seen, correction=False)
    corrected = calibrate(model, plan, seen)
    without, with_it = output_distances(model, (none, corrected), unseen)
    assert with_it < without


@pytest.mark.parametrize("count", [1, 2, 9, 50])
def test_images_held_out_are_in_no_fold_and_all_others_are_in_one(count):
    images = torch.arange(count).float()[:, None]
    comparison = Comparison(nn.Identity(), images, at_once=8, cut=held_out(count), folds=FOLDS)
    parts = [(comparison.fold_of(part), part.inputs.flatten().tolist()) for part in comparison.parts()]
    fitted = [image for fold, part in parts if fold is not None for image in part]
    assert [image for _, part in parts for image in part] == list(range(count))
    assert fitted == list(range(held_out(count) or count))
    assert {fold for fold, _ in parts} - {None} == set(range(min(FOLDS, len(fitted)))) or len(fitted) < FOLDS


@pytest.mark.filterwarnings("ignore:fewer calibration patches")
def test_a_result_tells_both_distances_and_warns_where_they_part():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, 64)).eval()
    images = torch.rand(40, 3, 8, 8, generator=generator())
    result = tt.compress(model, images[:1], tt.Budget(params=0.5), calibration=images)
    found = result.distances
    assert (found["images fitted"], found["images held out"]) == (34, 6)
    fitted, held = (output_distances(model, (result.model,), part)[0] for part in (images[:34], images[34:]))
    assert (found["fitted"], found["held out"]) == pytest.approx((fitted, held), rel=1e-3)
    assert f"{found['held out']:.1%} on 6 held out" in str(result)
    assert result.summary()["distances"] == found
    assert not too_few_images({})
    assert not too_few_images({**found, "held out": found["fitted"]})
    (warning,) = too_few_images({**found, "held out": 3 * found["fitted"]})
    assert "34 images say too little" in warning


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sets(st.integers(0, 4), min_size=1, max_size=4))
def test_a_layer_that_reads_some_channels_does_the_best_it_can_with_them(seed, channels):
    kept = sorted(channels)
    x = rows(400, seed) @ rows(5, seed + 1)  # channels that say something of each other
    folds = [pair(*both) for both in zip(x.split(100), x.split(100), strict=True)]
    fitted = corrected(KERNEL, Pair.joined(folds), 1e-9, channels=kept)
    best = torch.linalg.lstsq(x[:, kept], x @ KERNEL[0].mT).solution
    torch.testing.assert_close(fitted[0][:, kept].mT, best, rtol=1e-3, atol=1e-3)
    assert not fitted[0][:, [c for c in range(5) if c not in kept]].any()
    chosen = choose_strength(KERNEL, folds, kept, centred=False).correct(KERNEL, Pair.joined(folds), kept)
    assert lost(chosen, x, x, centred=False) <= lost(reading(KERNEL, kept), x, x, centred=False) * (1 + 1e-9)


@pytest.mark.parametrize("noise", [0.01, 0.3, 3.0])
def test_mixtures_of_many_outputs_choose_as_all_outputs_do(noise, monkeypatch):
    kernel, z = rows(900, 1).reshape(1, 900, 5), rows(60, 0)
    x = z @ (torch.eye(5, dtype=torch.float64) + 0.1 * rows(5, 1)) + noise * rows(60, 2)
    folds = [pair(*both) for both in zip(x.split(15), z.split(15), strict=True)]
    found = choose_strength(kernel, folds, centred=True)
    monkeypatch.setattr("tuckertree.calibration.strength._OUTPUTS", 900)
    every = choose_strength(kernel, folds, centred=True)
    many = rows(4000, 3)
    seen = many @ torch.linalg.lstsq(z, x).solution
    one, other = (
        lost(each.correct(kernel, Pair.joined(folds).centred()), seen, many, centred=True, original=kernel)
        for each in (found, every)
    )
    assert one == pytest.approx(other, rel=0.05)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e12, 1e30])
@pytest.mark.parametrize("noise", [0.1, 3.0])
def test_the_strength_does_not_depend_on_the_unit_of_the_inputs(scale, noise):
    z = rows(60, 0)
    x = z + noise * rows(60, 1)
    strengths = [
        choose_strength(
            KERNEL,
            [pair(s * a, s * b) for a, b in zip(x.split(15), z.split(15), strict=True)],
            centred=False,
        )
        for s in (1.0, scale)
    ]
    assert strengths[0].ridge == strengths[1].ridge
    assert strengths[0].share == pytest.approx(strengths[1].share, rel=1e-3)
