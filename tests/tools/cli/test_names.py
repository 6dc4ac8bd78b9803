"""MODEL and images by name: what a name stands for, what is said of one that is nearly right, of random weights."""

import json

import pytest
import typer
from safetensors.torch import save_file

import tuckertree as tt
from tests.tools.cli.test_bad_input import refused
from tests.tools.cli.test_cli import tuckertree
from tuckertree.tools.assets import DEMO_WEIGHTS
from tuckertree.tools.cli import app

NAMESAKE = "ignore:demo is what is known"
LITTLE = ("--data-images", 20)
FITTED = ("--calibration", "demo", "--calibration-images", 16)


@pytest.fixture
def namesake(tmp_path, monkeypatch):
    """A working folder with a saved folder that is called demo."""
    monkeypatch.chdir(tmp_path)
    code, _, _ = tuckertree("compress", "demo", "--energy", 0.5, "--output", "demo")
    assert code == 0
    return tmp_path


@pytest.mark.filterwarnings(NAMESAKE)
def test_a_known_name_is_the_known_network_beside_a_folder_of_that_name(namesake):
    sizes = {}
    for name in ("demo", "./demo", namesake / "demo"):
        code, out, _ = tuckertree("evaluate", name, "--data", "demo", *LITTLE, "--json")
        assert code == 0
        sizes[name] = json.loads(out)["parameters"]
    dense, *saved = sizes.values()
    assert saved[0] == saved[1] < dense
    for command in (
        ("bench", "--rounds", 5, "--no-memory", "--runtime", "torch"),
        ("inspect",),
        ("export", "-o", "out.pt2"),
    ):
        with pytest.warns(UserWarning, match="demo is what is known by that name; .* say ./demo"):
            code, out, _ = tuckertree(command[0], "demo", *command[1:])
        assert (code, "compressed" in out) == (0, False)


