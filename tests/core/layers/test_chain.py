"""What a chain takes over from its layer besides the function, and how it behaves as a torch module."""

import copy

import pytest
import torch
from hypothesis import given
from torch import nn

from tests.core.layers.cases import FULL, cases
from tests.strategies import examples
from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.core.decomposition import decompose
from tuckertree.core.layers import LayerSpec, densify, empty_chain, factorize


def convolution(**attributes) -> nn.Conv2d:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Conv2d(6, 8, 3, padding=1, **attributes)


@pytest.mark.parametrize(
    ("layer", "method", "names"),
    [
        (nn.Linear(6, 6), "ht2", "reduce expand"),
        (nn.Conv1d(6, 6, 3), "ht2", "reduce horizontal expand"),
        (nn.Conv2d(6, 6, 3), "ht2", "reduce vertical horizontal expand"),
        (nn.ConvTranspose2d(6, 6, 3), "ht2", "reduce vertical horizontal expand"),
        (nn.Conv3d(6, 6, 3), "ht2", "reduce depth vertical horizontal expand"),
        (nn.Conv2d(6, 6, 3), "tucker2", "reduce core expand"),
        (nn.Conv2d(6, 6, 3), "spatial", "vertical horizontal"),
        (nn.Conv3d(6, 6, 3), "spatial", "core horizontal"),
        (nn.Conv2d(6, 6, 3), "svd", "filters expand"),
        (nn.Conv2d(6, 6, 1), "ht2", "reduce expand"),
        (nn.Conv2d(6, 6, (1, 7)), "ht2", "reduce horizontal expand"),
        (nn.Conv2d(6, 6, (7, 1)), "tucker2", "reduce vertical expand"),
        (nn.Conv3d(6, 6, (3, 1, 3)), "spatial", "depth horizontal"),
    ],
)
def test_stages_have_the_names_of_what_they_do(layer, method, names):
    cuts = {"ht2": names.count(" "), "tucker2": 2}.get(method, 1)
    chain = factorize(layer, method, (2,) * cuts)
    assert [name for name, _ in chain.named_children()] == names.split()
    assert [stage.name for stage in chain.stages] == names.split()


def test_state_dict_holds_one_weight_for_each_stage_and_the_bias_last():
    state = factorize(convolution(), "ht2", (2, 4, 3)).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "reduce.weight": (2, 6, 1, 1),
        "vertical.weight": (4, 2, 3, 1),
        "horizontal.weight": (3, 4, 1, 3),
        "expand.weight": (8, 3, 1, 1),
        "expand.bias": (8,),
    }


@examples(40)
@given(cases())
def test_weights_hold_the_factors_of_the_kernel(case):
    layer, _, method = case
    chain = factorize(layer, method, case.ranks(2))
    spec = LayerSpec.of(layer)
    cuts = tuple(range(len(spec.nontrivial_modes) + 1))
    if method == "ht2":
        expected = decompose(spec.kernel(layer.weight), chain.ranks, cuts)
        assert all(torch.equal(a, b) for a, b in zip(chain.factors(), expected, strict=True))
    rebuilt = empty_chain(spec, method, chain.ranks, dtype=torch.float64)
    rebuilt.set_factors(chain.factors())
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(rebuilt, chain, strict=True))


