"""BatchNorm folded into a chain as torch, ultralytics, mmcv and timm do it: by setting, by writing, into a new layer."""

import copy

import pytest
import torch
from torch import nn
from torch.fx.experimental import optimization
from torch.nn.utils import fusion

from tests.core.layers.cases import FULL
from tests.core.layers.chains import LAYERS, assert_unchanged, batch_norm, chain_of, state
from tuckertree.core.layers import Chain, contract_chain, densify, factorize, fusion_variants

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit"),
    pytest.mark.filterwarnings("ignore:.*(weight|spectral)_norm.*is deprecated"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor"),
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]


def fold_by_torch(chain, norm):
    if not chain.dense.order:
        return fusion.fuse_linear_bn_eval(chain, norm)
    return fusion.fuse_conv_bn_eval(chain, norm, transpose=chain.dense.transposed)


def folded(chain, norm):
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    spread = factor.reshape([-1, *(1 for _ in chain.weight.shape[1:])])
    if chain.dense.transposed:
        spread = factor.reshape([1, -1, *(1 for _ in chain.weight.shape[2:])])
    bias = torch.zeros_like(norm.bias) if chain.bias is None else chain.bias
    return chain.weight * spread, (bias - norm.running_mean) * factor + norm.bias


def fold_by_setting(chain, norm):
    weight, bias = folded(chain, norm)
    chain.weight, chain.bias = nn.Parameter(weight), nn.Parameter(bias)
    return chain


def fold_by_data(chain, norm):
    weight, bias = folded(chain, norm)
    chain.weight.data = weight
    if chain.bias is None:
        chain.register_parameter("bias", nn.Parameter(bias))
    else:
        chain.bias.data = bias
    return chain.requires_grad_(False)


@torch.inference_mode()
def fold_in_inference_mode(chain, norm):
    weight, bias = folded(chain, norm)
    chain.weight.data.copy_(weight)
    chain.bias = nn.Parameter(bias)
    return chain


def fold_into_a_new_layer(chain, norm):
    layer = densify(chain)
    weight, bias = folded(chain, norm)
    layer.weight, layer.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    return layer


FOLDS = (fold_by_torch, fold_by_setting, fold_by_data, fold_in_inference_mode, fold_into_a_new_layer)


@pytest.mark.parametrize("fold", FOLDS)
@pytest.mark.parametrize("name", [name for name in LAYERS if name != "transposed 2d groups"])
def test_a_batchnorm_is_folded_exactly(name, fold):
    chain, x = chain_of(name)
    norm = batch_norm(chain)
    expected = norm(chain(x)).detach()
    product = fold(chain, norm)
    torch.testing.assert_close(product(x), expected, rtol=1e-4, atol=1e-4)
    if isinstance(product, Chain):
        dense = densify(product)
        assert dense.bias is not None
        torch.testing.assert_close(dense(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float16, 2e-2), (torch.bfloat16, 1e-1), (torch.float64, 1e-12)]
)
def test_a_batchnorm_is_folded_in_every_type(dtype, tolerance):
    chain, x = chain_of("conv2d groups")
    norm, chain, x = batch_norm(chain), chain.to(dtype), x.to(dtype)
    expected = norm.to(dtype)(chain(x))
    folded = fusion.fuse_conv_bn_eval(chain, norm.float() if dtype != torch.float64 else norm)
    torch.testing.assert_close(folded(x), expected, rtol=tolerance, atol=tolerance)


def test_folding_does_not_freeze_what_is_trained_and_keeps_what_is_frozen():
    chain, _ = chain_of("conv2d groups")
    with torch.no_grad():  # where a product has no graph to say that it is trained
        trained = fusion.fuse_conv_bn_eval(chain, batch_norm(chain))
        frozen = fusion.fuse_conv_bn_eval(copy.deepcopy(chain).requires_grad_(False), batch_norm(chain))
    assert all(stage.weight.requires_grad for stage in trained)
    assert not any(stage.weight.requires_grad for stage in frozen)


@pytest.mark.parametrize("name", ["conv1d", "conv2d", "conv2d groups", "conv3d", "linear"])
def test_torch_fx_folds_into_the_last_stage(name):
    chain, x = chain_of(name)
    network = nn.Sequential(chain, batch_norm(chain)).eval()
    fused = optimization.fuse(network)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in fused.modules())
    torch.testing.assert_close(fused(x), network(x), rtol=1e-4, atol=1e-4)


def test_a_last_stage_that_got_a_bias_from_outside_keeps_it_when_multiplied_out():
    chain, x = chain_of("conv2d")
    stage = densify(factorize(nn.Conv2d(3, 8, 1), "svd", (FULL,)))
    with torch.no_grad():
        stage.weight.copy_(chain.expand.weight)
    chain.expand = stage
    torch.testing.assert_close(densify(chain)(x), chain(x), rtol=1e-4, atol=1e-4)
    for form in fusion_variants(chain.stages, chain.cuts):
        torch.testing.assert_close(contract_chain(chain, form)(x), chain(x), rtol=1e-4, atol=1e-4)


def test_modules_are_fused_by_torch_ao_or_refused():
    chain, _ = chain_of("conv2d")
    network, before = nn.Sequential(chain, batch_norm(chain)).eval(), state(chain)
    with pytest.raises((AssertionError, NotImplementedError), match="did not find fuser method"):
        torch.ao.quantization.fuse_modules(network, [["0", "1"]])
    assert_unchanged(chain, before)
