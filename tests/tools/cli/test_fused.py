"""A folder made for a latency is run as it was measured, and trained on in its factors."""

import json
from dataclasses import replace

import pytest
import torch

import tuckertree as tt
from tests.latency.cases import timed
from tests.strategies import CUT_METHODS
from tests.tools.cli.test_cli import tuckertree
from tuckertree._base.names import TrustedName
from tuckertree.core.layers import Chain
from tuckertree.measure import count_macs, count_parameters
from tuckertree.planning import Budget, Latency, make_plan
from tuckertree.tools.opening import open_model

IMAGE = torch.zeros(1, 3, 32, 32)
LATENCY = Latency("onnxruntime 9", 1, 1, 1e-3, 0.7, 0.7, 0.7, 0.7, 0.7, 1)


@pytest.fixture(scope="module")
def result():
    """The demo, planned by the times of a made-up machine."""
    model = tt.build("demo")
    inventory, candidates, _, options = timed(model, IMAGE, include=("layer3.*",), methods=CUT_METHODS)
    plan = replace(make_plan(inventory, candidates, Budget(latency=0.8), options), latency=LATENCY)
    assert any(layer.form and len(layer.form) < len(layer.ranks) for layer in plan.compressed)
    return tt.CompressionResult(tt.apply(model, plan), plan, {}, 0.0, architecture="demo")


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    return result.save(tmp_path_factory.mktemp("timed") / "out")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    model = tt.build("demo")
    path = tmp_path_factory.mktemp("plain") / "out"
    return tt.compress(model, IMAGE, energy=0.5, include="layer3.2.*").save(path)


def cuts_of(model):
    return {name: module.cuts for name, module in model.named_modules() if isinstance(module, Chain)}


def planned(plan, *, fused):
    found = {layer.name: layer.form for layer in plan.compressed if layer.form}
    return found if fused else {layer.name: len(layer.ranks) for layer in plan.compressed}


def test_what_is_returned_fused_has_the_planned_layers_and_is_the_same_function(result, folder):
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for fused, factored in (
        (result.fused(), result.model),
        (tt.load(folder, fused=True), tt.load(folder)),
        (
            open_model(TrustedName(str(folder)), fused=True).model,
            open_model(TrustedName(str(folder))).model,
        ),
    ):
        assert cuts_of(fused) == planned(result.plan, fused=True)
        assert {name: len(cuts) for name, cuts in cuts_of(factored).items()} == planned(
            result.plan, fused=False
        )
        with torch.no_grad():
            torch.testing.assert_close(fused(x), factored(x), atol=1e-4, rtol=1e-4)


def test_without_a_latency_there_is_nothing_to_fuse(plain):
    result = tt.compress(tt.build("demo"), IMAGE, energy=0.5, include="layer3.2.*")
    assert result.fused() is result.model
    assert str(tt.load(plain, fused=True)) == str(tt.load(plain)) == str(result.model)
    assert not open_model(TrustedName(str(plain)), fused=True).fused


@pytest.mark.parametrize("fused", [True, False])
def test_the_commands_run_what_was_measured_unless_told_otherwise(result, folder, fused, tmp_path):
    model = result.fused() if fused else result.model
    options = () if fused else ("--no-fused",)
    code, out, _ = tuckertree("evaluate", folder, "--data", "demo", "--limit", 50, "--json", *options)
    found = json.loads(out)
    assert (code, found["fused"]) == (0, fused)
    assert (found["parameters"], found["macs"]) == (count_parameters(model), count_macs(model, IMAGE))
    bench = ("--runtime", "torch", "--rounds", 5, "--no-memory", "--json")
    code, out, _ = tuckertree("bench", "demo", folder, *bench, *options)
    found = json.loads(out)
    assert (code, found["fused"]) == (0, fused)
    assert [row["macs"] for row in found["rows"]] == [
        count_macs(tt.build("demo"), IMAGE),
        count_macs(model, IMAGE),
    ]
    file = tmp_path / "net.pt2"
    code, out, _ = tuckertree("export", folder, "-o", file, "--dynamic", "none", "--json", *options)
    assert (code, json.loads(out)["fused"]) == (0, fused)
    nodes = torch.export.load(file).graph.nodes
    layers = sum(isinstance(module, torch.nn.Conv2d) for module in model.modules())
    assert sum("conv2d" in str(node.target) for node in nodes) == layers


def test_the_output_says_so_in_one_line(folder, plain, tmp_path):
    commands = {
        "evaluate": ("--data", "demo", "--limit", 20),
        "export": ("-o", tmp_path / "net.pt2", "--overwrite"),
        "bench": ("--runtime", "torch", "--rounds", 5, "--no-memory"),
    }
    for command, options in commands.items():
        for source, lines in ((folder, 1), (plain, 0)):
            code, out, _ = tuckertree(command, source, *options)
            assert code == 0
            assert out.count("fused       ") == out.count("as measured on onnxruntime 9") == lines
        code, out, err = tuckertree(command, plain, *options, "--no-fused")
        assert (code, out) == (2, "")
        assert err == "error: --no-fused belongs to a folder that was compressed with --latency\n"


def test_contraction_starts_from_the_factors(folder, tmp_path):
    arguments = ("export", folder, "-o", tmp_path / "net.pt2", "--contract", "torch")
    code, _, err = tuckertree(*arguments, "--no-fused")
    assert (code, err.count("\n")) == (2, 1)
    assert "leave --no-fused out" in err
    assert not (tmp_path / "net.pt2").exists()
