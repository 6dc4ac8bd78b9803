"""Saved folders on a hub: what is pushed, what is fetched, and what is refused; the hub is a stub on this machine."""

import importlib
import json
import pickle
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

import tuckertree as tt
from tests import networks
from tests.io.hub_stub import TOKEN, Hub, Repository, etag, serving
from tests.tools.cli.test_cli import tuckertree
from tuckertree._base.names import TrustedName, UntrustedName
from tuckertree.io import read_config
from tuckertree.io.folder import SavedConfig
from tuckertree.io.hub import local_folder
from tuckertree.io.model_card import model_card
from tuckertree.tools.opening import open_model

constants = pytest.importorskip("huggingface_hub.constants")
X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
NAME = "somebody/small_r20"
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's package


@pytest.fixture(scope="module")
def result():
    return tt.compress(tt.build("demo"), torch.zeros(1, 3, 32, 32), energy=0.4)


@pytest.fixture(scope="module")
def saved(result, tmp_path_factory):
    return result.save(tmp_path_factory.mktemp("saved") / "net")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub without repositories, in the place of the real one, and caches of its own."""
    made = Hub()
    with serving(made) as home:
        at(home, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("TUCKERTREE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield made


def at(home, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", home)
    template = home + "/{repo_id}/resolve/{revision}/{filename}"
    for place in (constants, importlib.import_module("huggingface_hub.file_download")):
        monkeypatch.setattr(place, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)


def holding(hub, saved, **more):
    """Put a folder on the hub, past the library, and more files."""
    files = {file.name: file.read_bytes() for file in saved.iterdir()}
    hub.repositories[NAME] = Repository()
    return hub.repositories[NAME].commit({**files, **more})


def refused(use, *said, kind=tt.TuckertreeError):
    with pytest.raises(kind) as caught:
        use()
    assert "\n" not in str(caught.value)
    for each in said:
        assert each in str(caught.value), caught.value
    return str(caught.value)


def test_what_is_pushed_is_loaded_again_to_the_bit(hub, result):
    pushed = tt.push_to_hub(result, NAME)
    assert pushed == f"hf-hub:{NAME}@{hub.repositories[NAME].head}"
    for name in (pushed, f"hf-hub:{NAME}", f"hf-hub:{NAME}@main"):
        loaded = tt.load(name)
        assert torch.equal(loaded(X), result.model(X))
    files = hub.repositories[NAME].commits[hub.repositories[NAME].head]
    assert set(files) == {".gitattributes", "README.md", "config.json", "model.safetensors", "report.json"}
    assert etag(files["model.safetensors"]) in hub.uploaded
    assert etag(files["config.json"]) not in hub.uploaded  # small files are in the commit itself


def test_the_page_runs_as_it_stands(hub, result):
    page = Path(__file__).parents[2] / "docs/interoperability.md"
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (code,) = [block for block in blocks if "push_to_hub" in block]
    names = {"result": result}
    exec(compile(code, str(page), "exec"), names)
    assert torch.equal(names["small"](X), result.model(X))


def test_a_network_of_ones_own_code_goes_into_it(hub):
    result = tt.compress(networks.small_cnn(), torch.zeros(2, 3, 16, 16), energy=0.5)
    pushed = tt.push_to_hub(result, NAME)
    assert torch.equal(tt.load(pushed, into=networks.small_cnn())(X), result.model(X))
    refused(lambda: tt.load(pushed), "does not name its architecture")


def test_the_files_of_a_saved_folder_alone_are_fetched_and_once(hub, saved):
    bomb = pickle.dumps({"weights": 1})
    commit = holding(
        hub,
        saved,
        **{
            "pytorch_model.bin": bomb,
            "code.py": b"raise SystemExit",
            "sub/config.json": b"{}",
            "x.json": b"1",
        },
    )
    folder = local_folder(f"hf-hub:{NAME}")
    assert sorted(hub.fetched()) == ["config.json", "model.safetensors", "report.json"]
    assert {file.name for file in folder.iterdir()} == set(hub.fetched())
    assert not any(file.is_symlink() for file in folder.iterdir())
    assert local_folder(f"hf-hub:{NAME}@{commit}") == folder
    assert len(hub.fetched()) == 3


def test_another_librarys_weights_do_not_come(hub):
    hub.repositories[NAME] = Repository()
    files = {"config.json": b'{"architectures": ["ResNet"]}', "model.safetensors": b"gigabytes"}
    hub.repositories[NAME].commit(files)
    refused(lambda: tt.load(f"hf-hub:{NAME}"), "no network saved by tuckertree")
    assert hub.fetched() == ["config.json"]
    hub.repositories[NAME].commit({"config.json": None})
    refused(lambda: tt.load(f"hf-hub:{NAME}"), "no network saved by tuckertree")


def test_a_hostile_folder_is_refused_like_any_other(hub, saved):
    config = json.loads((saved / "config.json").read_text())
    for change, said in (
        ({"tensors": "../../weights"}, "outside its folder"),
        ({"tensors": "other.safetensors"}, "has no other.safetensors"),
        ({"architecture": "os:getcwd"}, "unknown model 'os:getcwd'"),
        ({"architecture": f"hf-hub:{NAME}"}, "unknown model"),
        ({"format": 2}, "has format 2"),
    ):
        holding(hub, saved, **{"config.json": json.dumps(config | change).encode()})
        refused(lambda: tt.load(f"hf-hub:{NAME}"), said)
    holding(hub, saved, **{"model.safetensors": pickle.dumps(1)})
    refused(lambda: tt.load(f"hf-hub:{NAME}"), "not a whole safetensors file")
    refused(lambda: open_model(UntrustedName(f"hf-hub:{NAME}")), "unknown model")


def test_a_revision_is_that_of_its_commit(hub, saved):
    first = holding(hub, saved)
    hub.repositories[NAME].commit({"config.json": b"{}"})
    assert read_config(local_folder(f"hf-hub:{NAME}@{first}")) == read_config(saved)
    refused(lambda: tt.load(f"hf-hub:{NAME}"), "no network saved by tuckertree")
    refused(lambda: tt.load(f"hf-hub:{NAME}@nowhere"), f"{NAME} has no revision 'nowhere'")


@pytest.mark.parametrize(
    "name",
    [
        "r20",
        "a/b/c",
        "a/",
        "/b",
        "a/b c",
        "../b",
        "a/..",
        "a/b--c",
        "-a/b",
        "a/b.",
        "",
        "a/" + "b" * 97,
        "a/b@",
        "a/b@../c",
        "a/b@c d",
    ],
)
def test_a_name_that_is_none(hub, name):
    refused(lambda: tt.load(f"hf-hub:{name}"), f"hf-hub:{name}", kind=tt.UsageError)
    refused(lambda: tt.push_to_hub("anywhere", name), name, kind=tt.UsageError)
    assert not hub.asked


def test_what_is_unknown_gated_or_private(hub, saved, monkeypatch):
    refused(lambda: tt.load("hf-hub:no/body"), "no repository no/body that you may see")
    holding(hub, saved)
    hub.repositories[NAME].gated = True
    refused(lambda: tt.load(f"hf-hub:{NAME}"), f"{NAME} is gated", "hf auth login")
    hub.repositories[NAME].gated, hub.repositories[NAME].private = False, True
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    refused(lambda: tt.load(f"hf-hub:{NAME}"), "hf auth login")
    refused(lambda: tt.push_to_hub(saved, "no/where"), "401", "hf auth login")
    assert "no/where" not in hub.repositories


def test_without_the_network_there_is_what_was_fetched(hub, saved, monkeypatch):
    holding(hub, saved)
    local_folder(f"hf-hub:{NAME}")
    at("http://127.0.0.1:9", monkeypatch)  # nobody listens there
    tt.load(f"hf-hub:{NAME}")
    said = refused(
        lambda: tt.load("hf-hub:some/body"), "cannot be reached", "hf-hub:some/body is not in its cache"
    )
    assert "refused" in said
    refused(lambda: tt.push_to_hub(saved, "some/body"), "cannot be reached")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    tt.load(f"hf-hub:{NAME}")


def test_without_the_package_the_extra_is_named(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for use in (lambda: tt.load("hf-hub:a/b"), lambda: tt.push_to_hub(saved, "a/b")):
        refused(use, "huggingface_hub", "pip install '.[hub]'")


def test_a_repository_is_replaced_only_on_request_and_only_if_it_is_a_saved_folder(hub, saved, result):
    first = tt.push_to_hub(saved, NAME)
    refused(lambda: tt.push_to_hub(saved, NAME), "exists already", "overwrite=True")
    hub.repositories[NAME].commit({"int8.onnx": b"of before"})
    again = tt.push_to_hub(saved, NAME, overwrite=True, message="again", license="mit")
    assert again != first
    assert "int8.onnx" not in hub.repositories[NAME].commits[hub.repositories[NAME].head]
    head = hub.repositories[NAME].commit({"thesis.tex": b"years of work"})
    refused(lambda: tt.push_to_hub(saved, NAME, overwrite=True), "other files (thesis.tex)")
    assert hub.repositories[NAME].head == head


def test_what_is_private_never_goes_into_a_public_repository(hub, saved):
    hub.repositories[NAME] = Repository()
    refused(lambda: tt.push_to_hub(saved, NAME, private=True), "is public")
    assert len(hub.repositories[NAME].commits) == 1
    tt.push_to_hub(saved, "somebody/secret", private=True)
    assert hub.repositories["somebody/secret"].private
    tt.push_to_hub(saved, "somebody/secret", private=True, overwrite=True)


def test_a_folder_that_is_not_whole_is_not_pushed(hub, saved, tmp_path):
    refused(lambda: tt.push_to_hub(tmp_path / "nowhere", NAME), "there is no such folder")
    folder = shutil.copytree(saved, tmp_path / "copy")
    (folder / "model.safetensors").write_bytes(pickle.dumps(1))
    refused(lambda: tt.push_to_hub(folder, NAME), "is not a safetensors file")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(saved / "model.safetensors")
    refused(lambda: tt.push_to_hub(folder, NAME), "leads outside its folder")
    (folder / "model.safetensors").unlink()
    refused(lambda: tt.push_to_hub(folder, NAME), "has no model.safetensors")
    refused(lambda: tt.push_to_hub(saved, NAME, license="MIT license"), "a license", kind=tt.UsageError)
    refused(lambda: tt.push_to_hub(saved, NAME, base_model="resnet"), "resnet", kind=tt.UsageError)
    assert not hub.asked


def test_the_card_says_what_it_is(hub, result, saved, tmp_path):
    report = {"original": {"top1": 91.73}, "compressed": {"top1": 91.28}}
    folder = result.save(tmp_path / "net", report=report)
    tt.push_to_hub(folder, NAME, base_model="some/base", license="apache-2.0")
    card = hub.cards[0]
    front, body = card.removeprefix("---\n").split("\n---\n", 1)
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(front) == {
        "library_name": "tuckertree",
        "license": "apache-2.0",
        "base_model": "some/base",
        "pipeline_tag": "image-classification",
        "tags": ["tuckertree", "low-rank", "model-compression"],
    }
    assert "# small\\_r20" in body
    assert "`cifar10:resnet20`, compressed with tuckertree" in body
    assert "| MACs | 40.6M | " in body
    assert "| top-1 | 91.73 % | 91.28 % |" in body
    assert f'tt.load("hf-hub:{NAME}")' in body


def test_words_of_the_hub_stay_words_in_the_card(hub, saved):
    yaml = pytest.importorskip("yaml")
    tt.push_to_hub(saved, NAME, base_model="1/2", license="no")
    front = yaml.safe_load(hub.cards[0].removeprefix("---\n").split("\n---\n", 1)[0])
    assert (front["license"], front["base_model"]) == ("no", "1/2")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_card_counts_layers_with_fewer_channels_and_not_groups_of_them():
    images = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    rule = tt.Budget(params=0.7)
    result = tt.compress(networks.small_cnn(), images[:1], rule, calibration=images, methods=("channels",))
    fewer = [layer for layer in result.plan.layers if layer.parameters[1] < layer.parameters[0]]
    assert len(fewer) > len(result.plan.pruned) > 0
    config = SavedConfig(1, "1.0", None, "model.safetensors", result.plan)
    said = f"Layers: {len(fewer)} with fewer hidden channels; {len(result.plan.layers)} in all."
    assert said in model_card(NAME, config, {})


@pytest.mark.parametrize("name", ["`a`\n# b", "![x](y)", "``", "<script>", "a\x1b[2J"])
def test_names_in_a_card_are_letters_and_nothing_else(hub, saved, tmp_path, name):
    folder = shutil.copytree(saved, tmp_path / "net")
    config = json.loads((saved / "config.json").read_text()) | {"architecture": name, "tuckertree": name}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "report.json").write_text(json.dumps({"original": {"top1": name}, "compressed": name}))
    tt.push_to_hub(folder, NAME)
    markdown = pytest.importorskip("markdown")
    shown = markdown.markdown(hub.cards[0].split("\n---\n", 1)[1], extensions=["tables", "fenced_code"])
    assert shown.count("<h1>") == 1
    assert "<script>" not in shown
    assert "<img" not in shown
    assert "\x1b" not in shown


@pytest.mark.filterwarnings("ignore:tuning")
def test_the_commands_take_it_where_they_take_a_folder(hub, saved, tmp_path, monkeypatch):
    code, out, err = tuckertree("push", saved, NAME, "--license", "mit", "--json")
    assert (code, err) == (0, "")
    name = json.loads(out)["pushed"]
    monkeypatch.chdir(tmp_path)
    assert torch.equal(open_model(TrustedName(name)).model(X), tt.load(saved)(X))
    for arguments in (
        ["evaluate", name, "--data", "demo", "--limit", 20, "--json"],
        ["inspect", name, "--json"],
        [
            "tune",
            name,
            "--images",
            "demo",
            "--limit",
            16,
            "--steps",
            1,
            "--teacher",
            "demo",
            "-o",
            "tuned",
            "--json",
        ],
    ):
        code, _, err = tuckertree(*arguments)
        assert code == 0, err
    assert read_config("tuned").plan == read_config(saved).plan
    code, _, err = tuckertree("evaluate", "hf-hub:no/body", "--data", "demo")
    assert (code, err.count("\n")) == (1, 1)
    code, _, err = tuckertree("evaluate", name, "--data", "demo", "--weights", "w.safetensors")
    assert (code, "has weights of its own" in err) == (2, True)


@pytest.mark.parametrize("command", ["bench", "export", "report"])
def test_more_commands_take_it(hub, saved, tmp_path, monkeypatch, command):
    pytest.importorskip({"bench": "onnxruntime", "export": "onnxscript", "report": "plotly"}[command])
    holding(hub, saved)
    monkeypatch.chdir(tmp_path)
    more = {
        "bench": ["--runtime", "torch", "--rounds", 5, "--no-memory"],
        "export": ["--to", "pt2"],
        "report": [],
    }[command]
    code, _, err = tuckertree(command, f"hf-hub:{NAME}@main", *more, "--json")
    assert code == 0, err
    made = {"bench": None, "export": "small_r20.pt2", "report": "small_r20-report.html"}[command]
    assert made is None or (tmp_path / made).is_file()
