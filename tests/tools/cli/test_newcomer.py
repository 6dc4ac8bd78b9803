"""What a first run meets: each command as a new user types it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tools.cli.test_cli import tuckertree

pytestmark = pytest.mark.filterwarnings("ignore:fewer calibration patches")
BUDGET = ("--params", "0.5", "--calibration-images", 16)


def pictures(folder, count=8, size=(40, 40), labelled=False):
    """Photographs of noise, in folders of two classes if labelled."""
    generator = np.random.default_rng(0)
    for number in range(count):
        path = folder / (f"class{number % 2}" if labelled else "") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.mark.parametrize("split", ["test", "val"])
def test_calibration_takes_the_images_there_are_and_says_which(tmp_path, split):
    data = pictures(tmp_path / "half_a" / split).parent
    with pytest.warns(UserWarning, match=rf"no training images, so those of '{split}' are calibrated with"):
        code, out, _ = tuckertree(
            "compress",
            "demo",
            *BUDGET,
            "--calibration",
            data,
            "--input-size",
            "3,32,32",
            "-o",
            tmp_path / "o",
        )
    assert code == 0
    assert f"images      8 of {data / split}" in out


def test_images_are_resized_to_the_input_and_prepared_as_options_say(tmp_path):
    data = pictures(tmp_path / "data", size=(20, 50))
    size = ("--input-size", "3,24,36", "--calibration", data)
    shares = []
    for number, options in enumerate(((), ("--mean", "0,0,0", "--std", "1,1,1", "--scale", 0.01))):
        code, out, err = tuckertree(
            "compress", "demo", *BUDGET, *size, *options, "-o", tmp_path / f"{number}", "--json"
        )
        assert (code, err) == (0, "")
        shares.append(json.loads(out)["errors"])
    assert shares[0] != shares[1]
    code, _, err = tuckertree("compress", "demo", "--params", 0.5, "--mean", "0,0,0", "-o", tmp_path / "no")
    assert (code, "--mean belongs to --calibration" in err) == (2, True)


def test_evaluate_takes_an_onnx_file_and_finds_what_it_finds_in_the_network(tmp_path):
    pytest.importorskip("onnxruntime")
    file = tmp_path / "demo.onnx"
    assert tuckertree("export", "demo", "-o", file)[0] == 0
    found = {}
    for model in ("demo", file):
        code, out, _ = tuckertree(
            "evaluate", model, "--data", "demo", "--limit", 100, "--batch-size", 64, "--json"
        )
        assert code == 0
        found[model] = json.loads(out)
    dense, read = found.values()
    assert [read[key] for key in ("images", "top1", "top5", "macs")] == [
        dense[key] for key in ("images", "top1", "top5", "macs")
    ]
    code, _, err = tuckertree("evaluate", file, "--data", "demo", "--weights", "x.safetensors")
    assert (code, "--weights is not supported for ONNX models" in err) == (2, True)


def test_a_file_of_a_prescribed_batch_is_evaluated_on_every_image(tmp_path):
    pytest.importorskip("onnxruntime")
    file = tmp_path / "one.onnx"
    assert tuckertree("export", "demo", "--dynamic", "none", "-o", file)[0] == 0
    code, out, _ = tuckertree("evaluate", file, "--data", "demo", "--limit", 10, "--json")
    assert (code, json.loads(out)["images"]) == (0, 10)


def test_only_commands_that_take_onnx_files_offer_them():
    for command in ("inspect", "compress", "evaluate", "export"):
        _, text, _ = tuckertree(command, "--help")
        assert ("or .onnx file" in " ".join(text.replace("│", " ").split())) == (command != "export"), command


def test_int8_says_what_it_costs_before_and_after(tmp_path):
    pytest.importorskip("onnxruntime.quantization")
    quantize = ("export", "demo", "--quantize", "int8", "--calibration", "demo", "--calibration-images", 32)
    code, out, _ = tuckertree(*quantize, "-o", tmp_path / "a.onnx")
    assert (code, "in float, in 8 bits" in out) == (0, True)
    code, out, _ = tuckertree(
        *quantize, "--data", "demo", "--limit", 100, "-o", tmp_path / "b.onnx", "--json"
    )
    found = json.loads(out)
    assert code == 0
    assert found["unquantized"] < 1e-4 < found["difference"]
    assert found["top1"]["file"] > found["top1"]["model"] - 5
    code, _, err = tuckertree(*quantize, "--tolerance", 1e-3, "-o", tmp_path / "c.onnx")
    assert (code, err.count("\n"), "--tolerance" in err) == (1, 1, True)
    assert not (tmp_path / "c.onnx").exists()


def test_a_file_that_answers_worse_comes_with_a_warning(tmp_path):
    pytest.importorskip("onnxruntime.quantization")
    black = tmp_path / "black"
    black.mkdir()
    for number in range(4):
        Image.new("RGB", (32, 32)).save(black / f"{number}.png")
    quantize = ("export", "demo", "--quantize", "int8", "--calibration", black)
    code, out, err = tuckertree(
        *quantize, "--data", "demo", "--limit", 200, "-o", tmp_path / "a.onnx", "--json"
    )
    found = json.loads(out)
    assert code == 0
    assert found["top1"]["file"] < found["top1"]["model"] - 1  # ranges of black images fit no others
    assert "fewer of the images rightly" in err
    assert found["warnings"]


def test_what_cannot_be_told_is_warned_of_in_tables_and_json(tmp_path):
    code, out, _ = tuckertree("compress", "demo", "--params", "2.5x", "-o", tmp_path / "a", "--json")
    assert (code, "--calibration" in json.loads(out)["warnings"][0]) == (0, True)
    code, out, err = tuckertree("compress", "demo", "--params", "2.5x", "-o", tmp_path / "c")
    assert (code, "warning" in out, err.startswith("warning: without images")) == (0, False, True)
    code, out, err = tuckertree("compress", "demo", "--energy", 0.99, "-o", tmp_path / "b")
    assert (code, "warning" in out + err) == (0, False)


FACTORY = """
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 16, 3), nn.Conv2d(4, 16, 3)

    def forward(self, *, image, mask):
        return self.left(image) + self.right(mask)
