import pytest
import torch
from hypothesis import given
from torch import nn

from tests.core.layers.cases import cases
from tests.strategies import examples
from tuckertree.core.layers import LayerSpec


@examples(100)
@given(cases())
def test_a_spec_says_everything_about_a_layer_but_its_weights(case):
    spec = LayerSpec.of(case.layer)
    twin = spec.build(dtype=torch.float64)
    assert (type(twin), str(twin)) == (type(case.layer), str(case.layer))
    assert LayerSpec.of(twin) == spec
    twin.load_state_dict(case.layer.state_dict())
    assert spec.weights == twin.weight.numel()


@examples(60)
@given(cases())
def test_weight_inverts_kernel(case):
    spec = LayerSpec.of(case.layer)
    kernel = spec.kernel(case.layer.weight)
    assert kernel.shape == (spec.groups, *spec.nontrivial_shape)
    assert torch.equal(spec.weight(kernel), case.layer.weight)


def test_kernels_have_t_before_c_for_plain_and_transposed_layers():
    plain, transposed = nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(4, 6, 3, groups=2)
    assert torch.equal(LayerSpec.of(plain).kernel(plain.weight)[1, 2, 0], plain.weight[5, 0])
    assert torch.equal(LayerSpec.of(transposed).kernel(transposed.weight)[1, 2, 0], transposed.weight[2, 2])


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (nn.Linear(2, 2), "linear"),
        (nn.Conv1d(2, 2, 1), "conv1d"),
        (nn.Conv3d(2, 2, 1), "conv3d"),
        (nn.ConvTranspose2d(2, 2, 1), "conv_transpose2d"),
    ],
)
def test_kinds_are_named(layer, kind):
    assert LayerSpec.of(layer).kind == kind
