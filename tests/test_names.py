"""What a file names is never imported; what the user types may be."""

import ast
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from inspect import signature
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch

import tuckertree as tt
from tests.test_packages import FILES, SOURCE, imports
from tests.tools.cli.test_cli import tuckertree
from tests.tools.recipes.cases import TEXT
from tuckertree._base.names import TrustedName, UntrustedName
from tuckertree.io import read_config
from tuckertree.tools.bench.memory import peak_memory
from tuckertree.tools.cli import app
from tuckertree.tools.opening import open_model

PAYLOAD = (
    "import os, pathlib\npathlib.Path({marker!r}).touch()\ndef f():\n    raise AssertionError('called')\n"
)
MODEL = (
    "from torch import nn\n"
    "def build():\n"
    "    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(256, 10))\n"
)

# What a command that a new parameter or command brings along is given where the parameter must be there.
GIVEN = {
    "result": "{sound}",
    "model": "{model}",
    "models": "{model}",
    "folder": "{sound}",
    "recipe": "{recipe}",
    "name": "no owner",
    "data": "demo",
    "calibration": "demo",
}
OUTPUTS = {"export": "{tmp}/out.onnx", "train": "{tmp}/out.safetensors"}
BESIDE = {"compress": ["--energy", "0.5"], "demo": ["--energy", "1.5"], "train": ["--epochs", "1"]}
TEXTS = {str, Path, TrustedName}


def commands():
    return {
        command.name or command.callback.__name__: command.callback for command in app.registered_commands
    }


def parameters(callback):
    """Name, annotation's type with its lists and Nones, typer's info, and whether it must be given."""
    hints = get_type_hints(callback, include_extras=True)
    for name, parameter in signature(callback).parameters.items():
        kind, info = get_args(hints[name])[:2]
        yield name, kind, info, parameter.default is parameter.empty


def kinds(kind):
    return {kind}.union(*(kinds(inner) for inner in get_args(kind)))


def is_argument(info):
    return type(info).__name__ == "ArgumentInfo"


def flag(name, info):
    """The option's name; typer keeps a first one where it keeps defaults."""
    named = [text for text in (info.default, *(info.param_decls or ())) if str(text).startswith("--")]
    return None if is_argument(info) else (named or [f"--{name.replace('_', '-')}"])[0]


TEXT_PARAMETERS = [
    (command, name)
    for command, callback in commands().items()
    for name, kind, _, _ in parameters(callback)
    if kinds(kind) & TEXTS
]
OPENING = [
    command
    for command, callback in commands().items()
    if any(flag(name, info) == "--model" for name, _, info, _ in parameters(callback))
]


