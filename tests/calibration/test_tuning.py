"""Tuning of a whole network against the original on unlabelled images."""

import copy
import json
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import tuckertree as tt
from tests import networks
from tests.calibration.cases import generator
from tests.calibration.tuning_cases import (
    FROZEN,
    IMAGES,
    WITH_NORMS,
    Undifferentiated,
    WithNorms,
    bits,
    differing,
    ranks,
)
from tuckertree._base.errors import UsageError
from tuckertree.calibration import CalibrationWarning, Length, output_distances, tune_network
from tuckertree.calibration.sources import Calibration
from tuckertree.calibration.tuning import Way
from tuckertree.calibration.tuning.images import TuningImages
from tuckertree.calibration.tuning.loss import Imitation
from tuckertree.calibration.tuning.run import TuningRun


def test_the_outputs_come_nearer_on_images_that_took_no_part_and_nothing_given_changes():
    model = WithNorms()
    result = ranks(model)
    state, own = bits(model), bits(result.model)
    tuned = tt.tune(result, model, IMAGES, steps=30)
    assert tuned.tuning.after < 0.8 * tuned.tuning.before
    held = IMAGES[-tuned.tuning.held_out :]
    measured = output_distances(model, (result.model, tuned.model), held)
    assert measured == pytest.approx([tuned.tuning.before, tuned.tuning.after], rel=1e-4)
    assert [step for step, _ in tuned.tuning.course] == [*range(2, 31, 2)]
    assert min(tuned.tuning.course, key=lambda at: at[1]) == (tuned.tuning.best, tuned.tuning.after)
    other = torch.rand(100, 3, 12, 12, generator=generator(1))
    before, after = output_distances(model, (result.model, tuned.model), other)
    assert after < before
    assert not differing(state, model.state_dict())
    assert not differing(own, result.model.state_dict())
    assert not model.training
    assert not any(module.training for module in tuned.model.modules())
    assert all(p.requires_grad and p.grad is None for p in (*model.parameters(), *tuned.model.parameters()))


@pytest.mark.parametrize("way", [FROZEN, WITH_NORMS])
def test_the_same_seed_and_steps_give_the_same_bits_and_the_generators_stay(way):
    model = WithNorms()
    result = ranks(model)
    torch.manual_seed(7)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    found = [
        tune_network(result.model, model, IMAGES, Length(12), plan=result.plan, way=way)[0] for _ in range(2)
    ]
    assert torch.equal(torch.rand(3), drawn)
    assert differing(bits(result.model), found[0].state_dict())
    assert not differing(bits(found[0]), found[1].state_dict())


def test_the_steps_that_minutes_became_give_the_same_again():
    model = WithNorms()
    result = ranks(model)
    timed = tt.tune(result, model, IMAGES, minutes=0.05)
    again = tt.tune(result, model, IMAGES, steps=timed.tuning.steps)
    assert timed.tuning.steps == again.tuning.steps >= 1
    assert not differing(bits(timed.model), again.model.state_dict())


def test_what_is_left_out_or_frozen_stays_to_the_bit():
    model = WithNorms()
    model.body.weight.requires_grad_(False)
    model.norm2.requires_grad_(False)
    result = ranks(model, exclude=["head"])
    before = bits(result.model)
    tuned, done = tune_network(result.model, model, IMAGES, Length(60), plan=result.plan, way=WITH_NORMS)
    assert done.best
    changed = {name.split(".")[0] for name in differing(before, tuned.state_dict())}
    assert changed == {"first", "norm1"}
    assert not tuned.norm2.weight.requires_grad


def test_without_a_plan_frozen_parameters_stay_too():
    model = WithNorms()
    model.head.requires_grad_(False)
    compressed = ranks(model, exclude=["head"]).model
    tuned = tt.tune(compressed, model, IMAGES, steps=20)
    assert not any(name.startswith("head") for name in differing(bits(compressed), tuned.state_dict()))


