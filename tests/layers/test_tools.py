"""A chain among other people's tools: what they set or write is carried out exactly or refused, never lost."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.fx.experimental import optimization
from torch.nn.utils import fusion, parametrizations, parametrize, prune

from tests.layers.cases import FULL, cases
from tests.strategies import examples
from tuckertree.errors import TuckertreeError
from tuckertree.layers import Chain, LayerSpec, contract_chain, densify, empty_chain, factorize, forms

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit"),
    pytest.mark.filterwarnings("ignore:.*(weight|spectral)_norm.*is deprecated"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor"),
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]
NORMS = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
LAYERS = {
    "conv1d": (nn.Conv1d(6, 8, 3, padding=2, dilation=2), (2, 6, 9)),
    "conv2d": (nn.Conv2d(6, 8, 3, padding=1, bias=False), (2, 6, 7, 8)),
    "conv2d groups": (nn.Conv2d(6, 8, 3, stride=2, groups=2), (2, 6, 7, 8)),
    "conv2d reflect": (nn.Conv2d(6, 8, (3, 5), padding=(1, 2), padding_mode="reflect"), (2, 6, 7, 8)),
    "conv2d 1x1": (nn.Conv2d(6, 8, 1, stride=2, bias=False), (2, 6, 7, 8)),
    "conv3d": (nn.Conv3d(4, 6, (3, 1, 3), padding="same", padding_mode="circular"), (1, 4, 5, 4, 5)),
    "linear": (nn.Linear(6, 8), (3, 6)),
    "transposed 1d": (nn.ConvTranspose1d(6, 8, 3, stride=2, output_padding=1), (2, 6, 5)),
    "transposed 2d": (
        nn.ConvTranspose2d(6, 8, (3, 1), stride=(2, 3), padding=(1, 0), bias=False),
        (2, 6, 5, 4),
    ),
    "transposed 2d groups": (nn.ConvTranspose2d(6, 8, 3, stride=2, groups=2), (2, 6, 5, 4)),
    "transposed 3d": (nn.ConvTranspose3d(4, 6, (2, 3, 3), stride=2, dilation=2), (1, 4, 3, 3, 3)),
}


def chain_of(name, rank=3, method="ht2"):
    layer, shape = copy.deepcopy(LAYERS[name][0]), LAYERS[name][1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
        x = torch.randn(shape)
    cuts = len(LayerSpec.of(layer).essential_modes) + 1 if method == "ht2" else 1
    return factorize(layer, method, (rank,) * cuts).eval(), x


def batch_norm(chain):
    norm = NORMS[chain.dense.order](chain.out_channels).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for values in (norm.weight, norm.bias, norm.running_mean):
            values.normal_(generator=generator)
        norm.running_var.uniform_(0.3, 2, generator=generator)
        norm.weight[0] = 0  # a channel that training has switched off
    return norm


def state(chain):
    return {name: value.clone() for name, value in chain.state_dict().items()}


def assert_unchanged(chain, before):
    after = chain.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in after.items())


# BatchNorm folded as torch, ultralytics, mmcv and timm do it: by setting, by writing to .data, into a new layer.


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
    for form in forms(chain.dense, chain.cuts, chain.ranks):
        torch.testing.assert_close(contract_chain(chain, form)(x), chain(x), rtol=1e-4, atol=1e-4)


def test_modules_are_fused_by_torch_ao_or_refused():
    chain, _ = chain_of("conv2d")
    network, before = nn.Sequential(chain, batch_norm(chain)).eval(), state(chain)
    with pytest.raises((AssertionError, NotImplementedError), match="did not find fuser method"):
        torch.ao.quantization.fuse_modules(network, [["0", "1"]])
    assert_unchanged(chain, before)


# Any weight the stages can multiply out to is taken, any other is refused.


@examples(80)
@given(cases(), st.integers(1, 4), st.integers(0, 2**20))
def test_scaled_outputs_go_into_the_last_stage_and_leave_the_others(case, rank, seed):
    layer, x, method = case
    chain = factorize(layer, method, case.ranks(rank))
    dense, before = densify(chain), state(chain)
    kernel = chain.dense.kernel(chain.weight.detach())
    scale = torch.randn(*kernel.shape[:2], dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    scaled = chain.dense.weight(kernel * scale.view(*scale.shape, *(1 for _ in kernel.shape[2:])))
    chain.weight = nn.Parameter(scaled)
    dense.weight = nn.Parameter(scaled)
    with torch.no_grad():
        torch.testing.assert_close(chain(x), dense(x), rtol=1e-9, atol=1e-9)
    changed = {name for name, value in chain.state_dict().items() if not torch.equal(value, before[name])}
    assert changed <= {f"{chain.stages[-1].name}.weight"}


@pytest.mark.parametrize("method", ["ht2", "svd"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_weight_of_the_chains_ranks_is_taken_and_any_other_refused(name, method):
    chain, x = chain_of(name, 2, method)
    other, _ = chain_of(name, 2, method)
    with torch.no_grad():
        for stage in other:
            stage.weight.normal_(generator=torch.Generator().manual_seed(2))
    chain.weight = nn.Parameter(other.weight)
    chain.bias = other.bias
    torch.testing.assert_close(chain(x), other(x), rtol=1e-4, atol=1e-4)
    before = state(chain)
    with pytest.raises(
        TuckertreeError, match="cannot have that weight, only one that its stages multiply out to"
    ):
        chain.weight = nn.Parameter(torch.randn_like(chain.weight))
    assert_unchanged(chain, before)
    full, _ = chain_of(name, FULL)
    full.weight = nn.Parameter(torch.randn_like(full.weight))


WRITES = {
    "mul_": lambda w: w.data.mul_(-3),
    "no_grad": lambda w: torch.no_grad()(w.mul_)(0.5),
    "copy_": lambda w: w.data.copy_(w.data * 2),
    "setitem": lambda w: w.data.__setitem__(slice(None), w.data * 2),
    "one filter": lambda w: w.data[1].mul_(2),
    "each filter": lambda w: [row.mul_(number) for number, row in enumerate(w.data)],
    "unbound": lambda w: torch._foreach_mul_(list(w.data.unbind(0)), 2.0),
    "view": lambda w: w.detach().view(-1).mul_(2),
    "transposed": lambda w: w.detach().T.mul_(2),
    "out": lambda w: torch.mul(w.data, 2, out=w.data),
    "zeros": nn.init.zeros_,
    "constant": lambda w: nn.init.constant_(w, 0.3),
    "inputs": lambda w: w.data[:, 0].zero_(),
}


@pytest.mark.filterwarnings("ignore:The use of `x.T`")
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("name", ["conv1d", "conv2d", "conv3d", "linear"])
def test_what_is_written_into_the_weight_is_what_the_chain_then_computes(name, write):
    chain, x = chain_of(name)
    dense = densify(chain)
    WRITES[write](chain.weight)
    WRITES[write](dense.weight)
    torch.testing.assert_close(chain(x), dense(x), rtol=1e-4, atol=1e-4)
    assert not torch.equal(chain.weight, chain_of(name)[0].weight)


REFUSED = {
    "normal": nn.init.normal_,
    "kaiming": nn.init.kaiming_normal_,
    "xavier": nn.init.xavier_uniform_,
    "truncated": nn.init.trunc_normal_,
    "orthogonal": nn.init.orthogonal_,
    "one number": lambda w: w.data.view(-1).__setitem__(0, 7.0),
    "masked": lambda w: w.data.masked_fill_(w.data > 0, 0),
    "in-place function": lambda w: nn.functional.relu(w.data, inplace=True),
    "half of it": lambda w: w.data.chunk(2)[0].add_(1),
    "noise": lambda w: torch.no_grad()(w.add_)(torch.randn(w.shape)),
    "not finite": lambda w: w.data.mul_(torch.nan),
    "data of another shape": lambda w: setattr(w, "data", torch.zeros(3)),
    "data of another type": lambda w: setattr(w, "data", w.data.double()),
}


@pytest.mark.parametrize("write", REFUSED)
@pytest.mark.parametrize("name", ["conv1d", "conv2d groups", "conv3d", "linear", "transposed 2d"])
def test_what_the_chain_cannot_follow_is_refused_in_one_line_and_taken_back(name, write):
    chain, _ = chain_of(name, 2)
    before, weight = state(chain), chain.weight
    values = weight.detach().clone()
    with pytest.raises(TuckertreeError) as caught:
        REFUSED[write](weight)
    assert "\n" not in str(caught.value)
    assert_unchanged(chain, before)
    assert torch.equal(weight.detach().clone(), values)


def test_numpy_sees_the_weight_and_cannot_write_into_it():
    chain, _ = chain_of("conv2d")
    array = chain.weight.detach().numpy()
    torch.testing.assert_close(torch.tensor(array), chain.weight.detach().clone())
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0


def test_a_weight_read_before_the_chain_changed_cannot_be_written_into():
    chain, _ = chain_of("conv2d")
    weight = chain.weight
    with torch.no_grad():
        chain.expand.weight.mul_(2)
    before = state(chain)
    with pytest.raises(TuckertreeError, match="has changed since this weight of it was read"):
        weight.data.mul_(2)
    assert_unchanged(chain, before)


# Reading is as it is with any tensor.


def test_results_are_plain_tensors_with_a_graph_that_reaches_the_stages():
    chain, _ = chain_of("conv2d")
    weight = chain.weight
    assert type(weight.shape) is torch.Size
    assert {
        type(y) for y in (weight * 2, weight.sum(), weight.clone(), weight.double(), weight @ weight.mT)
    } == {torch.Tensor}
    weight.square().sum().backward()
    assert all(stage.weight.grad.any() for stage in chain)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))])
def test_copies_of_the_weight_are_tensors_of_their_own(copied):
    chain, _ = chain_of("conv2d")
    before = state(chain)
    twin = copied(chain.weight.detach())
    assert type(twin) is torch.Tensor
    twin.zero_()
    assert_unchanged(chain, before)


def test_a_parameter_made_of_the_weight_is_an_ordinary_one_of_its_own():
    chain, x = chain_of("conv2d")
    before, layer = state(chain), nn.Conv2d(6, 8, 3, padding=1, bias=False)
    layer.weight = nn.Parameter(chain.weight)
    assert type(layer.weight) is nn.Parameter
    torch.testing.assert_close(layer(x), chain(x), rtol=1e-4, atol=1e-4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(x).square().sum().backward()
    optimizer.step()
    assert type(copy.deepcopy(layer).weight) is nn.Parameter
    assert_unchanged(chain, before)


@pytest.mark.parametrize(
    "freeze",
    [
        lambda w: w.requires_grad_(False),
        lambda w: w.requires_grad_(requires_grad=False),
        lambda w: setattr(w, "requires_grad", False),
    ],
)
def test_freezing_the_weight_freezes_the_stages(freeze):
    chain, _ = chain_of("conv1d")
    freeze(chain.weight)
    assert not chain.weight.requires_grad
    assert [name for name, parameter in chain.named_parameters() if parameter.requires_grad] == [
        "expand.bias"
    ]


# What a chain has no place for is refused.

PARAMETRIZED = {
    "prune": lambda chain: prune.l1_unstructured(chain, "weight", 0.3),
    "prune by norm": lambda chain: prune.ln_structured(chain, "weight", 0.3, 2, 0),
    "prune the bias": lambda chain: prune.random_unstructured(chain, "bias", 0.3),
    "weight_norm": lambda chain: nn.utils.weight_norm(chain),
    "spectral_norm": lambda chain: nn.utils.spectral_norm(chain),
    "delete": lambda chain: delattr(chain, "weight"),
    "delete the bias": lambda chain: delattr(chain, "bias"),
    "no weight": lambda chain: setattr(chain, "weight", None),
    "a result": lambda chain: setattr(chain, "weight", chain.weight * 2),
    "another shape": lambda chain: setattr(chain, "weight", nn.Parameter(torch.zeros(3, 3))),
    "another bias": lambda chain: setattr(chain, "bias", nn.Parameter(torch.zeros(3))),
    "a gradient": lambda chain: setattr(chain.weight, "grad", torch.zeros_like(chain.weight)),
    "a gradient's hook": lambda chain: chain.weight.register_hook(lambda gradient: gradient),
    "fewer outputs": lambda chain: setattr(chain, "out_channels", 3),
    "other groups": lambda chain: setattr(chain, "groups", 7),
    "called with another weight": lambda chain: torch.func.functional_call(
        chain, {"weight": torch.zeros_like(chain.weight)}, (torch.zeros(1),)
    ),
}


@pytest.mark.parametrize("change", PARAMETRIZED)
@pytest.mark.parametrize("name", ["conv1d", "conv2d groups", "conv3d", "linear", "transposed 3d"])
def test_what_a_chain_has_no_place_for_is_refused_in_one_line(name, change):
    chain, _ = chain_of(name)
    before = state(chain)
    with pytest.raises(TuckertreeError) as caught:
        PARAMETRIZED[change](chain)
    assert "\n" not in str(caught.value)
    assert_unchanged(chain, before)
    assert not chain._forward_pre_hooks


def test_torchs_parametrizations_are_refused_by_torch_itself():
    chain, _ = chain_of("conv2d")
    before = state(chain)
    for change in (
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        lambda chain: parametrize.register_parametrization(chain, "weight", nn.Identity()),
    ):
        with pytest.raises(ValueError, match=r"does not have a parameter, a buffer, or a"):
            change(chain)
    assert_unchanged(chain, before)


@pytest.mark.parametrize("attribute", ["stride", "padding", "dilation", "padding_mode"])
def test_geometry_cannot_be_changed_but_can_be_set_to_what_it_is(attribute):
    chain, _ = chain_of("conv2d")
    setattr(chain, attribute, getattr(chain, attribute))
    chain.stride = 1
    with pytest.raises(TuckertreeError, match=f"the {attribute} of a chain is"):
        setattr(chain, attribute, "reflect" if attribute == "padding_mode" else 5)


def test_stages_can_be_pruned_and_normalised_as_plain_layers():
    chain, x = chain_of("conv2d")
    prune.l1_unstructured(chain.expand, "weight", 0.5)
    parametrizations.weight_norm(chain.reduce)
    torch.testing.assert_close(densify(chain)(x), chain(x), rtol=1e-4, atol=1e-4)


def test_a_quantised_stage_has_no_factor():
    chain, _ = chain_of("linear")
    quantised = torch.ao.quantization.quantize_dynamic(nn.Sequential(chain), {nn.Linear})[0]
    with pytest.raises(
        TuckertreeError, match="the stage reduce of this chain is a Linear, which has no factor"
    ):
        quantised.factors()


# Scripts, traces, graphs and copies.

CONVERSIONS = {
    "script": lambda chain, x: torch.jit.script(chain),
    "frozen script": lambda chain, x: torch.jit.freeze(torch.jit.script(chain)),
    "trace": lambda chain, x: torch.jit.trace(chain, x),
    "fx": lambda chain, x: torch.fx.symbolic_trace(
        chain, concrete_args={"output_size": None} if chain.dense.transposed else None
    ),
    "export": lambda chain, x: torch.export.export(chain, (x,)).module(),
    "compile": lambda chain, x: torch.compile(chain, backend="eager", fullgraph=True),
    "deepcopy": lambda chain, x: copy.deepcopy(chain),
    "pickle": lambda chain, x: pickle.loads(pickle.dumps(chain)),
    "empty": lambda chain, x: loaded(empty_chain(chain.dense, chain.method, chain.ranks), chain),
    "meta": lambda chain, x: loaded(copy.deepcopy(chain).to("meta").to_empty(device="cpu"), chain),
    "average": lambda chain, x: torch.optim.swa_utils.AveragedModel(chain).module,
    "data parallel": lambda chain, x: nn.DataParallel(chain),
    "channels last": lambda chain, x: (
        copy.deepcopy(chain).to(memory_format=torch.channels_last) if x.ndim == 4 else chain
    ),
    "functional": lambda chain, x: (
        lambda x: torch.func.functional_call(chain, dict(chain.named_parameters()), (x,))
    ),
}


def loaded(chain, other):
    chain.load_state_dict(other.state_dict())
    return chain


@pytest.mark.parametrize("convert", CONVERSIONS)
@pytest.mark.parametrize("name", LAYERS)
def test_what_torch_makes_of_a_chain_computes_the_same(name, convert):
    chain, x = chain_of(name)
    converted = CONVERSIONS[convert](chain, x)
    torch.testing.assert_close(converted(x), chain(x))
    if isinstance(converted, Chain):
        assert (type(converted), converted.dense, converted.stages) == (
            type(chain),
            chain.dense,
            chain.stages,
        )


@pytest.mark.parametrize("name", [name for name in LAYERS if name.startswith("transposed")])
def test_a_scripted_transposed_chain_takes_the_size_of_its_output(name):
    chain, x = chain_of(name, FULL)
    layer, scripted = densify(chain), torch.jit.script(chain)
    smallest = layer(x).shape[2:]
    extra = layer.output_padding
    for more in (0, 1):
        size = [n - p + more for n, p in zip(smallest, extra, strict=True)]
        expected = layer(x, output_size=size)
        assert list(expected.shape[2:]) == size
        for found in (
            chain(x, size),
            chain(x, output_size=torch.Size(size)),
            scripted(x, size),
            chain(input=x, output_size=size),
        ):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for run in (chain, scripted):
        with pytest.raises(Exception, match="requested an output size of"):
            run(x, [n + 9 for n in smallest])


class Reader(nn.Module):
    """A model that uses a layer's weight beside calling it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x) * self.layer.weight.abs().mean()


@pytest.mark.parametrize("convert", ["trace", "export", "compile"])
def test_a_model_that_reads_the_weight_can_be_traced(convert):
    chain, x = chain_of("conv2d")
    model = Reader(chain)
    torch.testing.assert_close(CONVERSIONS[convert](model, x)(x), model(x))
    torch.testing.assert_close(torch.vmap(model)(x[None])[0], model(x))