def line_of(command, places, chosen, value):
    """The arguments of a command, harmless but for one."""
    arguments = list(BESIDE.get(command, ()))
    for name, _, info, required in parameters(commands()[command]):
        if name == chosen:
            text = value
        elif name == "output":
            text = OUTPUTS.get(command, "{tmp}/out").format(**places)
        elif required:
            text = GIVEN[name].format(**places)
        else:
            continue
        arguments += [text] if is_argument(info) else [flag(name, info), text]
    return [command, *arguments]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder of ours."""
    folder = tmp_path_factory.mktemp("sound") / "net"
    example = torch.zeros(1, 3, 32, 32)
    tt.compress(tt.build("demo"), example, tt.Energy(0.5), include=["layer3.1.*"]).save(folder)
    return folder


class Trap:
    """A folder that names code, the code within reach of every import, and a mark that it leaves if it runs."""

    def __init__(self, root, sound):
        self.folder, self.marker = root / "hostile", root / "ran"
        shutil.copytree(sound, self.folder)
        for place in (self.folder, self.folder / "inner", root / "path"):
            place.mkdir(exist_ok=True)
            (place / "payload.py").write_text(PAYLOAD.format(marker=str(self.marker)))
        (root / "recipe.yaml").write_text(TEXT)
        self.places = {"tmp": root, "sound": sound, "model": "demo", "recipe": root / "recipe.yaml"}

    def name(self, architecture):
        config = self.folder / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"architecture": architecture}))

    def assert_unsprung(self):
        assert not self.marker.exists()
        assert not {name for name in sys.modules if "payload" in name}


@pytest.fixture
def trap(tmp_path, sound, monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked")

    made = Trap(tmp_path, sound)
    made.name("payload:f")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.syspath_prepend(tmp_path / "path")
    monkeypatch.syspath_prepend(made.folder)
    monkeypatch.syspath_prepend("")
    monkeypatch.chdir(made.folder)
    return made


def test_every_command_that_opens_a_model_lets_the_user_say_how_it_is_built():
    for command, callback in commands().items():
        takes = {name for name, kind, _, _ in parameters(callback) if TrustedName in kinds(kind)}
        assert command in OPENING or not takes


@pytest.mark.parametrize(("command", "parameter"), TEXT_PARAMETERS)
def test_no_command_runs_what_a_folder_names_wherever_the_folder_is_given(command, parameter, trap):
    if parameter == "architecture":
        trap.places["model"] = trap.places["sound"]
    arguments = line_of(command, trap.places, parameter, str(trap.folder))
    code, _, err = tuckertree(*arguments)
    trap.assert_unsprung()
    if code != 0 and "Usage" not in err:
        assert err.splitlines()[-1].startswith("error: ")
    if parameter in ("model", "models", "folder", "architecture", "teacher"):
        assert (code in (1, 2), err.count("\n")) == (True, 1)
        assert not any(
            (trap.places["tmp"] / name).exists() for name in ("out", "out.onnx", "out.safetensors")
        )


@pytest.mark.parametrize("name", ["payload:f", "inner.payload:f", "hostile.payload:f", "os:getcwd"])
@pytest.mark.parametrize("command", OPENING)
def test_a_folder_that_names_code_is_refused_in_one_line_that_asks_for_the_model(command, name, trap):
    if command == "bench":
        pytest.importorskip("onnxruntime")
    trap.name(name)
    parameter = next(name for name, _, info, _ in parameters(commands()[command]) if is_argument(info))
    for cwd, given in ((trap.folder, "."), (trap.folder.parent, "hostile")):
        os.chdir(cwd)
        code, out, err = tuckertree(*line_of(command, trap.places, parameter, given))
        trap.assert_unsprung()
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert f"unknown model '{name}'" in err
        assert "--model package.module:factory" in err


@pytest.mark.parametrize(
    "name",
    [
        "payload:f",
        "hostile",
        "./hostile",
        "{sound}",
        "{sound}/",
        "net.onnx",
        "timm:hf-hub:somebody/resnet18",
        "timm:local-dir:{folder}",
        "timm:payload.f",
        "hf-hub:somebody/resnet18",
        "hf:somebody/resnet18",
        "torchvision:payload:f",
        "torchvision:models.payload",
        "cifar10:resnet20?build=payload",
        "caffe:payload",
        "demo:payload",
        "demo?payload",
        "",
        "__import__('payload')",
    ],
)
def test_a_name_from_a_file_is_looked_up_and_never_imported_opened_or_fetched(name, trap):
    pytest.importorskip("timm")
    name = name.format(sound=trap.places["sound"], folder=trap.folder)
    trap.name(name)
    for use in (
        lambda: tt.load(trap.folder),
        lambda: open_model(trap.folder),
        lambda: open_model(UntrustedName(name)),
    ):
        with pytest.raises(tt.TuckertreeError) as caught:
            use()
        assert "\n" not in str(caught.value)
    trap.assert_unsprung()
    (trap.places["recipe"]).write_text(TEXT.replace("network: demo", f"network: {json.dumps(name)}"))
    code, _, err = tuckertree(
        "reproduce", trap.places["recipe"], "--data", "demo", "-o", trap.folder.parent / "out"
    )
    trap.assert_unsprung()
    assert (code, err.count("\n")) == (2, 1)


def test_a_name_from_a_file_is_no_folder_even_where_one_of_this_name_is(trap, monkeypatch):
    monkeypatch.chdir(trap.folder.parent)
    for name in ("demo", "cifar10:resnet20"):
        shutil.copytree(trap.folder, name)
        assert open_model(UntrustedName(name)).plan is None
        with pytest.warns(UserWarning, match=f"say ./{name}"):
            assert open_model(TrustedName(name)).plan is None
        with pytest.raises(tt.TuckertreeError, match="into=model"):
            open_model(TrustedName(f"./{name}"))
    trap.assert_unsprung()


def test_what_the_user_types_opens_such_a_folder(trap, monkeypatch):
    pytest.importorskip("onnxruntime")
    (trap.folder.parent / "path" / "own_model.py").write_text(MODEL)
    typed = ("--model", "own_model:build", "--input-size", "3,8,8")
    out = trap.folder.parent / "made"
    code, _, _ = tuckertree("compress", "own_model:build", "--error", 0.9, *typed[2:], "-o", out)
    assert code == 0
    assert read_config(out).architecture is None
    trap.folder = out
    for name in (None, "payload:f"):
        trap.name(name)
        for command in (["inspect"], ["bench"], ["export"]):
            code, _, err = tuckertree(*command, out)
            assert (code, "--model" in err) == (1, True)
        code, shown, _ = tuckertree("inspect", out, *typed, "--json")
        assert (code, len(json.loads(shown)["layers"]) >= 3) == (0, True)
    trap.assert_unsprung()
    sys.modules.pop("own_model")


def test_a_type_that_neither_mypy_nor_python_lets_through(tmp_path):
    api = pytest.importorskip("mypy.api")
    snippet = tmp_path / "snippet.py"
    snippet.write_text(
        "from tuckertree.io.folder import SavedConfig\n"
        "from tuckertree._base.names import TrustedName, UntrustedName\n"
        "from tuckertree.tools.opening import open_model\n"
        "def use(config: SavedConfig, text: str, typed: TrustedName) -> None:\n"
        "    assert config.architecture is not None\n"
        "    open_model(config.architecture)\n"
        "    open_model(typed, architecture=typed)\n"
        "    typed.call()\n"
        "    config.architecture.call()\n"
        "    TrustedName(config.architecture)\n"
        "    open_model(config.architecture.text)\n"
        "    open_model(typed, architecture=config.architecture)\n"
        "    open_model(text)\n"
        "    text.call()\n"
    )
    files = [SOURCE / "_base/names.py", SOURCE / "tools/opening.py", SOURCE / "io/folder.py", snippet]
    options = [
        "--follow-imports=skip",
        "--ignore-missing-imports",
        "--config-file=",
        f"--cache-dir={tmp_path}",
    ]
    out, _, _ = api.run([*options, *map(str, files)])
    refused = {int(line) for line in re.findall(r"snippet\.py:(\d+): error", out)}
    assert refused == {9, 10, 11, 12, 13, 14}, out
    with pytest.raises(TypeError, match="not what the user typed"):
        TrustedName(UntrustedName("payload:f"))
    for name in ("own:build", Path("own")):
        assert not hasattr(name, "call")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_one_type_alone_imports_by_name_and_the_command_line_alone_makes_it(path):
    if path.name not in ("names.py", "extras.py"):
        assert not {"importlib", "runpy", "imp", "pkgutil", "pickle5", "code", "marshal", "shelve"} & set(
            imports(path)
        )
    called = {
        node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    }
    refused = {
        "TrustedName",
        "eval",
        "exec",
        "compile",
        "__import__",
        "pickle.load",
        "pickle.loads",
        "yaml.load",
    }
    assert not called & refused


def test_a_process_of_ours_imports_nothing_from_the_working_folder(tmp_path, monkeypatch):
    marker = tmp_path / "ran"
    for name in ("torch", "json", "numpy", "typer", "rich", "safetensors", "tuckertree"):
        (tmp_path / f"{name}.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n")
    monkeypatch.chdir(tmp_path)
    with suppress(tt.TuckertreeError):  # there is no such file, which is found out when all is imported
        peak_memory("torch", 1, tmp_path / "net.pt2", torch.zeros(1, 3, 8, 8))
    assert not marker.exists()
    (tmp_path / "tuckertree.py").unlink()  # which python -m would take for us
    done = subprocess.run([sys.executable, "-m", "tuckertree", "inspect", "nosuch"], capture_output=True)
    assert (done.returncode, marker.exists()) == (2, False)