def test_the_boldest_way_that_gains_in_its_trial_is_taken(monkeypatch):
    monkeypatch.setattr("tuckertree.calibration.tuning.run._RATES", (1e6, 1e-3, 1e-4))
    model = WithNorms()
    result = ranks(model)
    tuning = tune_network(result.model, model, IMAGES, Length(30))[1]
    assert tuning.way == Way(batch_norm=False, rate=1e-3)
    assert tuning.after < tuning.before


def test_with_a_plan_steps_may_start_from_factors_that_do_not_make_up_for_each_other():
    model = WithNorms()
    result = ranks(model)
    images = TuningImages(Calibration(IMAGES), 64)
    run = TuningRun(result.model, model, images, result.plan, 0, lambda *_: None)
    alone = Way(False, 0.0, corrected=False)
    next(run._steps(run._settled(Length(1), alone)[1], 1))
    fitted = tt.calibrate(model, result.plan, images.learned, correction=False)
    torch.testing.assert_close(run._student(IMAGES), fitted(IMAGES), rtol=1e-3, atol=1e-4)
    next(run._steps(Way(False, 0.0), 1))
    torch.testing.assert_close(run._student(IMAGES), result.model(IMAGES), rtol=1e-3, atol=1e-4)
    way = Way(True, 3e-3, corrected=False)
    tuned, done = tune_network(result.model, model, IMAGES, Length(60), plan=result.plan, way=way)
    assert done.after < done.before
    before, after = output_distances(model, (result.model, tuned), IMAGES[-done.held_out :], in_units=True)
    assert (before, after) == pytest.approx((done.before, done.after), rel=1e-4)


