"""A budget said in accuracy: kept on images that took no part, proved, or refused with the nearest."""

import copy
import json
import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import tuckertree as tt
from tests import networks
from tuckertree._base.progress import no_progress
from tuckertree.calibration import Calibration, output_distances
from tuckertree.compression import choosing
from tuckertree.compression.accuracy.loss import Loss
from tuckertree.compression.accuracy.parts import Part
from tuckertree.compression.accuracy.trials import PROOF, SEARCH, UnlabelledTrial

IMAGE = torch.zeros(1, 3, 8, 8)
few = pytest.mark.filterwarnings("ignore:fewer calibration patches")


def images(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 8, 8, generator=generator).cumsum(2) / 2


def classifier():
    """A classifier of falling spectra that answers every class."""
    model = networks.small_cnn()
    with torch.no_grad():
        for layer in (model[0], model[2], model[5]):
            left, values, right = torch.linalg.svd(layer.weight.flatten(1), full_matrices=False)
            falling = values * 0.6 ** torch.arange(len(values))
            layer.weight.copy_(2 * ((left * falling) @ right).view_as(layer.weight))
        model[-1].bias -= model(images(100, 0)).mean(0)
    return model


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture(scope="module")
def labelled(model):
    """Images that the network is sure of, its answers as labels but for one in ten, sorted by label."""
    x = images(900, 1)
    with torch.no_grad():
        logits = model(x)
    first, second = logits.topk(2, dim=1).values.T
    sure = (first - second).topk(300).indices
    x, labels = x[sure], logits[sure].argmax(1)
    assert len(labels.unique()) > 4
    labels[::10] = (labels[::10] + 1) % 10
    order = labels.argsort(stable=True)
    return x[order], labels[order]


@pytest.fixture(scope="module")
def calibration():
    return images(64, 2)


def drop(model, small, pairs):
    with torch.no_grad():
        right = [[net(x).argmax(1) == y for x, y in pairs] for net in (model, small)]
    before, after = (100 * torch.cat(each).double().mean() for each in right)
    return float(before - after)


def compressed(model, rule, **options):
    return tt.compress(model, IMAGE, rule, progress=False, **options)


@pytest.fixture(scope="module")
def result(model, calibration, labelled):
    return compressed(model, tt.Budget(max_drop=4.0), calibration=calibration, data=labelled)


def test_the_network_keeps_the_accuracy_on_images_that_took_no_part_in_the_search(result, model, labelled):
    found = result.accuracy
    proof, search = (list(Part([labelled], (1, 1), part, 64)) for part in (PROOF, SEARCH))
    assert found.held
    assert found.loss.lost == pytest.approx(drop(model, result.model, proof), abs=1e-9)
    assert found.loss.lost <= 4
    assert found.loss.images == sum(len(y) for _, y in proof) == 150
    assert {step.loss.images for step in found.steps if step.loss} == {sum(len(y) for _, y in search)}
    assert found.loss.low <= found.loss.lost <= found.loss.high
    assert result.plan.macs[1] < result.plan.macs[0]


def test_every_step_is_reported_and_the_cheapest_that_clearly_held_was_looked_at_first(result):
    steps, found = result.accuracy.steps, result.accuracy
    held = [step for step in steps if step.held]
    assert all(step.loss.clearly_within(4.0) == step.held for step in steps if step.loss)
    assert found.proofs[0].share == min(step.share for step in held[: len(held)])
    assert found.proofs[-1].macs == result.plan.macs
    kept = json.loads(json.dumps(result.summary()))["accuracy"]
    assert [step["share"] for step in kept["steps"]] == [step.share for step in steps]
    assert kept["held"] is True
    assert result.plan.rule["max_drop"] == 4.0
    lines = str(result)
    assert f"accuracy    {result.accuracy.loss.top1[0]:.2f} %" in lines
    assert "step 1 " in lines


def test_what_was_too_much_by_a_little_is_told_from_what_is_little_enough(result):
    """Some network was too small and one was not: the search did not stop where it began."""
    assert {step.held for step in result.accuracy.steps} == {True, False}


