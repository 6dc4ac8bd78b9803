"""Layers that 8 bits cost too much stay in single precision: which, how many, and what is left of the outputs."""

from itertools import pairwise

import pytest
import torch
from torch import nn

import tuckertree as tt
from tuckertree._base.errors import TuckertreeError
from tuckertree.io.export import FileNetwork, export
from tuckertree.io.export.mixed import layers_of, quantize_sparingly
from tuckertree.io.export.quantization import layer_names, parted
from tuckertree.runtimes import to_onnx
from tuckertree.runtimes.quantization import Quantizer

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
OUTLIER = 3000.0
IMAGES = torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(0))
EXAMPLE = IMAGES[:1]


def network(outlier=1.0):
    """Six layers; what goes from the third to the fourth has one channel so many times larger than the others."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        widths = [3, 12, 12, 12, 12, 12]
        layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)]
        parts = [part for layer in layers for part in (layer, nn.ReLU())]
        model = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 5)).eval()
    with torch.no_grad():
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, generator=torch.Generator().manual_seed(1))
            layer.bias.zero_()
        layers[2].weight[0] *= outlier
        layers[3].weight[:, 0] /= outlier
    return model


def quantizer_of(model):
    return Quantizer(to_onnx(model, [EXAMPLE], "batch"), [[batch] for batch in IMAGES[:40].split(8)])


def distance_of(path, model, images):
    with torch.no_grad():
        wanted = model(images)
        return float((FileNetwork(path)(images) - wanted).norm() / wanted.norm())


def float_weights(path):
    """Names of the weights that nodes take in floating point."""
    graph = onnx.load(path).graph
    constants = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    taken = {node.input[1] for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")}
    return {name.removesuffix(".weight") for name in taken & constants}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model, path = network(OUTLIER), tmp_path_factory.mktemp("mixed") / "net.onnx"
    return model, export(model, path, EXAMPLE, calibration=IMAGES.split(8))


def test_where_no_layer_is_out_of_the_ordinary_nothing_is_left_out(tmp_path):
    done = export(network(), tmp_path / "net.onnx", EXAMPLE, calibration=IMAGES.split(8))
    assert done.int8.fp32 == ()
    assert not done.int8.losses
    assert done.int8.distance == done.int8.whole <= done.tolerance == 0.1
    assert not float_weights(done.path)


def test_the_few_layers_at_an_outlier_stay_in_single_precision_and_repair_the_outputs(exported, tmp_path):
    model, done = exported
    found = done.int8
    ruined = export(
        model, tmp_path / "all.onnx", EXAMPLE, calibration=IMAGES.split(8), tolerance=float("inf")
    )
    assert ruined.int8.fp32 == ()
    assert ruined.int8.distance == pytest.approx(found.whole)
    assert found.whole > 0.3
    assert {*found.fp32} == {"4", "6"}  # what gives the outlier, and what takes it
    assert found.layers == ("0", "2", "4", "6", "8", "12")
    assert found.distance <= done.tolerance
    assert float_weights(done.path) == {*found.fp32}
    assert [*found.fp32] == sorted(found.losses, key=lambda name: -found.losses[name])[:2]
    assert min(found.losses[name] for name in found.fp32) > 5 * max(
        loss for name, loss in found.losses.items() if name not in found.fp32
    )


def test_the_distance_is_that_of_the_file_on_images_held_out(exported):
    model, done = exported
    _, held = parted([[batch] for batch in IMAGES.split(8)])
    images = torch.cat([batch for (batch,) in held])
    assert torch.equal(images, IMAGES[-6:]) or sorted(map(len, (b for (b,) in held))) == [6]
    assert done.int8.distance == pytest.approx(distance_of(done.path, model, images), rel=1e-4)


def test_what_is_said_of_the_layers_names_them(exported):
    _, done = exported
    text = "\n".join(done.int8.lines())
    assert "2 of 6 layers stay in fp32" in text
    assert f"with all in 8 bits {done.int8.whole:.1%}" in text
    assert text.endswith(", ".join(done.int8.fp32))
    assert done.int8.to_json()["fp32"] == [*done.int8.fp32]


def test_a_tolerance_that_one_layer_in_8_bits_exceeds_is_refused(tmp_path):
    with pytest.raises(TuckertreeError, match="8 bits in one layer alone") as refused:
        export(network(), tmp_path / "net.onnx", EXAMPLE, calibration=IMAGES.split(8), tolerance=1e-9)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("most", [0, 1, 2, 6])
def test_no_more_layers_stay_than_fit(most):
    quantizer, tried = quantizer_of(network(OUTLIER)), []

    def fits(proto):
        makers = {name: node.op_type for node in proto.graph.node for name in node.output}
        layers = [node for node in proto.graph.node if node.op_type in ("Conv", "Gemm")]
        tried.append(sum(makers.get(node.input[1]) != "DequantizeLinear" for node in layers))
        return tried[-1] <= most

    _, found = quantize_sparingly(quantizer, [[IMAGES[40:]]], names=layer_names(network()), fits=fits)
    assert len(found.fp32) == min(most, 2)
    assert (found.distance > 0.1) == (most < 2)
    assert len(tried) <= 3


def test_layers_that_are_given_are_the_ones_that_stay():
    model = network(OUTLIER)
    _, found = quantize_sparingly(
        quantizer_of(model), [[IMAGES[40:]]], names=layer_names(model), fp32=["0", "12", "elsewhere"]
    )
    assert found.fp32 == ("0", "12")
    assert found.distance > 0.1
    assert not found.losses


def test_a_layer_in_single_precision_reads_what_others_in_it_gave_unrounded():
    model = network(OUTLIER)
    quantizer = quantizer_of(model)
    layers = layers_of(quantizer.model, quantizer.unsuited, layer_names(model))
    proto = quantizer.quantized([node for name in ("4", "6") for node in layers[name]])
    makers = {name: node for node in proto.graph.node for name in node.output}
    node = next(node for node in proto.graph.node if node.name in layers["6"])
    assert makers[node.input[0]].op_type == "Relu"
    with pytest.raises(StopIteration):  # of all others what they take is rounded
        next(
            node
            for node in proto.graph.node
            if node.op_type == "Conv"
            and node.name not in {*layers["4"], *layers["6"]}
            and makers[node.input[0]].op_type != "DequantizeLinear"
        )


def test_the_stages_of_a_chain_are_one_layer():
    model = network()
    model[2] = tt.factorize(model[2], "ht2", (8, 8, 8))
    names = layer_names(model)
    assert names == ["0", "2", "4", "6", "8", "12"]
    quantizer = quantizer_of(model)
    layers = layers_of(quantizer.model, quantizer.unsuited, names)
    assert [*layers] == names
    assert len(layers["2"]) == len(model[2]) + 1  # and the ReLU


class Tokens(nn.Module):
    """A convolution to tokens, and linear layers on them, which ONNX writes as products with weights without a name."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 5)
        self.block = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8))

    def forward(self, x):
        x = self.conv(x).flatten(2).transpose(1, 2)
        return self.linear((x + self.block(x)).mean(1))