class Block(nn.Sequential):
    """A residual block of two layers."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


@pytest.mark.parametrize(
    ("body", "places"),
    [
        (nn.Sequential(*(Block() for _ in range(6))), ["1.0", "1.1", "1.2", "1.3", "1.4", "1.5"]),
        (nn.Sequential(*(nn.Conv2d(8, 8, 3) for _ in range(3))), ["0", "1.0", "1.1", "1.2"]),
        (nn.Sequential(*(Block() for _ in range(60))), [f"1.{number}" for number in range(3, 60, 4)]),
    ],
)
def test_features_are_compared_at_the_ends_of_blocks_or_else_of_layers(body, places):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), body, nn.Flatten(), nn.LazyLinear(4))
    model(IMAGES[:2])
    found = Imitation(model, IMAGES[:2]).places
    outputs = {}
    for name in found:
        model.get_submodule(name).register_forward_hook(lambda m, x, y, name=name: outputs.update({name: y}))
    model(IMAGES[:2])
    assert len({id(y) for y in outputs.values()}) == len(found)  # none is compared twice
    assert found == places


def test_a_network_that_takes_no_gradient_at_all_is_tuned_and_still_takes_none():
    model = WithNorms().requires_grad_(False)
    tuned = tt.tune(ranks(model), model, IMAGES, steps=20)
    assert tuned.tuning.best
    assert not any(p.requires_grad for p in tuned.model.parameters())


def test_where_nothing_is_gained_nothing_changes_and_it_is_said():
    model = WithNorms()
    compressed = copy.deepcopy(model)
    with pytest.warns(CalibrationWarning, match="nothing changed"):
        tuned, done = tune_network(compressed, model, IMAGES, Length(5))
    assert (done.best, done.before, done.after) == (0, 0.0, 0.0)
    assert not differing(bits(compressed), tuned.state_dict())


def test_where_the_loss_is_not_finite_the_best_state_so_far_is_kept_and_it_is_said():
    model = WithNorms()
    result = ranks(model)
    with pytest.warns(CalibrationWarning, match="NaN or infinite at step"):
        tuned, done = tune_network(result.model, model, IMAGES, Length(40), way=Way(False, 1e30))
    assert not differing(bits(result.model), tuned.state_dict()) or done.after < done.before


def test_an_interruption_keeps_the_best_state_so_far_and_is_said():
    model = WithNorms()
    result = ranks(model)

    def interrupt(doing, done, total):
        if doing.startswith("tuning") and done == 15:
            raise KeyboardInterrupt

    with pytest.warns(CalibrationWarning, match="interrupted after 15 steps"):
        tuned, done = tune_network(result.model, model, IMAGES, Length(20), way=FROZEN, tick=interrupt)
    assert done.interrupted
    assert 0 < done.best <= 15
    before, after = output_distances(model, (result.model, tuned), IMAGES[-32:])
    assert after < before


@pytest.mark.parametrize("way", [FROZEN, WITH_NORMS, None])
@pytest.mark.parametrize("stop", [3, 15, 20])
def test_a_run_that_was_interrupted_goes_on_to_the_bits_it_would_have_come_to(way, stop, tmp_path):
    model = WithNorms()
    result = ranks(model)
    kept = tmp_path / "run.ckpt"

    def tuned(steps=20, tick=lambda *_: None, **options):
        return tune_network(result.model, model, IMAGES, Length(steps), way=way, tick=tick, **options)

    def interrupt(doing, done, total):
        if doing.startswith("tuning") and done == stop:
            raise KeyboardInterrupt

    with pytest.warns(CalibrationWarning, match="interrupted after"):
        tuned(tick=interrupt, checkpoint=kept)
    with pytest.raises(UsageError, match=r"another run \(steps 20 there, 21 here\)"):
        tuned(21, checkpoint=kept)
    looked = []
    network, done = tuned(tick=lambda doing, done, total: looked.append(done), checkpoint=kept)
    whole, alone = tuned()
    assert not differing(bits(whole), network.state_dict())
    assert (done.after, done.best, done.way) == (alone.after, alone.best, alone.way)
    assert done.course == alone.course
    assert min(looked) >= stop  # the step at which it was interrupted was not kept any more
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 2, 3, 10, 65])
def test_few_images_are_enough_to_run_and_never_make_it_worse(count):
    model = WithNorms()
    result = ranks(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        tuned = tt.tune(result, model, IMAGES[:count], steps=5)
    assert tuned.tuning.after <= tuned.tuning.before
    assert tuned.tuning.images + tuned.tuning.held_out == count
    if count == 1:
        assert not differing(bits(result.model), tuned.model.state_dict())


@pytest.mark.parametrize(
    "returned",
    [
        lambda x: {"logits": x, "classes": x.argmax(1)},
        lambda x: SimpleNamespace(logits=x, aux=None),
        lambda x: (x[:, :4], [x[:, 4:]]),
        lambda x: x.unflatten(1, (2, 5)) * torch.tensor([[1.0], [1000.0]]),
    ],
)
def test_any_structure_of_floating_point_outputs_is_tuned(returned):
    model = WithNorms(returned)
    tuned = tt.tune(ranks(model), model, IMAGES, steps=20)
    assert tuned.tuning.after < tuned.tuning.before


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda x: x.argmax(1), "without floating-point outputs"),
        (None, "no derivative leads"),
        (lambda x: x[x > 0], "sizes of the outputs depend"),
    ],
)
def test_a_network_that_cannot_be_tuned_is_refused_in_one_line(returned, message):
    model = WithNorms(returned) if returned else Undifferentiated()
    with pytest.raises(tt.TuckertreeError, match=message) as caught:
        tt.tune(ranks(model), model, IMAGES, steps=5)
    assert "\n" not in str(caught.value)


def test_compress_refuses_it_before_any_work_is_done():
    model = WithNorms(lambda x: x.argmax(1))
    with pytest.raises(tt.TuckertreeError, match="without floating-point outputs"):
        ranks(model, calibration=IMAGES, tune=5)
    with pytest.raises(tt.UsageError, match="give calibration too"):
        ranks(WithNorms(), tune=5)


def test_compress_keeps_what_is_calibrated_where_outputs_have_no_distance():
    model = WithNorms(lambda x: x[x > 0])
    with pytest.warns(CalibrationWarning) as caught:
        result = ranks(model, calibration=IMAGES, tune=5)
    assert any("not tuned: the sizes of the outputs" in str(each.message) for each in caught)
    assert result.tuning is None
    assert result.plan.compressed


def test_another_network_in_the_place_of_the_original_is_refused():
    model = WithNorms()
    with pytest.raises(tt.TuckertreeError, match="plan"):
        tt.tune(ranks(model), networks.small_cnn(), IMAGES, steps=3)
    with pytest.raises(tt.UsageError, match="original"):
        tt.tune(ranks(model), None, IMAGES, steps=3)


def test_half_precision_is_tuned_in_single_and_given_back_in_half():
    model = WithNorms().to(torch.bfloat16)
    result = tt.compress(model, IMAGES[:1].to(torch.bfloat16), tt.Ranks({"*": 4}))
    tuned = tt.tune(result, model, IMAGES, steps=20)
    assert {p.dtype for p in tuned.model.parameters()} == {torch.bfloat16}
    before, after = output_distances(model, (result.model, tuned.model), IMAGES[-32:])
    assert after < before


@pytest.mark.filterwarnings("ignore::tuckertree.calibration.CalibrationWarning")
def test_compress_tunes_after_the_calibration_and_says_so(tmp_path):
    model = WithNorms()
    result = ranks(model, calibration=IMAGES, tune="20")
    assert "tuning" in result.seconds
    assert result.tuning.steps == 20
    assert "tuned       " in str(result)
    loaded = tt.load(result.save(tmp_path / "net"), into=model)
    assert torch.equal(loaded(IMAGES), result.model(IMAGES))
    report = json.loads((tmp_path / "net" / "report.json").read_text())
    assert report["tuning"]["steps"] == 20
    assert report["tuning"]["after"] <= report["tuning"]["before"]


def test_an_onnx_file_is_tuned_and_written_with_all_that_changed(tmp_path):
    pytest.importorskip("onnxruntime")
    model = WithNorms()
    for norm in (model.norm1, model.norm2):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    file = tt.export(
        nn.Sequential(model, nn.Linear(10, 6)).eval(), tmp_path / "net.onnx", IMAGES[:1], dynamic="batch"
    ).path
    result = tt.compress(file, rule=tt.Ranks({"*": 4}))
    tuned = tt.tune(result, None, IMAGES, steps=40)
    assert tuned.tuning.after < tuned.tuning.before
    written = tuned.save(tmp_path / "tuned.onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(written))
    name = session.get_inputs()[0].name
    (y,) = session.run(None, {name: IMAGES[:8].numpy()})
    (ours,) = tuned.model(IMAGES[:8]).values()
    torch.testing.assert_close(torch.from_numpy(y), ours.detach(), rtol=1e-3, atol=1e-4)
    assert tuned.tuning.batch == 64
    assert result.output.error != tuned.output.error
    assert result.tuning is None


class Viewing(WithNorms):
    """Takes its features apart as if their channels came first in memory."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.first(x)).relu()
        return self.head(self.body(x).view(len(x), -1).reshape(len(x), 24, -1).mean(2))