@examples(40)
@given(cases())
def test_parameters_are_contiguous_in_memory_of_their_own(case):
    layer, _, method = case
    chain = factorize(layer, method, case.ranks(2))
    before = copy.deepcopy(chain.state_dict())
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(7.0)
    for name, parameter in chain.named_parameters():
        assert parameter.is_contiguous()
        assert parameter.untyped_storage().nbytes() == parameter.numel() * parameter.element_size()
        assert torch.equal(parameter, before[name])


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.bfloat16, 4e-2), (torch.float64, 1e-12)]
)
@pytest.mark.parametrize("back", [False, True], ids=["factorize", "densify"])
def test_type_is_kept(dtype, tolerance, back):
    layer = convolution().to(dtype)
    converted = factorize(layer, "ht2", (FULL,) * 3)
    converted = densify(converted) if back else converted
    assert {parameter.dtype for parameter in converted.parameters()} == {dtype}
    x = torch.randn(1, 6, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.no_grad():
        torch.testing.assert_close(converted(x), layer(x), rtol=0, atol=tolerance)


@pytest.mark.parametrize("weight", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_frozen_parameters_stay_frozen(weight, bias):
    layer = convolution()
    layer.weight.requires_grad_(weight)
    layer.bias.requires_grad_(bias)
    chain = factorize(layer, "ht2", (2, 2, 2))
    assert {stage.weight.requires_grad for stage in chain} == {weight}
    assert chain.expand.bias.requires_grad is bias
    product = densify(chain)
    assert (product.weight.requires_grad, product.bias.requires_grad) == (weight, bias)


@pytest.mark.parametrize("training", [True, False])
def test_training_mode_is_kept(training):
    chain = factorize(convolution().train(training), "ht2", (2, 2, 2))
    assert {module.training for module in chain.modules()} == {training}
    assert densify(chain).training is training


@pytest.mark.parametrize(
    ("layer", "memory_format"),
    [
        (nn.Conv2d(6, 8, 3), torch.channels_last),
        (nn.ConvTranspose2d(6, 8, 3), torch.channels_last),
        (nn.Conv3d(6, 8, 3), torch.channels_last_3d),
    ],
)
def test_channels_last_is_kept(layer, memory_format):
    chain = factorize(layer.to(memory_format=memory_format), "tucker2", (4, 4))
    assert not chain.core.weight.is_contiguous()
    assert chain.core.weight.is_contiguous(memory_format=memory_format)


def test_a_copy_is_a_chain_that_shares_nothing():
    chain = factorize(convolution(), "ht2", (2, 3, 2))
    twin = copy.deepcopy(chain)
    assert (type(twin), twin.dense, twin.stages, twin.ranks) == (
        type(chain),
        chain.dense,
        chain.stages,
        chain.ranks,
    )
    with torch.no_grad():
        twin.reduce.weight.zero_()
    assert chain.reduce.weight.any()


def test_gradients_reach_every_stage():
    chain = factorize(convolution(), "ht2", (2, 3, 2))
    chain(torch.ones(1, 6, 5, 5)).square().sum().backward()
    assert all(parameter.grad.any() for parameter in chain.parameters())


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (convolution(stride=2, padding_mode="reflect"), torch.ones(2, 6, 8, 8)),
        (nn.ConvTranspose2d(6, 4, 3, stride=2), torch.ones(2, 6, 4, 4)),
        (nn.Linear(6, 4), torch.ones(2, 6)),
    ],
    ids=["conv2d", "conv_transpose2d", "linear"],
)
def test_a_chain_exports_to_a_graph_of_plain_operators(layer, x):
    order = len(LayerSpec.of(layer).nontrivial_modes)
    chain = factorize(layer, "ht2", (2,) * (order + 1)).eval()
    exported = torch.export.export(chain, (x,))
    torch.testing.assert_close(exported.module()(x), chain(x))
    assert exported.state_dict.keys() == chain.state_dict().keys()


@examples(40)
@given(cases())
def test_an_empty_chain_has_the_structure_of_a_factored_one_without_its_memory(case):
    layer, _, method = case
    chain = factorize(layer, method, case.ranks(3))
    empty = empty_chain(LayerSpec.of(layer), method, chain.ranks, device="meta", dtype=torch.float64)
    assert {parameter.device.type for parameter in empty.parameters()} == {"meta"}
    described, expected = (
        [(name, parameter.shape, parameter.dtype) for name, parameter in module.named_parameters()]
        for module in (empty, chain)
    )
    assert described == expected
    assert (type(empty), str(empty)) == (type(chain), str(chain))


def test_a_layer_with_a_bad_weight_is_refused_and_left_alone():
    layer = convolution()
    with torch.no_grad():
        layer.weight[0, 0, 0, 0] = torch.nan
    before = layer.weight.detach().clone()
    with pytest.raises(TuckertreeError, match="NaN or infinite"):
        factorize(layer, "ht2", (2, 2, 2))
    assert torch.equal(layer.weight.nan_to_num(), before.nan_to_num())


@pytest.mark.parametrize(
    ("layer", "method", "ranks", "message"),
    [
        (nn.Conv2d(6, 6, 3), "ht2", (2, 2), "3 positive ranks"),
        (nn.Conv2d(6, 6, 3), "ht2", (2, 0, 2), "3 positive ranks"),
        (nn.Conv2d(6, 6, (1, 7)), "spatial", (2,), "'spatial' does not exist for a conv2d"),
        (nn.Linear(6, 6), "cp", (2,), "'cp' does not exist for a linear"),
    ],
)
def test_what_does_not_fit_a_layer_is_refused(layer, method, ranks, message):
    with pytest.raises(UsageError, match=message):
        factorize(layer, method, ranks)


GEOMETRY = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
@pytest.mark.parametrize(
    ("layer", "ranks", "names"),
    [
        (nn.Conv2d(6, 8, 3, stride=2, groups=2, bias=False), (3, 9, 4), GEOMETRY),
        (nn.ConvTranspose1d(4, 6, 3), (4, 6), GEOMETRY),
        (nn.Linear(8, 6), (6,), ("in_features", "out_features")),
    ],
    ids=str,
)
def test_what_models_read_off_a_layer_is_still_there(layer, ranks, names):
    chain = factorize(layer, "ht2", ranks)
    torch.testing.assert_close(chain.weight, layer.weight)
    assert chain.weight.requires_grad
    assert (chain.bias is None) == (layer.bias is None)
    assert all(getattr(chain, name) == getattr(layer, name) for name in names)
    if not chain.dense.transposed:
        torch.jit.script(chain)
