"""The command line as a user runs it."""

import json
import subprocess
import sys
from inspect import signature

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tuckertree.tools.assets import DEMO_WEIGHTS
from tuckertree.tools.cli import app
from tuckertree.tools.cli.app import show_warning
from tuckertree.tools.models import resolve
from tuckertree.tools.opening import open_model


def tuckertree(*arguments):
    """Run a command in this process; gives exit code, stdout and stderr."""
    apart = (
        {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}
    )  # before click 8.2
    done = CliRunner(**apart).invoke(app, [str(a) for a in arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def test_the_installed_command_prints_its_version():
    done = subprocess.run([sys.executable, "-m", "tuckertree", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(".") == 2


def test_inspect_lists_layers_as_a_table_and_as_json():
    code, out, _ = tuckertree("inspect", "cifar10:resnet20")
    assert code == 0
    assert "layer3.2.conv2" in out
    assert "64x64x3x3" in out
    code, out, _ = tuckertree("inspect", "cifar10:resnet20", "--json")
    assert len(json.loads(out)["layers"]) == 20


def test_compress_then_evaluate_what_was_saved(tmp_path):
    folder = tmp_path / "r20"
    code, out, _ = tuckertree("compress", "demo", "--energy", 0.95, "--output", folder)
    assert code == 0
    assert "layer1.0.conv1" in out
    assert f"saved       {folder}" in out
    code, out, _ = tuckertree("evaluate", folder, "--data", "demo", "--limit", 200, "--json")
    assert code == 0
    found = json.loads(out)
    report = json.loads((folder / "report.json").read_text())
    assert found["images"] == 200
    assert [found["parameters"], found["macs"]] == [report["parameters"][1], report["macs"][1]]
    assert 40 < found["top1"] <= found["top5"] <= 100


def test_evaluate_the_dense_demo_network():
    code, out, _ = tuckertree("evaluate", "demo", "--data", "demo", "--limit", 200)
    assert code == 0
    top1 = float(next(line for line in out.splitlines() if line.startswith("top-1")).split()[1])
    assert top1 > 88


def test_compress_prints_json_and_leaves_layers_out(tmp_path):
    code, out, _ = tuckertree(
        "compress",
        "demo",
        "--error",
        0.5,
        "--exclude",
        "layer1.*",
        "--first",
        "dense",
        "--json",
        "-o",
        tmp_path / "o",
    )
    assert code == 0
    methods = {layer["name"]: layer["method"] for layer in json.loads(out)["plan"]["layers"]}
    assert methods["conv1"] == methods["layer1.0.conv1"] == "dense"
    assert methods["layer3.2.conv2"] == "ht2"


def test_compress_takes_the_methods_that_it_is_given(tmp_path):
    path = tmp_path / "out"
    code, out, _ = tuckertree(
        "compress",
        "demo",
        "--macs",
        0.7,
        "--methods",
        "cp, svd",
        "--include",
        "layer1.*",
        "--json",
        "-o",
        path,
    )
    assert code == 0
    methods = {layer["method"] for layer in json.loads(out)["plan"]["layers"]}
    assert "cp" in methods <= {"cp", "svd", "dense"}
    code, out, _ = tuckertree("evaluate", path, "--data", "demo", "--limit", 20)
    assert code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--macs", 0.5, "--methods", "ht2,tt"),
            "unknown method 'tt'; known: ht2, tucker2, spatial, svd, depthwise, cp",
        ),
        (("--macs", 0.5, "--methods", ""), "unknown method ''; known: ht2"),
        (("--energy", 0.5, "--methods", "cp"), "methods belong to a budget"),
    ],
)
def test_methods_that_cannot_be_are_refused_before_anything_is_written(tmp_path, options, message):
    code, _, err = tuckertree("compress", "demo", *options, "-o", tmp_path / "out")
    assert code != 0
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_budget_with_unlabelled_images_keeps_what_the_energy_rule_loses(tmp_path):
    budget = ("--params", "0.5", "--calibration", "demo", "--calibration-images", 128)
    code, out, _ = tuckertree("compress", "demo", *budget, "--output", tmp_path / "out")
    assert code == 0
    assert "above the best possible" in out
    code, out, _ = tuckertree("evaluate", tmp_path / "out", "--data", "demo", "--limit", 300, "--json")
    found = json.loads(out)
    assert found["parameters"] <= 0.5 * 269_722
    assert found["top1"] > 80  # an energy that halves the network leaves about a third of this


def test_the_curve_rises_as_the_budget_falls():
    code, out, _ = tuckertree("inspect", "demo", "--curve", "--by", "macs", "--json")
    assert code == 0
    points = json.loads(out)
    assert [p["loss"] for p in points] == sorted((p["loss"] for p in points), reverse=True)
    assert [p["macs"] for p in points] == sorted(p["macs"] for p in points)
    assert points[-1]["loss"] == 0


@pytest.fixture
def spoilt_weights(tmp_path):
    tensors = load_file(DEMO_WEIGHTS)
    tensors["layer1.0.conv1.weight"][0] = float("nan")
    save_file(tensors, tmp_path / "nan.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(DEMO_WEIGHTS.read_bytes()[:1000])
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickle.pth")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["compress", "demo", "--energy", 0.5, "--macs", "0.5"],
            2,
            "give one of --energy, --error, or a budget",
        ),
        (["compress", "demo", "--macs", "1.5"], 2, "macs must be a share in (0, 1] or a factor"),
        (["compress", "demo", "--params", "0.001"], 3, "the nearest within reach is params 0.0"),
        (["compress", "demo", "--macs", "0.5", "--objective", "outputs"], 2, "needs calibration images"),
        (["compress", "demo", "--macs", "0.5", "--objective", "luck"], 2, "unknown objective 'luck'"),
        (["compress", "demo", "--energy", "0.5", "--objective", "weight"], 2, "belongs to a budget"),
        (["compress", "demo", "--macs", "0.5", "--calibration", "{tmp}/nowhere"], 1, "nowhere"),
        (["compress", "cifar10:resnet21", "--energy", 0.5], 2, "unknown model 'cifar10:resnet21'"),
        (["compress", "nosuch", "--energy", 0.5], 2, "unknown model 'nosuch'"),
        (["compress", "demo", "--energy", 1.5], 2, r"energy must be in (0, 1], got 1.5"),
        (["compress", "demo", "--energy", 0], 2, "energy must be in (0, 1], got 0"),
        (["compress", "demo"], 2, "give one of --energy, --error, or a budget"),
        (
            ["compress", "demo", "--energy", 0.5, "--first", "last"],
            2,
            "the first layer can be svd, ht2, dense",
        ),
        (["compress", "demo", "--energy", 0.5, "--include", "fc*"], 2, "no layer is named 'fc*'"),
        (
            ["compress", "demo", "--energy", 0.5, "--input-size", "3,x"],
            2,
            "--input-size must be positive integers",
        ),
        (["compress", "demo", "--energy", 0.5, "--input-size", "1,32,32"], 1, "example input [1, 1, 32, 32]"),
        (["compress", "demo", "--energy", 0.5, "--device", "cuda:99"], 2, "device 'cuda:99' cannot be used"),
        (["compress", "demo", "--energy", 1], 3, "nothing to compress: all 20 layers stay dense"),
        (
            ["compress", "demo", "--energy", 0.5, "--weights", "{tmp}/nosuch.safetensors"],
            1,
            "nosuch.safetensors",
        ),
        (
            ["compress", "demo", "--energy", 0.5, "--weights", "{tmp}/nan.safetensors"],
            1,
            "layer1.0.conv1.weight",
        ),
        (["compress", "demo", "--energy", 0.5, "--weights", "{tmp}/cut.safetensors"], 1, "cut.safetensors"),
        (["compress", "demo", "--energy", 0.5, "--weights", "{tmp}/pickle.pth"], 1, "pickle.pth"),
        (["compress", "cifar10:resnet56", "--energy", 0.5, "--weights", str(DEMO_WEIGHTS)], 1, "layer1.3"),
        (
            ["compress", "no.such.module:factory", "--energy", 0.5],
            1,
            "no.such.module:factory cannot be built",
        ),
    ],
)
def test_bad_input_gets_one_line_and_a_code_and_nothing_is_written(arguments, code, message, spoilt_weights):
    arguments = [str(a).replace("{tmp}", str(spoilt_weights)) for a in arguments]
    before = sorted(spoilt_weights.iterdir())
    exit_code, out, err = tuckertree(*arguments, "--output", spoilt_weights / "out")
    assert (exit_code, out) == (code, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(spoilt_weights.iterdir()) == before


def test_what_a_file_says_gives_the_terminal_no_orders(tmp_path, capsys):
    weights = tmp_path / "hostile.safetensors"
    save_file({"a\x1b]0;owned\x07\x1b[2J[bold]:bomb:": torch.zeros(1)}, weights)
    code, _, err = tuckertree("compress", "demo", "--energy", 0.5, "--weights", weights, "-o", tmp_path / "o")
    assert (code, err.count("\n"), err[:-1].isprintable()) == (1, 1, True)
    show_warning(UserWarning("b\x1b[2J\n [bold]:bomb:"))
    assert capsys.readouterr().err == "warning: b?[2J [bold]:bomb:\n"


def test_the_device_is_offered_only_where_all_of_it_works():
    _, out, _ = tuckertree("compress", "--help")
    assert "mps" not in out


def test_output_that_exists_is_refused_before_any_work(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    code, _, err = tuckertree("compress", "nosuch", "--energy", 0.5, "--output", tmp_path / "mine")
    assert (code, "holds other files" in err) == (1, True)


def test_evaluate_refuses_what_is_no_folder_of_ours(tmp_path):
    code, _, err = tuckertree("evaluate", tmp_path, "--data", "demo")
    assert (code, "it has no config.json" in err) == (1, True)


def test_ctrl_c_says_so_and_writes_nothing(tmp_path, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tuckertree.io.folder.save_tensors", interrupt)
    code, _, err = tuckertree("compress", "demo", "--energy", 0.5, "--output", tmp_path / "out")
    assert (code, err) == (130, "error: interrupted; nothing was written\n")
    assert not list(tmp_path.iterdir())


def test_a_factory_typed_by_the_user(tmp_path, monkeypatch):
    (tmp_path / "mymodels.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(256, 10))\n"
    )
    monkeypatch.chdir(tmp_path)
    factory = "mymodels:net"
    code, _, err = tuckertree("compress", factory, "--energy", 0.3, "-o", tmp_path / "out")
    assert (code, f"give --input-size: {factory}" in err) == (2, True)
    code, _, _ = tuckertree(
        "compress", factory, "--energy", 0.3, "--input-size", "3,8,8", "-o", tmp_path / "out"
    )
    assert code == 0
    code, _, err = tuckertree("evaluate", tmp_path / "out", "--data", "demo")
    assert (code, "--model package.module:factory" in err) == (1, True)
    code, out, _ = tuckertree(
        "evaluate", tmp_path / "out", "--data", "demo", "--limit", 20, "--model", factory
    )
    assert (code, "images      20" in out) == (0, True)  # resized to the size that the folder remembers
    code, out, _ = tuckertree("inspect", tmp_path / "out", "--model", factory)
    assert (code, "at input 1x3x8x8" in out) == (0, True)
    code, out, _ = tuckertree("inspect", tmp_path / "out", "--model", factory, "--input-size", "3,8,16")
    assert (code, "at input" in out) == (1, False)  # what is given counts, and does not fit this classifier


def test_a_folder_of_a_known_network_remembers_its_size_too(tmp_path):
    for size, name in (("3,64,48", "other"), ("3,32,32", "usual")):
        made = ("compress", "cifar10:resnet20", "--energy", 0.5, "--input-size", size, "-o", tmp_path / name)
        assert tuckertree(*made)[0] == 0
        code, out, _ = tuckertree("inspect", tmp_path / name)
        assert (code, f"at input 1x{size.replace(',', 'x')}" in out) == (0, True)
    assert open_model(tmp_path / "usual").preprocessing == resolve("cifar10:resnet20").preprocessing


def test_demo_shows_every_way_and_saves_it(tmp_path):
    ways = ("--energy", 0.9, "--energy", 0.5, "--params", 0.6)
    code, out, err = tuckertree("demo", *ways, "--output", tmp_path / "demo", "--json")
    assert code == 0
    # Without a terminal, too, it says how far it is.
    assert [line.partition(":")[0] for line in err.splitlines()][:2] == ["energy 0.9", "energy 0.5"]
    dense, better, worse, budget = json.loads(out)
    assert all(row["torch_ms"] > 0 for row in (dense, better, worse, budget))
    assert dense["top1"] > 90
    assert dense["parameters"] > better["parameters"] > worse["parameters"]
    assert 0 == dense["error"] < better["error"] < worse["error"] < 1
    assert budget["parameters"] <= 0.6 * dense["parameters"]
    assert dense["top1"] > budget["top1"] > better["top1"]
    assert sorted(p.name for p in (tmp_path / "demo").iterdir()) == ["energy-0.5", "energy-0.9", "params-0.6"]
    code, _, err = tuckertree("demo", *ways, "--output", tmp_path / "demo")
    assert (code, "--overwrite" in err) == (1, True)