@pytest.mark.parametrize(("kind", "laid"), [(WithNorms, True), (Viewing, False)])
def test_steps_are_made_with_channels_last_in_memory_where_the_network_runs_so(kind, laid):
    model = kind()
    compressed = ranks(model).model
    run = TuningRun(compressed, model, TuningImages(Calibration(IMAGES), 64), None, 0, lambda *_: None)
    for network in (run._student, run._original):
        kernels = [
            m.weight for m in network.modules() if isinstance(m, nn.Conv2d) and m.weight[0].numel() > 64
        ]
        assert all(w.is_contiguous(memory_format=torch.channels_last) == laid for w in kernels)
    tuned = tt.tune(compressed, model, IMAGES, steps=10)
    assert all(p.is_contiguous() for p in (*model.parameters(), *tuned.parameters()))
    assert differing(bits(compressed), tuned.state_dict())


@pytest.mark.filterwarnings("ignore::tuckertree.calibration.CalibrationWarning")
def test_compress_fits_nothing_to_the_images_by_which_the_best_state_is_chosen():
    model = WithNorms()
    result = ranks(model, calibration=IMAGES, tune=20)
    held = result.tuning.held_out
    fitted = tt.calibrate(model, result.plan, IMAGES[:-held])
    before = output_distances(model, (fitted,), IMAGES[-held:], in_units=True)[0]
    assert result.tuning.before == pytest.approx(before, rel=1e-4)
