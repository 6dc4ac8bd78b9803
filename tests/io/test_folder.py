"""The saved folder: what it gives back, and what it refuses."""

import json
import os
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import tuckertree as tt
from tests import networks
from tuckertree import io
from tuckertree.io import folder as folder_module

IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
DEMO = "cifar10:resnet20"


@pytest.fixture(scope="module")
def result():
    torch.manual_seed(0)
    return tt.compress(tt.build(DEMO), torch.zeros(1, 3, 32, 32), energy=0.4)


@pytest.fixture
def saved(result, tmp_path):
    return result.save(tmp_path / "saved")


def edit_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def test_a_known_architecture_needs_nothing_but_the_folder(result, saved):
    x = torch.randn(2, 3, 32, 32)
    loaded = tt.load(saved)
    assert not loaded.training
    assert torch.equal(loaded(x), result.model(x))


def test_files_may_be_read_by_whom_the_system_lets(saved):
    plain = saved.parent / "plain.txt"
    plain.write_text("")
    assert {file.stat().st_mode for file in saved.iterdir()} == {plain.stat().st_mode}


def test_loading_makes_no_decomposition(saved, monkeypatch):
    def forbidden(*arguments, **options):
        raise AssertionError("a decomposition was made")

    monkeypatch.setattr(torch.linalg, "eigh", forbidden)
    monkeypatch.setattr(torch.linalg, "eigvalsh", forbidden)
    tt.load(saved)


def test_an_unknown_architecture_is_given_by_the_caller_and_not_changed(tmp_path):
    model = networks.small_cnn()
    result = tt.compress(model, IMAGE, energy=0.5)
    result.save(tmp_path / "out")
    with pytest.raises(tt.TuckertreeError, match="does not name its architecture; pass the dense model"):
        tt.load(tmp_path / "out")
    empty = networks.small_cnn()
    torch.nn.init.zeros_(empty[2].weight)
    assert torch.equal(tt.load(tmp_path / "out", into=empty)(IMAGE), result.model(IMAGE))
    assert not empty[2].weight.any()


def test_shared_modules_are_saved_once_and_shared_again(tmp_path):
    result = tt.compress(networks.SharedModule(), IMAGE, energy=0.5)
    result.save(tmp_path / "out")
    assert not any(name.startswith("b.") for name in load_file(tmp_path / "out/model.safetensors"))
    loaded = tt.load(tmp_path / "out", into=networks.SharedModule())
    assert loaded.a is loaded.b
    assert torch.equal(loaded(IMAGE), result.model(IMAGE))


def test_buffers_that_overlap_in_memory_are_saved_apart(tmp_path):
    model = networks.small_cnn()
    whole = torch.arange(8.0)
    for name, part in {"whole": whole, "head": whole[:5], "tail": whole[5:], "same": whole}.items():
        model.register_buffer(name, part)
    tt.compress(model, IMAGE, energy=0.5).save(tmp_path / "out")
    assert "same" not in load_file(tmp_path / "out/model.safetensors")
    loaded = tt.load(tmp_path / "out", into=model)
    assert loaded.same is loaded.whole
    for name in ("whole", "head", "tail"):
        assert torch.equal(getattr(loaded, name), getattr(model, name))


