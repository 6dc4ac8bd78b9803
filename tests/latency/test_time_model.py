"""Times of forms nobody measured, from those of a few, on a machine of known speed."""

import pytest
import torch
from torch import nn

from tests import networks
from tests.latency.cases import SPEED, machine, seconds_of, timed
from tests.strategies import CUT_METHODS
from tuckertree.core.layers import (
    METHODS,
    LayerSpec,
    Scaling,
    chain_macs,
    chain_stages,
    fusion_variants,
    get_method,
)
from tuckertree.latency import TimeModel
from tuckertree.latency.fit import Prior, fit_times, work
from tuckertree.latency.time_model import input_shape, sample_variants
from tuckertree.planning import Call, take_inventory
from tuckertree.planning.timing import form_cuts, forms_of_methods, rank_step

LAYERS = [
    (nn.Conv2d(64, 48, 3, padding=1), (1, 64, 14, 14)),
    (nn.Conv2d(32, 64, 3, stride=2, padding=1), (2, 32, 15, 14)),
    (nn.Conv2d(32, 32, (1, 7), padding=(0, 3)), (1, 32, 9, 9)),
    (nn.Conv2d(64, 128, 1, stride=2), (1, 64, 8, 8)),
    (nn.Conv2d(3, 32, 7, stride=2, padding=3), (1, 3, 32, 32)),
    (nn.Conv2d(64, 64, 3, padding=1, groups=2), (1, 64, 8, 8)),
    (nn.ConvTranspose2d(32, 32, 2, stride=2), (1, 32, 7, 7)),
    (nn.Conv3d(32, 32, 3, padding=1), (1, 32, 5, 6, 7)),
    (nn.Linear(96, 64), (4, 96)),
    (nn.Linear(96, 64), (1, 10, 96)),
]
IDS = [f"{type(module).__name__} {list(shape)}" for module, shape in LAYERS]


def layer_of(module, shape):
    return take_inventory(nn.Sequential(module).eval(), torch.zeros(shape)).layers[0]


@pytest.mark.parametrize(("module", "shape"), LAYERS, ids=IDS)
def test_every_form_is_timed_and_the_layer_is_called_as_it_is(module, shape):
    layer = layer_of(module, shape)
    found = sample_variants(layer.spec, rank_step(layer), CUT_METHODS)
    assert found[0].is_dense
    order = len(layer.spec.nontrivial_modes)
    assert {form.cuts for form in found[1:]} == set(form_cuts(tuple(range(order + 1))))
    for form in found[1:]:
        assert [stage.name for stage in form.stages] == [
            stage.name for stage in chain_stages(layer.spec, form.cuts, (1,) * len(form.cuts))
        ]
    assert input_shape(layer.spec, layer.calls[0]) == shape


def errors(layer, model):
    """By how much the time of each variant of the whole chain at ranks of 12 is predicted too long."""
    whole = form_cuts(tuple(range(len(layer.spec.nontrivial_modes) + 1)))[-1]
    found = []
    for form in fusion_variants(chain_stages(layer.spec, whole, (12,) * len(whole)), whole):
        stages = None if form.is_dense else Scaling.fixed(form.stages)
        predicted = float(model.seconds(layer, stages, torch.ones(1, 0)))
        found.append(predicted / seconds_of(form, layer.spec, layer.calls[0]) - 1)
    return found


@pytest.mark.parametrize(("module", "shape"), LAYERS, ids=IDS)
def test_times_that_were_not_measured_are_found(module, shape):
    layer = layer_of(module, shape)
    model, every = TimeModel(machine()), TimeModel(machine(), tolerance=0)
    assert errors(layer, every) == pytest.approx([0.0] * len(errors(layer, every)), abs=0.025)
    assert errors(layer, model) == pytest.approx([0.0] * len(errors(layer, model)), abs=0.03)
    assert every.timed == len(sample_variants(layer.spec, rank_step(layer)))
    assert model.timed <= max(4, 0.7 * every.timed)


@pytest.mark.parametrize(("module", "shape"), LAYERS[:2], ids=IDS[:2])
def test_measurements_that_are_far_off_do_not_count_and_others_are_made_instead(module, shape):
    layer = layer_of(module, shape)
    every = TimeModel(machine(spoilt=2), tolerance=0)
    assert errors(layer, every) == pytest.approx([0.0] * len(errors(layer, every)), abs=0.02)
    spoilt, steady = TimeModel(machine(spoilt=2)), TimeModel(machine())
    assert errors(layer, spoilt)
    assert errors(layer, steady)
    assert spoilt.timed > steady.timed


