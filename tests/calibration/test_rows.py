"""Networks in which a layer sees rows that its values have chosen, other ones each time, or none."""

import pytest
import torch
from torch import Tensor, nn

import tuckertree as tt
from tests.calibration.cases import generator
from tuckertree.calibration import CalibrationWarning, calibrate, output_distances
from tuckertree.calibration.distances import NO_NEARER
from tuckertree.calibration.moments import captured_inputs
from tuckertree.calibration.pairs import APART
from tuckertree.core.layers import METHODS
from tuckertree.planning import take_inventory

IMAGES = torch.rand(48, 3, 10, 10, generator=generator())
pytestmark = [
    pytest.mark.filterwarnings("ignore:fewer calibration patches"),
    pytest.mark.filterwarnings("ignore:not calibrated"),
]


class Rows(nn.Module):
    """Two convolutions, whose positions are the rows of the linear layer ``fc``."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.fc = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3), nn.Linear(32, 32)
        self.head = nn.Linear(32, 10)

    def rows(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu()).movedim(1, -1).flatten(1, 2)


class Masked(Rows):
    def forward(self, x: Tensor) -> Tensor:
        rows = self.rows(x)
        chosen = rows.sum(-1) > 0
        return rows.masked_scatter(chosen[..., None], self.fc(rows[chosen])).mean(1)


class Best(Rows):
    """As many rows of every image in both networks, but not the same ones."""

    def forward(self, x: Tensor) -> Tensor:
        rows = self.rows(x)
        best = rows.sum(-1).topk(16, dim=1).indices
        return self.fc(rows.gather(1, best[..., None].expand(-1, -1, 32))).relu().mean(1)


class Ordered(Rows):
    """The images of a batch in the order of a value, which code reads."""

    def forward(self, x: Tensor) -> Tensor:
        rows = sorted(self.rows(x), key=lambda image: image.sum().item())
        return self.fc(torch.stack(rows)).mean(1)


class Repeated(Rows):
    """Calls a layer as often as a value says."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.rows(x).mean(1)
        for _ in range(1 + int(1000 * y[0, 0].abs()) % 2):
            y = self.fc(y).relu()
        return y


CHOOSING = [Masked, Best, Ordered, Repeated]


@pytest.mark.filterwarnings("ignore:fitting does not bring")
@pytest.mark.parametrize("activations", [0, 2**30])
@pytest.mark.parametrize("build", CHOOSING)
def test_a_layer_that_sees_other_rows_in_the_two_networks_is_fitted_to_the_originals_inputs(
    build, activations
):
    model = build().eval()
    plan = tt.compress(model, IMAGES[:1], energy=0.6).plan
    notes: dict[str, str] = {}
    fitted = calibrate(model, plan, IMAGES, notes=notes, activations=activations)
    if build is Repeated and f"as decomposed: {NO_NEARER}" in notes.values():
        return  # a value decides how often, and the images held out are few
    assert notes == {"fc": f"fitted to the original's inputs: {APART}"}
    before, after = output_distances(model, (tt.apply(model, plan), fitted), IMAGES)
    assert after < before


