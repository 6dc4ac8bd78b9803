"""A folder that was measured in 8 bits holds that file, and the commands run it."""

import json
import shutil

import pytest
import torch

import tuckertree as tt
from tests.tools.cli.test_cli import tuckertree
from tuckertree.latency import network as network_module
from tuckertree.latency import target as target_module
from tuckertree.tools.data import open_calibration
from tuckertree.tools.html_report.making import page_of
from tuckertree.tools.models import resolve

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
IMAGE = torch.zeros(1, 3, 32, 32)


def images(count):
    return open_calibration("demo", resolve("demo").preprocessing, limit=count)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The demo in 8 bits, really quantized; how fast this machine is does not matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUCKERTREE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(target_module, "TOO_SLOW", 1e9)
        patch.setattr(network_module, "_ROUNDS", 5)
        rule = tt.Budget(latency="1.1x", threads=1, precision="int8")
        result = tt.compress(tt.build("demo"), IMAGE, rule, calibration=images(48), progress=False)
    return result, result.save(tmp_path_factory.mktemp("int8") / "out")


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(saved[1], tmp_path / "copy")


def test_what_is_saved_is_the_file_that_was_measured_beside_the_factors(saved):
    result, path = saved
    assert (path / "int8.onnx").read_bytes() == result.int8.content
    assert json.loads((path / "config.json").read_text())["int8"] == "int8.onnx"
    assert json.loads((path / "report.json").read_text())["int8"]["distance"] == result.int8.distance
    assert 0 < result.int8.distance < 0.2
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(tt.load(path)(x), result.model(x))
        assert torch.equal(tt.load(path, fused=True)(x), result.model(x))


def test_report_reads_what_was_kept(saved):
    result, path = saved
    page = page_of(path)
    assert " faster in int8, " in page.verdict
    assert next(f.after for f in page.figures if f.label == "Bytes in int8") == len(result.int8.content)


def test_evaluate_runs_the_file_and_says_so(saved):
    _, path = saved
    known = {}
    for options in ((), ("--no-fused",)):
        code, out, _ = tuckertree("evaluate", path, "--data", "demo", "--limit", 60, *options)
        assert code == 0
        assert out.count("int8.onnx, as measured on onnxruntime") == (not options)
        code, out, _ = tuckertree("evaluate", path, "--data", "demo", "--limit", 60, "--json", *options)
        known[options] = json.loads(out)
    assert [found["fused"] for found in known.values()] == [True, False]
    assert [found["int8"] for found in known.values()] == [True, False]
    assert abs(known[()]["top1"] - known["--no-fused",]["top1"]) <= 10


def test_bench_runs_the_file_where_onnx_is_read(saved):
    _, path = saved
    options = ("--rounds", 5, "--no-memory", "--threads", 1)
    code, out, _ = tuckertree("bench", "demo", path, "--runtime", "onnxruntime", "--json", *options)
    rows = json.loads(out)["rows"]
    assert code == 0
    assert rows[1]["size"] == (path / "int8.onnx").stat().st_size
    assert rows[0]["macs"] == rows[1]["macs"]
    code, out, err = tuckertree("bench", "demo", path, "--runtime", "torch", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "runs as an ONNX file" in err
    code, _, _ = tuckertree("bench", "demo", path, "--runtime", "torch", "--no-fused", *options)
    assert code == 0


def test_export_gives_the_file_out_and_no_other_form_of_it(saved, tmp_path):
    result, path = saved
    code, out, _ = tuckertree("export", path, "-o", tmp_path / "net.onnx")
    assert code == 0
    assert (tmp_path / "net.onnx").read_bytes() == result.int8.content
    assert "int8.onnx" in out
    for options in (("--tolerance", 0), ("--dynamic", "none")):
        code, out, err = tuckertree("export", path, "-o", tmp_path / "other.onnx", *options)
        assert (code != 0, out, err.count("\n")) == (True, "", 1)
    code, _, err = tuckertree("export", path, "-o", tmp_path / "other.pt2")
    assert code == 2
    assert "--no-fused" in err
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
    code, _, _ = tuckertree("export", path, "-o", tmp_path / "other.pt2", "--no-fused")
    assert code == 0


@pytest.mark.parametrize("name", ["../elsewhere.onnx", "/etc/passwd", "", ".."])
def test_a_file_outside_the_folder_is_refused(folder, name):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "int8": name}))
    code, out, err = tuckertree("evaluate", folder, "--data", "demo")
    assert (code != 0, out) == (True, "")
    assert "outside its folder" in err