def test_what_is_no_tensor_in_the_state_is_named(tmp_path):
    class Counting(torch.nn.Conv2d):
        def get_extra_state(self):
            return {"calls": 3}

        def set_extra_state(self, state):
            pass

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), Counting(16, 16, 1))
    result = tt.compress(model, IMAGE, energy=0.5, include="0")
    with pytest.raises(
        tt.TuckertreeError, match=r"^1\._extra_state in the model's state is a dict; only tensors"
    ):
        result.save(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_types_of_the_file_are_kept(tmp_path):
    result = tt.compress(networks.small_cnn().half(), IMAGE.half(), energy=0.5)
    result.save(tmp_path / "out")
    loaded = tt.load(tmp_path / "out", into=networks.small_cnn())
    assert {p.dtype for p in loaded.parameters()} == {torch.float16}


def test_the_report_says_what_was_measured_and_where(result, tmp_path):
    result.save(tmp_path / "out", report={"top1": 12.5})
    report = io.read_report(tmp_path / "out")
    assert report["top1"] == 12.5
    assert report["parameters"] == list(result.plan.parameters)
    assert report["environment"]["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=2), "has format 2, this tuckertree .* reads 1; install the version"),
        (lambda c: c.pop("format"), "is not a tuckertree config"),
        (lambda c: c.pop("plan"), "the key 'plan' is missing"),
        (lambda c: c.update(code="import os"), "unknown key 'code'"),
        (lambda c: c.update(input_size=[3, 0, 2]), "input_size must be a list of positive integers"),
        (lambda c: c.update(input_size="3x2"), "input_size must be a list of positive integers"),
        (lambda c: c.update(input_size=[True, 2]), "input_size must be a list of positive integers"),
        (lambda c: c.update(input_size=[2**20, 2**20]), "is larger than any input"),
        (
            lambda c: c.update(input_size={"x": [3, 2], "y": 4}),
            "input_size must be a list of positive integers",
        ),
        (lambda c: c.update(tensors="../other/model.safetensors"), "names tensors outside its folder"),
        (lambda c: c.update(tensors="/etc/passwd"), "names tensors outside its folder"),
        (lambda c: c.update(architecture="evil.module:factory"), "unknown"),
        (lambda c: c.update(architecture="cifar10:resnet32"), "does not have|here; the plan says|lacks"),
        (lambda c: c["plan"]["layers"][1].update(ranks=[4, 4, 4]), "wrong shape for layer1.0.conv1"),
        (
            lambda c: c["plan"]["layers"][1].update(ranks=[4, 4]),
            "layer1.0.conv1: 3 positive ranks are needed",
        ),
        (
            lambda c: c["plan"]["layers"][1].update(name="layer9.conv"),
            "'layer9.conv' that this model does not",
        ),
        (lambda c: c["plan"]["layers"][1].update(name="bn1"), "bn1 is a BatchNorm2d here"),
        (
            lambda c: c["plan"]["layers"][1].update(method="pickle"),
            "layers.1: method: 'pickle' is none of ht2",
        ),
    ],
)
def test_a_config_that_is_not_right_is_refused(saved, change, message):
    edit_config(saved, change)
    with pytest.raises(tt.TuckertreeError, match=message):
        tt.load(saved)


def test_a_config_imports_nothing_of_its_own_choosing(saved, tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    edit_config(saved, lambda c: c.update(architecture="evil_module:factory"))
    with pytest.raises(tt.TuckertreeError):
        tt.load(saved)
    assert "evil_module" not in sys.modules


def test_missing_parts_are_named(saved, tmp_path):
    with pytest.raises(tt.TuckertreeError, match="there is no such folder"):
        tt.load(tmp_path / "nowhere")
    (saved / "model.safetensors").unlink()
    with pytest.raises(tt.TuckertreeError, match=r"has no model\.safetensors"):
        tt.load(saved)
    (saved / "config.json").unlink()
    with pytest.raises(tt.TuckertreeError, match=r"it has no config\.json"):
        tt.load(saved)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "cut", "binary", "deep"]
)
def test_a_config_that_is_not_json_is_refused(saved, content):
    (saved / "config.json").write_bytes(content)
    with pytest.raises(tt.TuckertreeError, match=r"config\.json cannot be read"):
        tt.load(saved)