class Fixed(Rows):
    """Moves rows, and reads values, as no image changes: windows, a mask that nothing fails, a table of indices."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(36).flip(0))

    def forward(self, x: Tensor) -> Tensor:
        rows = self.rows(x).roll(3, 1)[:, self.table]
        rows = torch.cat([rows[:, 18:], rows[:, :18]], 1)
        rows = rows * (rows > 0)
        if rows.isnan().any():
            raise AssertionError
        return self.fc(rows.sort(dim=-1).values).max(1).values


def test_rows_that_no_value_moves_are_paired():
    model = Fixed().eval()
    notes: dict[str, str] = {}
    calibrate(model, tt.compress(model, IMAGES[:1], energy=0.6).plan, IMAGES, notes=notes)
    assert not notes


@pytest.mark.parametrize("build", [Masked, Best])
def test_the_way_to_a_layer_is_that_of_its_rows(build):
    """Where the same rows are chosen in both networks, they are known to be the same, and where not, not."""
    model, near, far = (build().eval() for _ in range(3))
    with torch.no_grad():
        near.b.weight.mul_(2)
        near.b.bias.mul_(2)
        far.b.weight.neg_()
    layers = [layer for layer in take_inventory(model, IMAGES[:1]).layers if layer.name == "fc"]
    (one,), (two,), (three,) = (
        captured_inputs(network, layers, IMAGES[:4], ["a", "b", "fc"]) for network in (model, near, far)
    )
    assert one.control_flow == two.control_flow != three.control_flow


class Never(Rows):
    def forward(self, x: Tensor) -> Tensor:
        rows = self.rows(x)
        return rows.mean(1) + self.fc(rows[rows.sum(-1) > 1e9]).sum()


class NotFinite(Rows):
    def forward(self, x: Tensor) -> Tensor:
        rows = self.rows(x).mean(1)
        return rows + self.fc(rows / 0).nan_to_num(0, 0, 0)


@pytest.mark.parametrize(
    ("build", "reason"),
    [(Never, "not called on the calibration images"), (NotFinite, "its input holds NaN or infinite values")],
)
def test_a_layer_that_sees_nothing_of_use_is_left_as_decomposed_and_the_plan_says_so(build, reason):
    model = build().eval()
    with pytest.warns(CalibrationWarning, match=f"not calibrated: fc, {reason}"):
        result = tt.compress(model, IMAGES[:1], tt.Energy(0.6), calibration=IMAGES)
    (row,) = [layer for layer in result.plan.layers if layer.name == "fc"]
    assert f"; as decomposed: {reason}" in row.reason
    plain = tt.apply(model, result.plan)
    assert torch.equal(result.model.fc[0].weight, plain.fc[0].weight)


def test_a_network_whose_only_compressed_layer_is_not_called_is_compressed():
    result = tt.compress(Never().eval(), IMAGES[:1], tt.Energy(0.6), include="fc", calibration=IMAGES)
    assert [layer.name for layer in result.plan.compressed] == ["fc"]


@pytest.mark.parametrize("build", [Never, NotFinite])
@pytest.mark.parametrize("objective", ["moments", "sensitivity"])
def test_a_layer_that_sees_nothing_of_use_is_weighed_by_its_weight(build, objective):
    rule = tt.Budget(params=0.4)
    result = tt.compress(build().eval(), IMAGES[:1], rule, calibration=IMAGES, objective=objective)
    assert result.plan.parameters[1] <= 0.4 * result.plan.parameters[0]


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.n, self.b = nn.Conv2d(3, 32, 3, bias=False), nn.BatchNorm2d(32), nn.Conv2d(32, 5, 3)

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        found = self.b(self.n(self.a(x)).relu()).flatten(2).mT
        found = [f[f[:, 4] > f[:, 4].mean()] for f in found]
        return [{"boxes": f[:, :4], "scores": f[:, 4]} for f in found]


@pytest.mark.parametrize("rule", [tt.Energy(0.7), tt.Budget(macs=0.5)])
def test_outputs_that_differ_in_size_leave_batch_norm_as_it_is_and_it_is_said(rule):
    model = Detector().eval()
    with pytest.warns(CalibrationWarning, match="not taken anew: the sizes of the outputs depend on their v"):
        result = tt.compress(model, IMAGES[:1], rule, calibration=IMAGES, methods=METHODS)
    assert torch.equal(result.model.n.running_var, model.n.running_var)
    with pytest.raises(tt.TuckertreeError, match="sensitivity to a layer has no measure"):
        tt.compress(model, IMAGES[:1], tt.Budget(0.5), calibration=IMAGES, objective="sensitivity")


class NoDerivative(Rows):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.fc(self.rows(x)).mean(1)


def test_without_derivatives_the_default_objective_is_moments_and_one_asked_for_is_refused():
    model = NoDerivative().eval()
    with pytest.warns(CalibrationWarning, match="no derivative .* the objective is moments instead"):
        result = tt.compress(model, IMAGES[:1], tt.Budget(0.6), calibration=IMAGES)
    assert result.plan.rule["objective"] == "moments"
    with pytest.raises(tt.TuckertreeError, match=r"use the objective moments$"):
        tt.compress(model, IMAGES[:1], tt.Budget(0.6), calibration=IMAGES, objective="outputs")


class Shifted(Rows):
    """Takes images in groups of eight alone."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rows(x).unflatten(0, (-1, 8)).roll(1, 1).flatten(0, 1)).mean(1)


@pytest.mark.filterwarnings("ignore:BatchNorm statistics")
@pytest.mark.parametrize(
    "rule", [tt.Energy(0.8), tt.Budget(params=0.8)], ids=lambda rule: type(rule).__name__
)
def test_a_model_that_takes_no_single_image_is_calibrated(rule):
    source = [IMAGES[start : start + 8] for start in range(0, 48, 8)]
    result = tt.compress(Shifted().eval(), IMAGES[:8], rule, calibration=source)
    assert result.plan.compressed


class Mapped(Rows):
    """Calls a layer where torch hides its values."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.func.vmap(self.fc)(self.rows(x)).mean(1)


@pytest.mark.parametrize(
    "rule", [tt.Energy(0.8), tt.Budget(params=0.95)], ids=lambda rule: type(rule).__name__
)
def test_a_layer_whose_values_are_hidden_is_left_as_decomposed(rule):
    result = tt.compress(Mapped().eval(), IMAGES[:2], rule, calibration=IMAGES, exclude=("a", "b"))
    (layer,) = result.plan.compressed
    assert "not called on the calibration images" in layer.reason


def test_calibration_compiles_nothing():
    graphs = []
    model = torch.compile(Fixed().eval(), backend=lambda graph, _: graphs.append(graph) or graph.forward)
    assert tt.compress(model, IMAGES[:2], energy=0.8, calibration=IMAGES).plan.compressed
    assert not graphs