def test_the_work_of_a_chain_is_what_its_stages_count():
    module = nn.Conv2d(8, 12, 3, stride=2, padding=1)
    spec, call = LayerSpec.of(module), Call(2, (16, 16), (8, 8))
    stages = Scaling.of(lambda ranks: chain_stages(spec, (0, 1, 2), ranks), 3)
    row = work(spec, call, stages, torch.tensor([[4, 5, 6]]))[0]
    chain = chain_stages(spec, (0, 1, 2), (4, 5, 6))
    assert torch.equal(row, work(spec, call, Scaling.fixed(chain), torch.ones(1, 0))[0])
    assert row[:2].tolist() == [1, 4]
    assert float(row[2:6].sum()) == 2 * chain_macs(chain, (16, 16), (8, 8))
    assert row[5] == 0
    assert float(row[6]) == 2 * (4 * 16 * 16 + 5 * 8 * 16 + 6 * 8 * 8)
    dense = work(spec, call, Scaling.fixed(chain_stages(spec, (), ())), torch.zeros(1, 0))[0].tolist()
    assert dense == [1, 1, 0, 0, 0, 2 * spec.macs((16, 16), (8, 8)), 0, 0]


def test_no_coefficient_is_negative_and_outliers_do_not_count():
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(30, 7, generator=generator, dtype=torch.float64)
    true = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0, 3.0, 1.0], dtype=torch.float64)
    times = rows @ true
    times[::5] *= 10
    vague = Prior(torch.ones(7, dtype=torch.float64), torch.full((7,), 10.0, dtype=torch.float64))
    found = fit_times(rows, times, torch.zeros(30), vague)
    assert (found >= 0).all()
    assert (rows[1:5] @ found).tolist() == pytest.approx((rows[1:5] @ true).tolist(), rel=0.05)


def test_a_layer_called_twice_takes_twice_as_long_and_a_batch_as_many_samples():
    model = networks.SharedModule().eval()
    layer = take_inventory(model, torch.zeros(1, 3, 16, 16)).layers[1]
    assert len(layer.calls) == 2
    none = torch.zeros(1, 0)
    twice = float(TimeModel(machine()).seconds(layer, None, none))
    (once,) = {seconds_of(sample_variants(layer.spec, 4)[0], layer.spec, call) for call in layer.calls}
    assert twice == pytest.approx(2 * once)
    of_four = float(TimeModel(machine(), (4, 1)).seconds(layer, None, none))
    assert of_four - twice == pytest.approx(2 * 3 * float(SPEED[5]) * layer.macs / 2)


def test_candidates_run_faster_than_the_dense_layer_each_in_its_fastest_form():
    model = networks.small_cnn()
    _, candidates, timer, _ = timed(model, torch.zeros(1, 3, 16, 16))
    layers = {layer.name: layer for layer in take_inventory(model, torch.zeros(1, 3, 16, 16)).layers}
    assert len(candidates["2"]) > 3
    for name, found in candidates.items():
        dense = float(timer.seconds(layers[name], None, torch.zeros(1, 0)))
        order = found.seconds.argsort()
        assert (found.error[order].diff() < 0).all()  # what is slower loses less
        for method, ranks, form, seconds in zip(
            found.methods, found.ranks, found.forms, found.seconds.tolist(), strict=True
        ):
            if method == "dense":
                assert (seconds, form) == (pytest.approx(dense), ())
                continue
            assert seconds < dense
            assert form
            stages = get_method(method).scaling(layers[name].spec, form)
            assert float(timer.seconds(layers[name], stages, torch.tensor([ranks]))) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (
            METHODS,
            {
                "spatial": [(1,)],
                "svd": [(2,)],
                "tucker2": [(0,), (0, 2)],
                "depthwise": [(0, 1)],
                "ht2": [(0, 1), (1, 2), (0, 1, 2)],
            },
        ),
        (("ht2",), {"ht2": form_cuts((0, 1, 2))}),
        (("cp",), {"cp": form_cuts((0, 1, 2))}),
        (("svd", "cp"), {"svd": [(2,)], "cp": [cuts for cuts in form_cuts((0, 1, 2)) if cuts != (2,)]}),
    ],
)
def test_each_form_belongs_to_the_method_of_the_fewest_cuts(methods, expected):
    spec = LayerSpec.of(nn.Conv2d(8, 12, 3))
    found = forms_of_methods(spec, map(get_method, methods))
    assert {name: [form.cuts for form in own] for name, own in found.items()} == expected