def test_a_file_does_not_hide_a_name_either(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").write_text("notes")
    with pytest.warns(UserWarning, match="say ./demo"):
        assert tuckertree("inspect", "demo")[0] == 0
    code, err = refused("inspect", "./demo")
    assert (code, "no network that can be read" in err) == (2, True)


def test_a_folder_may_be_called_as_a_scheme_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("timm", "cifar10"):
        assert tuckertree("compress", "demo", "--energy", 0.5, "--output", name)[0] == 0
        code, out, _ = tuckertree("inspect", name)
        assert (code, f"{name} is compressed already" in out) == (0, True)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("mymodel.py:build", "name the module, not its file: mymodel:build"),
        ("./models/mymodel.py:build", "not its file: models.mymodel:build"),
        ("../mymodel.py:build", "not its file, in its folder: mymodel:build"),
        ("mymodel.py", "not its file: mymodel:FUNCTION"),
        ("cifar:resnet20", "here 'cifar10:resnet20'"),
        ("cifar-10:resnet20", "here 'cifar10:resnet20'"),
        ("cafe:googlenet", "here 'caffe:googlenet'"),
        ("resnet56", "here 'cifar10:resnet56'"),
    ],
)
def test_a_name_that_is_nearly_right_is_told_the_right_one(name, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mymodel.py").write_text("def build(): ...\n")
    code, err = refused("inspect", name)
    assert (code in (1, 2), meant in err) == (True, True), err


def test_random_weights_are_told_where_weights_matter(tmp_path):
    random = "cifar10:resnet20"
    compress = ("compress", "--energy", 0.5, "--include", "layer3.2.*", "-o")
    for number, (command, *options) in enumerate(
        [
            ("evaluate", "--data", "demo", *LITTLE),
            (*compress, tmp_path / "a"),
            (*compress, tmp_path / "b", *FITTED),
            ("export", "-o", tmp_path / "net.pt2"),
            ("inspect", "--spectra"),
        ]
    ):
        given = (*options, "--overwrite") if command == "compress" else options
        code, _, err = tuckertree(command, random, *given)
        assert (code, err.count("has random weights: give trained ones by --weights")) == (0, 1), number
    for command in (("inspect",), ("bench", "--rounds", 5, "--no-memory", "--runtime", "torch")):
        _, _, err = tuckertree(command[0], random, *command[1:])
        assert "random weights" not in err
    for model in (("demo",), (random, "--weights", DEMO_WEIGHTS)):
        _, _, err = tuckertree("evaluate", *model, "--data", "demo", *LITTLE)
        assert "random weights" not in err


def test_an_onnx_file_is_not_a_folder_and_the_message_says_what_does_it(tmp_path):
    file = tmp_path / "small.onnx"
    file.touch()
    out = ("-o", tmp_path / "out")
    code, err = refused("tune", file, "--calibration", "demo", *out)
    assert (code, "`tuckertree compress --tune 5min`" in err) == (2, True)
    code, err = refused("finetune", file, "--data", "demo", *out)
    assert (code, "cannot be trained" in err, "compress --tune" in err) == (2, True, True)
    code, err = refused("push", file, "some/body")
    assert (code, "it is a file" in err) == (1, True)


def test_methods_that_are_accepted_are_those_that_the_message_lists(tmp_path):
    code, err = refused("compress", "demo", "--params", 0.5, "--methods", "ht3", "-o", tmp_path / "o")
    listed = err.partition("known: ")[2].strip().removesuffix(", or default").split(", ")
    assert code == 2
    assert listed == ["ht2", "tucker2", "spatial", "svd", "depthwise", "cp", "channels"]
    with pytest.raises(tt.UsageError, match=r"cp, channels$"):
        tt.plan(tt.build("demo"), None, tt.Budget(macs=0.5), methods=("ht3",))


def test_limits_are_named_after_the_images_that_they_limit():
    commands = typer.main.get_command(app).commands
    for command, name in (
        ("evaluate", "data"),
        ("export", "data"),
        ("compare", "data"),
        ("compress", "data"),
        ("finetune", "data"),
        ("train", "data"),
        ("reproduce", "data"),
        ("tune", "calibration"),
        ("export", "calibration"),
        ("compress", "calibration"),
        ("compare", "calibration"),
        ("inspect", "calibration"),
    ):
        first = {option.opts[0] for option in commands[command].params}
        assert {f"--{name}", f"--{name}-images"} <= first, command


def test_what_is_shown_of_a_saved_folder_is_said(tmp_path):
    folder = tmp_path / "small"
    assert tuckertree("compress", "demo", "--energy", 0.5, "--exclude", "layer1.*", "-o", folder)[0] == 0
    plan = tt.Plan.from_json(json.loads((folder / "config.json").read_text())["plan"])
    code, out, _ = tuckertree("inspect", folder)
    assert code == 0
    assert f"{folder} is compressed already" in out.replace("\n", "")
    assert "as saved: " in out
    for layer in plan.compressed[:3]:
        (line,) = [line for line in out.splitlines() if f" {layer.name} " in line]
        assert f" {layer.method} " in line
        assert f" {'/'.join(map(str, layer.ranks))} " in line
    code, out, _ = tuckertree("inspect", folder, "--json")
    assert tt.Plan.from_json(json.loads(out)["plan"]) == plan
    code, out, _ = tuckertree("inspect", folder, "--spectra")
    assert (code, "is compressed already" in out) == (0, True)
    for model in ("demo", "cifar10:resnet20"):
        _, out, _ = tuckertree("inspect", model)
        assert "compressed already" not in out


def test_old_names_of_limits_are_taken_too(tmp_path):
    found = [
        tuckertree("evaluate", "demo", "--data", "demo", name, 20, "--json")[1]
        for name in ("--data-images", "--limit")
    ]
    assert found[0] == found[1]


def test_bench_says_what_the_sizes_are_of():
    _, out, _ = tuckertree("bench", "demo", "--rounds", 5, "--no-memory", "--runtime", "torch")
    assert "size: of an ONNX file, or a folder's file of weights" in out


def test_weights_alone_say_nothing_of_their_network(tmp_path):
    file = tmp_path / "demo.safetensors"
    save_file(tt.build("demo").state_dict(), file)
    code, err = refused("inspect", file)
    assert (code, "--weights" in err) == (2, True)