"""


def test_inputs_by_keyword_are_given_by_name(tmp_path, monkeypatch):
    (tmp_path / "keywords.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    sizes = ("--input-size", "image:3,16,16", "--input-size", "mask:4,16,16")
    code, out, _ = tuckertree("inspect", "keywords:Two", *sizes)
    assert (code, "at input image 1x3x16x16, mask 1x4x16x16" in out) == (0, True)
    code, _, _ = tuckertree("compress", "keywords:Two", *sizes, "--energy", 0.3, "-o", tmp_path / "o")
    assert code == 0
    for arguments, message in (
        (("inspect", "keywords:Two", *sizes, *sizes), "given twice for image"),
        (("inspect", "keywords:Two", *sizes, "--input-size", "3,8,8"), "give the name of the input"),
        (("evaluate", "keywords:Two", *sizes, "--data", "demo"), "belongs to inspect and compress"),
        (
            (
                "compress",
                "keywords:Two",
                *sizes,
                "--energy",
                0.3,
                "--calibration",
                "demo",
                "-o",
                tmp_path / "p",
            ),
            "cannot be given to inputs by keyword",
        ),
    ):
        code, out, err = tuckertree(*arguments)
        assert (code, out, err.count("\n"), message in err) == (2, "", 1, True), err


@pytest.mark.parametrize(
    "arguments", [("inspect", "demo"), ("compress", "demo", "--params", "0.5", "-o", "{out}")]
)
def test_tables_are_as_wide_as_columns_says(arguments, tmp_path):
    command = [argument.replace("{out}", str(tmp_path / "o")) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "tuckertree", *command],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
        check=True,
    )
    table = done.stdout.splitlines()[:22]
    assert max(map(len, table)) <= 80
    assert any("layer3.2.conv2" in line for line in table)
    assert ("64x64x3x3" in done.stdout) == ("inspect" in arguments)
    assert ("not shown at this width" in done.stdout) == ("compress" in arguments)


def test_best_effort_belongs_to_a_target_of_latency(tmp_path):
    code, _, err = tuckertree("compress", "demo", "--macs", "2x", "--best-effort", "-o", tmp_path / "o")
    assert (code, "--best-effort belongs to --latency" in err) == (2, True)


def test_rectangular_images_are_not_cut_when_they_fit(tmp_path):
    from tuckertree.tools.opening import _resized, open_model

    preprocessing = _resized(open_model("demo").preprocessing, (3, 24, 36))
    assert (preprocessing.size, preprocessing.resize) == ((24, 36), 24)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8))
    expected = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(preprocessing.fit(image), expected)