@pytest.mark.parametrize("cheapest", ["macs", "params"])
def test_what_is_to_be_cheapest_is_what_is_bisected(model, calibration, labelled, cheapest):
    rule = tt.Budget(max_drop=4.0, cheapest=cheapest)
    result = compressed(model, rule, calibration=calibration, data=labelled)
    sizes = {"macs": result.plan.macs, "params": result.plan.parameters}[cheapest]
    assert sizes[1] <= result.accuracy.proofs[-1].share * sizes[0]
    assert result.plan.rule["cheapest"] == cheapest


def test_agreement_needs_no_labels_and_divides_the_images(model):
    given = images(160, 3)
    result = compressed(model, tt.Budget(agreement=0.9), calibration=given)
    proof = torch.cat(list(Part([given], (1, 1, 2), PROOF, 64)))
    with torch.no_grad():
        equal = (model(proof).argmax(1) == result.model(proof).argmax(1)).double().mean()
    assert result.accuracy.loss.images == len(proof) == 40
    assert 1 - result.accuracy.loss.lost == pytest.approx(float(equal))
    assert equal >= 0.9


def test_labels_are_not_looked_at_for_agreement(model, calibration, labelled):
    rule = tt.Budget(agreement=0.9)
    one, other = (
        compressed(model, rule, calibration=calibration, data=(labelled[0], labels))
        for labels in (labelled[1], torch.full_like(labelled[1], 77))
    )
    assert one.accuracy == other.accuracy


@few
def test_outputs_that_are_no_classes_agree_by_their_distance():
    model = nn.Sequential(*classifier()[:4]).eval()
    given = images(64, 4)
    result = tt.compress(model, IMAGE, tt.Budget(agreement=0.8), calibration=given, progress=False)
    proof = torch.cat(list(Part([given], (1, 1, 2), PROOF, 8)))
    (distance,) = output_distances(model, (result.model,), Calibration(proof, 8), in_units=True)
    assert result.accuracy.loss.kind == "outputs"
    assert result.accuracy.loss.lost == pytest.approx(distance)
    assert distance <= 0.2


def test_candidates_are_surveyed_once_for_all_steps(model, calibration, labelled, monkeypatch):
    calls = []
    survey = choosing.survey_network
    monkeypatch.setattr(choosing, "survey_network", lambda *a, **k: calls.append(1) or survey(*a, **k))
    result = compressed(model, tt.Budget(max_drop=4.0), calibration=calibration, data=labelled)
    assert len(calls) == 1 < len(result.accuracy.steps)


def test_without_calibration_the_factors_come_from_the_weights_alone(model, labelled):
    result = compressed(model, tt.Budget(max_drop=6.0), data=labelled)
    again = tt.apply(model, result.plan)
    torch.testing.assert_close(again(labelled[0]), result.model(labelled[0]), rtol=1e-3, atol=1e-4)
    assert result.accuracy.held


@pytest.mark.filterwarnings("ignore:tuning")
def test_the_network_found_is_tuned_at_the_end_and_proved_as_it_is_then(model, calibration, labelled):
    rule = tt.Budget(max_drop=4.0)
    result = compressed(model, rule, calibration=calibration, data=labelled, tune=20)
    proof = list(Part([labelled], (1, 1), PROOF, 64))
    assert result.tuning.steps == 20
    assert result.accuracy.loss.lost == pytest.approx(drop(model, result.model, proof), abs=1e-9)


def test_the_same_again_gives_the_same_and_the_model_is_not_touched(model, calibration, labelled, result):
    before = copy.deepcopy(model.state_dict())
    again = compressed(model, tt.Budget(max_drop=4.0), calibration=calibration, data=labelled)
    assert again.accuracy == result.accuracy
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())


@pytest.mark.parametrize(
    "form",
    [
        lambda x, y: TensorDataset(x, y),
        lambda x, y: DataLoader(TensorDataset(x, y), batch_size=37),
        lambda x, y: list(zip(x.split(50), y.split(50), strict=True)),
        lambda x, y: [(x.numpy(), y.numpy())],
    ],
    ids=["data set", "loader", "batches", "arrays"],
)
def test_labelled_images_come_in_any_form(model, calibration, labelled, result, form):
    again = compressed(model, tt.Budget(max_drop=4.0), calibration=calibration, data=form(*labelled))
    assert again.accuracy.loss.lost == pytest.approx(result.accuracy.loss.lost)
    assert [step.share for step in again.accuracy.steps] == [step.share for step in result.accuracy.steps]


