import warnings

import pytest
import torch
from hypothesis import given
from torch import nn

from tests import networks
from tests.calibration.cases import generator
from tests.core.layers.cases import cases
from tests.strategies import examples
from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.calibration import CalibrationWarning, collect_moments
from tuckertree.core.layers import LayerSpec
from tuckertree.planning import take_inventory

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
IMAGES = torch.randn(24, 3, 16, 16, generator=generator())


def moments(model, images, **options):
    layers = [layer for layer in take_inventory(model, images[:1]).layers if not layer.skip_reason]
    return {layer.name: moment for layer, moment in collect_moments(model, layers, images, **options)}


@examples(150)
@given(cases(batches=((1,), (2,))))
@pytest.mark.filterwarnings("ignore:fewer calibration patches")
def test_the_moment_gives_the_mean_squared_output_of_every_kind_of_layer(case):
    """For any kernel: so all of Sigma is right, stride, padding, groups and transposition included."""
    layer = case.layer
    model = nn.Sequential(layer)
    if not moments_apply(layer):
        return
    spec = LayerSpec.of(layer)
    with torch.no_grad():
        y = layer(case.x)
        y = (
            y - layer.bias.view(-1, *(1 for _ in layer.stride))
            if hasattr(layer, "stride") and spec.bias
            else y
        )
        y = y - layer.bias if not spec.order and spec.bias else y
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        summed = [m for _, m in raw_moments(model, case.x)]
    (moment,) = summed
    matrix = spec.kernel(layer.weight.detach()).flatten(2)
    expected = float((y**2).sum()) / moment.samples
    assert float((matrix * (matrix @ moment.patch)).sum()) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    axis = 1 if spec.order else -1
    mean = y.movedim(axis, -1).flatten(0, -2).mean(0)
    torch.testing.assert_close(torch.einsum("gtk,gk->gt", matrix, moment.mean).flatten(), mean)


def moments_apply(layer) -> bool:
    return (
        not take_inventory(nn.Sequential(layer), input_of(layer))
        .layers[0]
        .skip_reason.startswith("depthwise")
    )


def input_of(layer):
    spec = LayerSpec.of(layer)
    return torch.zeros(1, spec.in_channels, *(12,) * spec.order, dtype=torch.float64)


def raw_moments(model, x):
    from tuckertree.calibration.moments import moment_chunks

    layers = take_inventory(model, x[:1]).layers
    return [pair for chunk in moment_chunks(model, layers, x, positions=10**6) for pair in chunk]


@pytest.mark.filterwarnings("ignore:fewer calibration patches")
def test_positions_are_subsampled_the_same_way_every_time_whatever_the_chunks():
    model = networks.small_cnn()
    one = moments(model, IMAGES, positions=20)
    many = moments(model, IMAGES, positions=20, memory=8 * 216**2)
    other = moments(model, IMAGES, positions=20, seed=1)
    assert one["2"].samples == 24 * 20
    assert moments(model, IMAGES, positions=10**6)["2"].samples == 24 * 64
    for name, moment in one.items():
        torch.testing.assert_close(moment.patch, many[name].patch if name in many else moment.patch)
    assert not torch.equal(one["2"].patch, other["2"].patch)


def test_a_layer_whose_moment_does_not_fit_is_left_out_with_a_warning():
    images = IMAGES.repeat(3, 1, 1, 1)
    with pytest.warns(CalibrationWarning, match="moments of 2 do not fit in 0 MiB"):
        found = moments(networks.small_cnn(), images, memory=8 * 40**2)
    assert list(found) == ["0", "5", "8"]


@pytest.mark.parametrize("source", [
    IMAGES,
    [IMAGES[:10], IMAGES[10:]],
    [(IMAGES[:10], torch.zeros(10, dtype=torch.long)), [IMAGES[10:], torch.zeros(14, dtype=torch.long)]],
    [{"input": IMAGES}],
    torch.utils.data.DataLoader(torch.utils.data.TensorDataset(IMAGES), batch_size=7),
    torch.utils.data.TensorDataset(IMAGES, torch.zeros(24, dtype=torch.long)),
])  # fmt: skip
def test_images_come_from_anything_that_holds_them(source):
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    (layer,) = take_inventory(model, IMAGES[:1]).layers
    ((_, moment),) = collect_moments(model, [layer], source, positions=10**6)
    patches = torch.nn.functional.unfold(IMAGES, 3).double().mT.reshape(-1, 27)
    torch.testing.assert_close(moment.patch[0], patches.mT @ patches / len(patches), rtol=1e-5, atol=1e-6)
    blocks = moment.patch[0].reshape(3, 9, 3, 9)
    torch.testing.assert_close(moment.channel[0], sum(blocks[:, k, :, k] for k in range(9)) / 9)
    root = moment.root()
    torch.testing.assert_close(root @ root, moment.patch)


def test_a_module_called_twice_is_seen_twice_and_the_forward_ends_after_it():
    model = networks.SharedModule()
    layers = take_inventory(model, IMAGES[:1]).layers
    found = {layer.name: moment for layer, moment in collect_moments(model, layers, IMAGES, positions=5)}
    assert found["a"].samples == 2 * 24 * 5
    unreachable = nn.Sequential(nn.Conv2d(3, 4, 3), _Raises())
    layers = take_inventory(unreachable[:1], IMAGES[:1]).layers
    assert len(list(collect_moments(unreachable, layers, IMAGES))) == 1


class _Raises(nn.Module):
    def forward(self, x):
        raise AssertionError


class EndsEarly:
    def __init__(self) -> None:
        self.left = [3, 1]  # batches at each pass

    def __iter__(self):
        return iter([IMAGES[:8]] * self.left.pop(0))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ([], TuckertreeError, "there are no calibration images"),
        (IMAGES[:0], TuckertreeError, "there are no calibration images"),
        (iter([IMAGES]), UsageError, "can be iterated only once"),
        (IMAGES[0, 0, 0], UsageError, r"this tensor is \[16\]"),
        (3, UsageError, "cannot come from a int"),
        (["cat.png"], TuckertreeError, "not str"),
        (IMAGES[:, :1], TuckertreeError, "does not run on the calibration images .24, 1, 16, 16. float32"),
        (IMAGES * float("nan"), TuckertreeError, "^0: its input holds NaN or infinite values"),
        (IMAGES * 1e30, TuckertreeError, "^0: its input is too large"),
    ],
)
def test_unusable_images_are_refused_in_one_line(source, error, message):
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    layers = take_inventory(model, IMAGES[:1]).layers
    with pytest.raises(error, match=message) as caught:
        list(collect_moments(model, layers, source))
    assert "\n" not in str(caught.value)


def test_a_source_that_ends_early_is_noticed():
    model = networks.small_cnn()
    layers = take_inventory(model, IMAGES[:1]).layers
    with pytest.raises(TuckertreeError, match="ended after 8 images; it gave 24 the first time"):
        list(collect_moments(model, layers[:2], EndsEarly(), memory=8 * 144**2))


def test_few_patches_are_warned_of_once_and_shrunk_to_a_regular_moment():
    model = networks.small_cnn()
    with pytest.warns(CalibrationWarning, match=r"in 4 layers \(0, 2, 5, \.\.\.\)") as record:
        found = moments(model, IMAGES[:2], positions=4)
    assert len(record) == 1
    assert torch.linalg.eigvalsh(found["2"].patch).amin() > 0
    assert float(found["2"].patch.diagonal(dim1=1, dim2=2).sum()) > 0