@pytest.mark.parametrize("keep", [0, 7, 200, -1])
def test_truncated_tensors_are_refused(saved, keep):
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(tt.TuckertreeError, match="is not a whole safetensors file"):
        tt.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("bn1.weight"), r"lacks bn1\.weight"),
        (lambda t: t.update(surplus=torch.zeros(1)), "has unknown surplus"),
        (
            lambda t: t.update({"bn1.weight": torch.zeros(3)}),
            r"wrong shape for bn1\.weight \[3\] instead of \[16\]",
        ),
        (
            lambda t: t.update({"bn1.weight": torch.zeros(16, dtype=torch.int64)}),
            r"bn1\.weight is torch\.int64",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_loaded(saved, change, message):
    file = saved / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    with pytest.raises(tt.TuckertreeError, match=message):
        tt.load(saved)


def test_links_that_lead_outside_are_refused(saved, tmp_path):
    outside = tmp_path / "outside.safetensors"
    (saved / "model.safetensors").rename(outside)
    (saved / "model.safetensors").symlink_to(outside)
    with pytest.raises(tt.TuckertreeError, match="leads outside its folder; refused"):
        tt.load(saved)


def test_an_output_that_exists_is_replaced_only_on_request_and_only_if_it_is_ours(result, saved, tmp_path):
    with pytest.raises(
        tt.TuckertreeError, match="exists already; choose another output or pass overwrite=True"
    ):
        result.save(saved)
    result.save(saved, overwrite=True, report={"run": 2})
    assert io.read_report(saved)["run"] == 2
    (saved / "logs").mkdir()  # as finetune leaves it
    result.save(saved, overwrite=True)
    assert not (saved / "logs").exists()
    (saved / "notes.txt").write_text("of a week")
    with pytest.raises(tt.TuckertreeError, match=r"holds other files \(notes\.txt\)"):
        result.save(saved, overwrite=True)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    with pytest.raises(tt.TuckertreeError, match="holds other files"):
        result.save(foreign, overwrite=True)
    assert (foreign / "thesis.tex").read_text() == "years of work"


def test_a_checkpoint_of_another_library_is_never_replaced(result, tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["ResNetForImageClassification"]}')
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(tt.TuckertreeError, match="holds other files"):
        result.save(tmp_path, overwrite=True)
    assert (tmp_path / "model.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), MemoryError])
@pytest.mark.parametrize("replacing", [False, True])
def test_whatever_stops_the_writing_leaves_nothing_half_written(
    result, tmp_path, monkeypatch, error, replacing
):
    target = tmp_path / "out"
    if replacing:
        result.save(target, report={"run": 1})
    before = sorted(p.name for p in tmp_path.iterdir())

    def stop_half_way(model, path):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(folder_module, "save_tensors", stop_half_way)
    with pytest.raises((KeyboardInterrupt, tt.TuckertreeError, MemoryError)):
        result.save(target, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    if replacing:
        assert io.read_report(target)["run"] == 1
        tt.load(target)


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on file sizes")
def test_a_file_that_the_system_will_not_let_grow(result, tmp_path):
    import resource
    import signal

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(tt.TuckertreeError, match="cannot write"):
            result.save(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update({name: value.half() for name, value in state.items()}),
        lambda state: state.update({name: value.clone() for name, value in state.items()}),
        lambda state: [state.pop(name) for name in list(state)[:3]] and None,
        lambda state: [state.update({f"net.{name}": state.pop(name)}) for name in list(state)] and None,
    ],
    ids=["half", "copies", "fewer", "renamed"],
)
def test_hooks_on_the_state_dict_change_nothing_that_is_kept(tmp_path, change):
    def build():
        model = networks.small_cnn()
        model.register_state_dict_post_hook(lambda module, state, *_: change(state) and None)
        return model

    result = tt.compress(build(), IMAGE, energy=0.5)
    loaded = tt.load(result.save(tmp_path / "out"), into=build())
    assert torch.equal(loaded(IMAGE), result.model(IMAGE))


def test_every_number_of_a_loaded_model_is_from_the_file(result, saved, monkeypatch):
    build = io.folder.build_structure

    def nonsense(*arguments):
        model = build(*arguments)
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.data = torch.full_like(tensor, float("nan") if tensor.is_floating_point() else -1)
        return model

    monkeypatch.setattr(io.folder, "build_structure", nonsense)
    loaded = tt.load(saved)
    assert all(map(torch.equal, loaded.state_dict().values(), result.model.state_dict().values()))


def test_a_tensor_is_filled_where_it_is_so_that_views_of_it_follow(tmp_path):
    def build():
        model = networks.small_cnn()
        model.view = model[0].weight.detach()[:4]
        return model

    result = tt.compress(build(), IMAGE, energy=0.5, exclude="0")
    blank = build()
    torch.nn.init.zeros_(blank[0].weight)
    loaded = tt.load(result.save(tmp_path / "out"), into=blank)
    assert torch.equal(loaded.view, result.model[0].weight[:4])
    assert not blank.view.any()


def test_state_that_is_kept_outside_of_modules_is_named(tmp_path):
    class Apart(torch.nn.Conv2d):
        def _save_to_state_dict(self, destination, prefix, keep_vars):
            super()._save_to_state_dict(destination, prefix, keep_vars)
            destination[f"{prefix}scale"] = torch.ones(3)

    result = tt.compress(
        torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), Apart(16, 16, 1)), IMAGE, energy=0.5, include="0"
    )
    with pytest.raises(tt.TuckertreeError, match=r"^1\.scale in the model's state is no parameter or buffer"):
        result.save(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_folder_remembers_the_size_of_its_example(tmp_path):
    model, x = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3)), torch.zeros(2, 3, 16, 24)
    for number, (example, size) in enumerate(
        [(x, (3, 16, 24)), ((x,), (3, 16, 24)), ({"input": x}, {"input": (3, 16, 24)})]
    ):
        tt.compress(model, example, tt.Energy(0.5)).save(tmp_path / f"{number}")
        assert io.read_config(tmp_path / f"{number}").input_size == size
    edit_config(tmp_path / "0", lambda c: c.pop("input_size"))
    assert io.read_config(tmp_path / "0").input_size is None
    assert tt.load(tmp_path / "0", into=model) is not None