@few
def test_a_target_that_cannot_be_kept_is_refused_with_the_nearest(calibration):
    model = nn.Sequential(*classifier()[:4]).eval()
    rule = tt.Budget(agreement=1.0)
    with pytest.raises(
        tt.UnreachableTargetError,
        match=r"an agreement of 1 cannot be kept by this network; .* outputs .* away",
    ) as told:
        tt.compress(model, IMAGE, rule, calibration=calibration, progress=False)
    assert told.value.exit_code == 3
    assert str(told.value).count("\n") == 0
    nearest = told.value.nearest
    assert nearest.model(IMAGE).shape == model(IMAGE).shape
    assert 0 < nearest.accuracy.loss.lost < 0.1
    kept = tt.compress(
        model, IMAGE, tt.Budget(agreement=1.0, best_effort=True), calibration=calibration, progress=False
    )
    assert not kept.accuracy.held
    assert kept.accuracy.loss.lost == nearest.accuracy.loss.lost
    assert any("an agreement of 1 was not kept" in line for line in kept.warnings)


def test_too_few_images_to_tell_the_drop_are_warned_of(model, calibration, labelled):
    x, y = (each[::6] for each in labelled)
    result = compressed(
        model, tt.Budget(max_drop=2.0, best_effort=True), calibration=calibration, data=(x, y)
    )
    (warning,) = [line for line in result.warnings if "too few to tell" in line]
    assert "25 images are too few to tell a drop of at most 2 points of top-1; about " in warning


def test_labels_of_another_network_are_warned_of(model, calibration, labelled):
    wrong = (labelled[1] + 3) % 10
    rule = tt.Budget(max_drop=50.0)
    result = compressed(model, rule, calibration=calibration, data=(labelled[0], wrong))
    assert any("do the labels belong to this network?" in line for line in result.warnings)


class Reordered:
    """Labelled images in another order each time."""

    def __init__(self, x, y):
        self.pairs, self.turn = (x, y), 0

    def __iter__(self):
        self.turn += 1
        yield tuple(each.roll(self.turn, 0) for each in self.pairs)


def test_images_that_come_in_another_order_each_time_are_refused(model, calibration, labelled, monkeypatch):
    monkeypatch.setattr(Part.__init__, "__defaults__", (0,))  # too many to be held
    with pytest.raises(tt.UsageError, match="another order each time; give them in one order"):
        compressed(model, tt.Budget(max_drop=4.0), calibration=calibration, data=Reordered(*labelled))


