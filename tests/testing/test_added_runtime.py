"""A runtime of somebody else: the one of docs/add-a-runtime.md, and what is refused."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import tuckertree as tt
from tests.tools.cli.test_cli import tuckertree
from tuckertree._base.errors import UsageError
from tuckertree.io.export import export
from tuckertree.runtimes import Runnable, Runtime, get_runtime, register_runtime, registry

pytest.importorskip("onnxscript")

PAGE = (Path(__file__).parents[2] / "docs/add-a-runtime.md").read_text(encoding="utf-8")
EXAMPLE = PAGE.split("```python\n")[1].split("```")[0]
before = dict(registry._KINDS)
found = {"__name__": "example"}
exec(compile(EXAMPLE, "docs/add-a-runtime.md", "exec"), found)
registered = dict(registry._KINDS)
registry._KINDS.clear()
registry._KINDS.update(before)
TestOnnxReference = found["TestOnnxReference"]


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("TUCKERTREE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "_KINDS", dict(registered))


def test_the_example_is_short():
    assert len(EXAMPLE.splitlines()) < 60


def test_an_added_runtime_is_used_like_the_others(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    export(network, tmp_path / "net.onnx", torch.zeros(1, 3, 5, 5), dynamic="none")
    arguments = ("--runtime", "onnx-reference", "--rounds", 5, "--no-memory")
    code, out, _ = tuckertree("bench", tmp_path / "net.onnx", *arguments)
    assert (code, out.count("onnx-ref")) == (0, 1)
    assert tt.Budget(latency="2x", runtime="onnx-reference").runtime == "onnx-reference"


class Weights(Runtime):
    """Runs what it has written: the whole module, by torch's own format of weights."""

    name, format, suffix = "weights", "weights", ".weights"
    version = "1"

    def load(self, model, inputs):
        return get_runtime("torch").load(model, inputs)

    def write(self, model, inputs, path, dynamic="none"):
        torch.save(model, path)

    def open(self, path):
        return get_runtime("torch").load(torch.load(path, weights_only=False), [])


def test_its_format_is_exported_to_and_compared(tmp_path, monkeypatch):
    register_runtime(Weights)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    done = export(network, tmp_path / "net.weights", torch.zeros(1, 3, 5, 5))
    assert (done.to, done.difference) == ("weights", 0)
    monkeypatch.setattr(Weights, "write", lambda *_: torch.save(nn.Flatten(), _[3]))
    with pytest.raises(tt.TuckertreeError, match="gives outputs"):
        export(network, tmp_path / "other.weights", torch.zeros(1, 3, 5, 5))
    assert [path.name for path in tmp_path.iterdir()] == ["net.weights"]


@pytest.mark.parametrize(
    ("clause", "message"),
    [
        ({"name": "torch"}, "the name 'torch' of TorchRuntime"),
        ({"name": "Two words"}, "small letters"),
        ({"name": ""}, "small letters"),
        ({"format": "onnx"}, "the format 'onnx' of OnnxRuntime"),
        ({"suffix": ".xml"}, r"the suffix '\.xml' of OpenVino"),
        ({"suffix": "xml"}, "a format and a suffix"),
        ({"suffix": ""}, "a format and a suffix"),
        ({"devices": ()}, "names no device"),
        ({"load": Runtime.load}, "lacks load"),
    ],
)
def test_a_runtime_that_breaks_its_contract_is_refused_by_the_clause(clause, message):
    known = dict(registry._KINDS)
    with pytest.raises(UsageError, match=message):
        register_runtime(
            type("Broken", (Weights,), {"name": "broken", "format": "b", "suffix": ".b", **clause})
        )
    with pytest.raises(UsageError, match="is a subclass of"):
        register_runtime(Runnable)
    assert known == registry._KINDS


def test_a_runtime_may_be_defined_anew():
    for _ in range(2):
        register_runtime(type("Weights", (Weights,), {}))


def test_installed_packages_add_runtimes_and_those_that_cannot_be_used_are_warned_of(tmp_path, monkeypatch):
    info = tmp_path / "added-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: added\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[tuckertree.runtimes]\nweights = added_runtime:Weights\nlost = no_such_module:X\n"
    )
    (tmp_path / "added_runtime.py").write_text("from tests.testing.test_added_runtime import Weights\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry._load_installed.cache_clear()
    with pytest.warns(UserWarning, match="the installed runtime lost .* cannot be used: No module named"):
        assert get_runtime("weights", threads=1).version == "1"
    sys.modules.pop("added_runtime", None)
    registry._load_installed.cache_clear()