def test_linear_layers_on_tokens_are_called_as_their_modules():
    model = Tokens().eval()
    quantizer = quantizer_of(model)
    found = layers_of(quantizer.model, quantizer.unsuited, layer_names(model))
    assert [*found] == ["conv", "block.0", "block.2", "linear"]


def test_layers_that_were_given_without_knowing_all_are_chosen_anew():
    model, quantizer = network(OUTLIER), quantizer_of(network(OUTLIER))
    names = [name for name in layer_names(model) if name != "6"]
    _, found = quantize_sparingly(quantizer, [[IMAGES[40:]]], names=names, fp32=["0"])
    assert len(found.fp32) == 2
    assert found.distance <= 0.1 < found.whole


@pytest.mark.parametrize("most", [0, 1, 6])
def test_layers_that_were_given_and_are_too_far_are_chosen_anew_as_they_fit(most):
    model, quantizer = network(OUTLIER), quantizer_of(network(OUTLIER))
    names, held = layer_names(model), [[IMAGES[40:]]]

    def fits(proto):
        makers = {name: node.op_type for node in proto.graph.node for name in node.output}
        layers = [node for node in proto.graph.node if node.op_type in ("Conv", "Gemm")]
        return sum(makers.get(node.input[1]) != "DequantizeLinear" for node in layers) <= most

    _, found = quantize_sparingly(quantizer, held, names=names, fp32=["0"], fits=fits)
    assert len(found.fp32) == min(most, 2)
    assert {*found.fp32} <= {"4", "6"}
    said = "(0.1 allowed)" if most == 6 else "(more than the 0.1 wanted)"
    assert said in found.lines()[0]
    assert found.too_far == (most < 6)


def test_nothing_is_said_to_be_allowed_where_any_distance_is():
    _, found = quantize_sparingly(quantizer_of(network(OUTLIER)), [[IMAGES[40:]]], tolerance=float("inf"))
    assert found.distance > 0.1
    assert "allowed" not in found.lines()[0]
    assert not found.too_far


class Branches(nn.Module):
    """Two inputs; one of them by way of a normalisation that stays in single precision."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(2, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x, y):
        x = self.a(x)
        return self.c((x * x.sigmoid() + self.b(y)).relu()).flatten(1)


def test_networks_of_several_inputs_are_quantized(tmp_path):
    torch.manual_seed(0)
    model = Branches().eval()
    batches = [(torch.randn(8, 3, 9, 9), torch.randn(8, 2, 9, 9)) for _ in range(4)]
    done = export(model, tmp_path / "n.onnx", tuple(x[:1] for x in batches[0]), calibration=batches)
    assert done.int8.layers == ("a", "b", "c")
    assert 0 < done.int8.distance < 0.1
    assert done.compared == (((32, 3, 9, 9), (32, 2, 9, 9)),)


def test_held_out_are_the_last_images_and_never_all():
    batches = [[torch.arange(10 * n, 10 * n + 10)] for n in range(3)]
    ranges, held = parted(batches)
    assert torch.cat([x for (x,) in ranges]).tolist() == list(range(25))
    assert torch.cat([x for (x,) in held]).tolist() == list(range(25, 30))
    ranges, held = parted(batches, divisible=False)
    assert [len(ranges), len(held)] == [2, 1]
    only = [[torch.zeros(1, 3)]]
    assert parted(only) == (only, only)