X, Y = images(8, 5), torch.arange(8)
SHUFFLED = DataLoader(TensorDataset(X, Y), shuffle=True)


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        (tt.Budget(max_drop=1.0), {}, "a budget of max_drop needs labelled images: give compress"),
        (tt.Budget(agreement=0.9), {}, "a budget of agreement needs unlabelled images: give calibration"),
        (tt.Budget(macs=0.5), {"data": (X, Y)}, "labelled images belong to a budget of accuracy"),
        (tt.Budget(max_drop=1.0), {"data": iter([(X, Y)])}, "can be iterated only once"),
        (
            tt.Budget(max_drop=1.0),
            {"data": SHUFFLED},
            "another order each time; give a DataLoader without shuffle",
        ),
        (tt.Budget(agreement=0.9), {"calibration": SHUFFLED}, "give a DataLoader without shuffle"),
        (tt.Budget(agreement=0.9), {"calibration": X, "data": X}, "data and calibration are the same"),
        (
            tt.Budget(max_drop=1.0),
            {"data": [(X[:, :2], Y)]},
            "does not run on the (labelled|calibration) images",
        ),
        (tt.Budget(max_drop=1.0), {"data": 7}, "labelled images cannot come from a int"),
        (tt.Budget(max_drop=1.0), {"data": X}, "labelled images are pairs of batches"),
        (tt.Budget(max_drop=1.0), {"data": [(X, Y[:5])]}, "labelled images are pairs of batches"),
        (tt.Budget(max_drop=1.0), {"data": [(X, Y.float())]}, "labelled images are pairs of batches"),
        (tt.Budget(max_drop=1.0), {"data": [(X, Y + 5)]}, "does not exist for a network of 10 classes"),
        (tt.Budget(max_drop=1.0), {"data": [(X, Y - 20)]}, "these images have no labels"),
        (tt.Budget(max_drop=1.0), {"data": [(X[:1], Y[:1])]}, "two labelled images at least"),
        (tt.Budget(max_drop=1.0), {"data": []}, "there are no calibration images|two labelled images"),
        (tt.Budget(agreement=0.9), {"calibration": X[:1]}, "give more of them|no calibration images"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_images_that_cannot_serve_are_refused_in_one_line(model, rule, options, message):
    with pytest.raises(tt.TuckertreeError, match=message) as told:
        compressed(model, rule, **options)
    assert "\n" not in str(told.value)


def test_top1_of_a_network_that_is_no_classifier_is_refused():
    with pytest.raises(tt.TuckertreeError, match="top-1 needs a classifier"):
        compressed(networks.UNet().eval(), tt.Budget(max_drop=1.0), data=(X, Y))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_drop": 1.0, "macs": 0.5}, "a budget of accuracy stands alone"),
        ({"max_drop": 1.0, "latency": "2x"}, "a budget of accuracy stands alone"),
        ({"max_drop": 1.0, "agreement": 0.9}, "a budget of accuracy stands alone"),
        ({"max_drop": -0.1}, "max_drop is in points of top-1, at least 0 and below 100, not -0.1"),
        ({"max_drop": 100}, "below 100, not 100"),
        ({"max_drop": math.nan}, "not nan"),
        ({"max_drop": "1"}, "not '1'"),
        ({"max_drop": True}, "not True"),
        ({"agreement": 0}, r"agreement is a share in \(0, 1\] such as 0.99, not 0"),
        ({"agreement": 99}, "not 99"),
        ({"agreement": math.inf}, "not inf"),
        ({"max_drop": 1.0, "cheapest": "size"}, "cheapest can be macs, params, latency, not 'size'"),
        ({"macs": 0.5, "cheapest": "macs"}, "cheapest belongs to a budget of accuracy"),
        ({"cheapest": "macs"}, "a budget needs params, macs"),
        ({"max_drop": 1.0, "batch": 0}, "a batch holds at least one sample"),
    ],
    ids=str,
)
def test_a_budget_that_cannot_be_is_refused(fields, message):
    with pytest.raises(tt.UsageError, match=message):
        tt.Budget(**fields)


def test_a_plan_alone_has_no_accuracy(model, calibration):
    rule = tt.Budget(agreement=0.9)
    with pytest.raises(tt.UsageError, match="give it to compress"):
        tt.plan(model, IMAGE, rule, calibration=calibration)


def test_a_network_of_which_nothing_can_be_saved_is_refused(labelled):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 10)).eval()
    with pytest.raises(tt.UnreachableTargetError, match="nothing to compress"):
        compressed(model, tt.Budget(max_drop=1.0), data=labelled, exclude="1")


def test_nan_is_no_answer():
    wanted = torch.tensor([0, 0, -1])
    loss = Loss.of_equality((torch.tensor([0, -1, -1]) == wanted) & (wanted >= 0), 1.96)
    assert loss.lost == pytest.approx(2 / 3)


class Answers(nn.Module):
    """A network that gives the number of its class alone."""

    def __init__(self):
        super().__init__()
        self.model = classifier()

    def forward(self, x):
        return self.model(x).argmax(1)


@pytest.mark.filterwarnings("ignore")
def test_outputs_that_are_whole_numbers_have_no_agreement(calibration):
    with pytest.raises(tt.TuckertreeError, match=r"no agreement to keep|floating-point") as told:
        compressed(Answers(), tt.Budget(agreement=0.9), calibration=calibration)
    assert "\n" not in str(told.value)


def test_outputs_of_sizes_that_depend_on_values_have_no_agreement(calibration):
    trial = UnlabelledTrial(Calibration(calibration), (1, 1))
    trial.begin(nn.Conv2d(3, 4, 3), no_progress)
    with pytest.raises(tt.UsageError, match="no agreement to keep; give a budget of macs"):
        trial.loss(nn.Conv2d(3, 5, 3), SEARCH, 1.96)