def test_a_file_that_is_missing_damaged_or_of_another_network_is_one_line(folder, tmp_path):
    file = folder / "int8.onnx"
    other = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten())
    tt.export(other, tmp_path / "other.onnx", IMAGE)
    for content in (None, b"no network\n" * 9, (tmp_path / "other.onnx").read_bytes()):
        file.unlink() if content is None else file.write_bytes(content)
        code, out, err = tuckertree("export", folder, "-o", tmp_path / "net.onnx")
        assert (code != 0, out, err.count("\n")) == (True, "", 1)
        assert not (tmp_path / "net.onnx").exists()
        if content is None:
            file.touch()
    assert tt.load(folder)(IMAGE).shape == (1, 10)  # the factors need none of it


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_tuned_is_quantized_anew(saved, tmp_path):
    _, path = saved
    options = ("--images", "demo", "--limit", 32, "--steps", 1, "--teacher", "demo", "--json")
    code, out, _ = tuckertree("tune", path, "--output", tmp_path / "out", *options)
    assert code == 0
    found = json.loads(out)["int8"]
    assert 0 < found["distance"] < 0.2
    assert (tmp_path / "out/int8.onnx").stat().st_size == found["bytes"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_tuned_and_not_quantized_keeps_no_figures_of_the_old_file(folder, tmp_path):
    config, report = (json.loads((folder / f"{name}.json").read_text()) for name in ("config", "report"))
    (folder / "config.json").write_text(json.dumps({**config, "input_size": None}))
    tried = [
        {"precision": name, "measured": 0.5, "kept": True, "distance": 0.1234, "unchanged": False}
        for name in ("int8", "fp32")
    ]
    (folder / "report.json").write_text(json.dumps({**report, "precisions": tried}))
    output = tmp_path / "out"
    options = ("--images", "demo", "--limit", 32, "--steps", 1, "--teacher", "demo")
    assert tuckertree("tune", folder, "--output", output, *options)[0] == 0
    assert not (output / "int8.onnx").exists()
    new = json.loads((output / "report.json").read_text())
    assert "int8" not in new
    assert [each["distance"] for each in new["precisions"]] == [None, 0.1234]
    page = page_of(output)
    assert "in int8, accuracy" not in page.verdict
    assert f"outputs {new['tuning']['after']:.1%} from" in page.verdict

    (output / "report.json").write_text(json.dumps({**new, "int8": report["int8"]}))
    assert page_of(output).verdict == page.verdict  # folders of before kept them


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--macs", "2x", "--precision", "int8"], "--precision belongs to --latency"),
        (["--latency", "2x", "--precision", "int8"], "give --calibration"),
        (["--latency", "2x", "--precision", "int4"], "unknown precision 'int4'"),
        (
            ["--latency", "2x", "--precision", "int8", "--runtime", "torch"],
            "on onnxruntime, openvino, not on torch",
        ),
    ],
)
def test_bad_precisions_are_one_line_and_nothing_is_written(options, message, tmp_path):
    code, out, err = tuckertree("compress", "demo", "--output", tmp_path / "out", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "out").exists()


def test_a_file_in_8_bits_that_a_plan_is_not_made_for_is_refused(saved, tmp_path):
    path = tt.compress(tt.build("demo"), IMAGE, energy=0.9).save(tmp_path / "plain")
    shutil.copy(saved[1] / "int8.onnx", path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "int8": "int8.onnx"}))
    for command in (("evaluate", path, "--data", "demo"), ("inspect", path), ("export", path)):
        code, _, err = tuckertree(*command)
        assert (code, "which its plan is not made for" in err, err.count("\n")) == (1, True, 1), err


def test_a_file_of_another_network_is_not_given_out(folder, tmp_path):
    other = torch.nn.Sequential(torch.nn.Conv2d(3, 10, 32), torch.nn.Flatten()).eval()
    with torch.no_grad():
        other[0].weight.mul_(100)
    (folder / "int8.onnx").unlink()
    tt.export(other, folder / "int8.onnx", IMAGE)
    code, _, err = tuckertree("export", folder, "-o", tmp_path / "out.onnx")
    assert (code, "differs from the network" in err) == (1, True), err
    (folder / "int8.onnx").unlink()
    tt.export(torch.nn.Conv2d(4, 10, 3).eval(), folder / "int8.onnx", torch.zeros(1, 4, 32, 32))
    code, _, err = tuckertree("export", folder, "-o", tmp_path / "out.onnx")
    assert (code, err.count("\n")) == (1, 1), err
    assert not (tmp_path / "out.onnx").exists()
