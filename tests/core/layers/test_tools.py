"""A chain among other people's tools: what it has no place for is refused, what torch makes of it computes the same."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from tests.core.layers.cases import FULL
from tests.core.layers.chains import LAYERS, assert_unchanged, chain_of, state
from tuckertree._base.errors import TuckertreeError
from tuckertree.core.layers import Chain, densify, empty_chain

pytestmark = [
    pytest.mark.usefixtures("fresh_compiler"),
    pytest.mark.filterwarnings("ignore:.*torch.jit"),
    pytest.mark.filterwarnings("ignore:.*(weight|spectral)_norm.*is deprecated"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor"),
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
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


def test_a_quantized_stage_has_no_factor():
    chain, _ = chain_of("linear")
    quantized = torch.ao.quantization.quantize_dynamic(nn.Sequential(chain), {nn.Linear})[0]
    with pytest.raises(
        TuckertreeError, match="the stage reduce of this chain is a Linear, which has no factor"
    ):
        quantized.factors()


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


@pytest.mark.parametrize(
    ("name", "convert"),
    [
        (name, convert)
        for convert in CONVERSIONS
        for name in (("conv2d groups", "transposed 3d") if convert in ("export", "compile") else LAYERS)
    ],
)
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
