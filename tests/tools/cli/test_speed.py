"""`export` and `bench` on the command line."""

import json

import pytest
import torch

from tests.tools.cli.test_cli import tuckertree


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "out"
    assert (
        tuckertree("compress", "demo", "--energy", 0.5, "--include", "layer3.*", "--output", folder)[0] == 0
    )
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUCKERTREE_CACHE", str(tmp_path / "cache"))


def test_export_contracted_for_a_runtime_and_bench_of_the_file(saved, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    file = tmp_path / "net.onnx"
    options = ("--contract", "torch", "--threads", 1, "--json")
    code, out, _ = tuckertree("export", saved, "--output", file, *options)
    assert code == 0
    found = json.loads(out)
    assert found["to"] == "onnx"
    assert found["difference"] <= found["tolerance"]
    assert len(found["contracted"]) == 6
    assert file.stat().st_size == found["size"]
    chart = tmp_path / "chart.svg"
    code, out, _ = tuckertree(
        "bench", file, saved, "--rounds", 5, "--no-memory", "--threads", 1, "--plot", chart, "--json"
    )
    assert code == 0
    rows = json.loads(out)["rows"]
    assert [row["name"] for row in rows] == [str(file), str(saved)]
    assert rows[0]["macs"] >= rows[1]["macs"]  # contraction never has fewer
    assert chart.read_text().startswith("<svg")


def test_export_and_bench_as_tables(saved, tmp_path):
    code, out, _ = tuckertree("export", saved, "--output", tmp_path / "net.pt2", "--dynamic", "none")
    assert code == 0
    assert "compared    inputs 1x3x32x32; 1x3x32x32\n" in out
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    assert loaded(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    code, out, _ = tuckertree(
        "bench", "demo", saved, "--runtime", "torch", "--rounds", 5, "--batch", 2, "--no-memory"
    )
    assert code == 0
    assert "realised: the first of them over the second" in out
    assert out.count(" torch ") == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["export", "demo", "-o", "{tmp}/net.txt"], 2, "does not say by its ending"),
        (["export", "demo", "-o", "{tmp}/there.onnx"], 1, "--overwrite"),
        (["export", "demo", "-o", "{tmp}/net.onnx", "--to", "coreml"], 2, "unknown format 'coreml'"),
        (["export", "demo", "-o", "{tmp}/net.pt2", "--dynamic", "all"], 2, "free sizes can be"),
        (["export", "demo", "-o", "{tmp}/net.pt2", "--contract", "caffe"], 2, "unknown runtime 'caffe'"),
        (["export", "demo", "-o", "{tmp}/net.pt2", "--contract", "torch"], 1, "nothing to contract"),
        (
            ["export", "demo", "-o", "{tmp}/net.onnx", "--quantize", "int4"],
            2,
            "quantized to int8, not 'int4'",
        ),
        (["export", "demo", "-o", "{tmp}/net.onnx", "--quantize", "int8"], 2, "belong together"),
        (["export", "demo", "-o", "{tmp}/net.pt2", "--data", "demo"], 2, "are for ONNX files"),
        (["export", "nosuch", "-o", "{tmp}/net.pt2"], 2, "unknown model"),
        (["export", "net.onnx", "-o", "{tmp}/net.pt2"], 2, "net.onnx is an ONNX file; inspect, compress"),
        (["bench", "demo", "--runtime", "torch,caffe"], 2, "unknown runtime 'caffe'"),
        (["bench", "demo", "--plot", "{tmp}/net.png"], 2, "written as SVG"),
        (["bench", "{tmp}/no.onnx"], 1, "no.onnx cannot be read: No such file"),
        (["bench", "demo", "--device", "cuda"], 2, "on the cpu alone"),
    ],
)
def test_bad_arguments_are_one_line_and_nothing_is_written(arguments, code, message, tmp_path):
    if "onnx" in str(arguments) or arguments[0] == "bench":
        pytest.importorskip("onnxruntime")
    (tmp_path / "there.onnx").touch()
    before = sorted(tmp_path.iterdir())
    exit_code, out, err = tuckertree(*(a.replace("{tmp}", str(tmp_path)) for a in arguments))
    assert (exit_code, out) == (code, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_is_exported_beside_itself(saved):
    code, out, _ = tuckertree("export", saved, "--to", "pt2", "--dynamic", "none", "--json")
    assert code == 0
    assert saved.with_suffix(".pt2").stat().st_size == json.loads(out)["size"]


def test_a_format_that_is_not_known_is_refused(saved):
    code, _, error = tuckertree("export", saved, "--to", "tflite")
    assert code == 2
    assert "tflite" in error
