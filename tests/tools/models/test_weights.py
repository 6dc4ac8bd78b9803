import re
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree._base.names import TrustedName
from tuckertree.tools.models import build, load_weights
from tuckertree.tools.opening import open_model


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


@pytest.fixture
def stored() -> dict[str, torch.Tensor]:
    """The tensors of another network of the same architecture."""
    return {
        name: tensor + 1 if tensor.is_floating_point() else tensor.clone()
        for name, tensor in network().state_dict().items()
    }


def assert_refused_and_unchanged(path, message: str) -> None:
    model = network()
    with pytest.raises(TuckertreeError, match=message) as caught:
        load_weights(model, path)
    assert "\n" not in str(caught.value)
    for name, tensor in network().state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_loads_into_the_type_of_the_network(tmp_path, stored, dtype) -> None:
    stored = {name: t.to(dtype) if t.is_floating_point() else t for name, t in stored.items()}
    save_file(stored, tmp_path / "w.safetensors")
    model = network()
    load_weights(model, tmp_path / "w.safetensors")
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == network().state_dict()[name].dtype
        assert torch.equal(tensor, stored[name].to(tensor.dtype))


def test_build_loads_weights(tmp_path) -> None:
    source = build("cifar10:resnet20")
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    loaded = build("cifar10:resnet20", weights=str(tmp_path / "w.safetensors"))
    assert torch.equal(loaded.conv1.weight, source.conv1.weight)


NESTS = [
    lambda tensors: tensors,
    lambda tensors: {"state_dict": tensors, "epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
    lambda tensors: {"model": tensors, "model_ema": {name: t + 1 for name, t in tensors.items()}},
    lambda tensors: {"model_state_dict": {f"module.{name}": t for name, t in tensors.items()}},
    lambda tensors: {
        f"module.{name}": torch.nn.Parameter(t, requires_grad=False) for name, t in tensors.items()
    },
    lambda tensors: {"state_dict": {f"model._orig_mod.{name}": t for name, t in tensors.items()}},
    lambda tensors: {"net": tensors, "args": {"lr": 0.1, "tags": ["a", None]}},
    lambda tensors: {"model": tensors, "state_dict": {name: t.clone() for name, t in tensors.items()}},
]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("nest", NESTS)
@pytest.mark.parametrize("name", ["w.pt", "w.pth", "pytorch_model.bin", "last.ckpt", "weights"])
def test_state_dicts_are_found_in_what_people_keep_around_them(tmp_path, stored, nest, name, legacy) -> None:
    torch.save(nest(stored), tmp_path / name, _use_new_zipfile_serialization=not legacy)
    model = network()
    load_weights(model, tmp_path / name)
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.state_dict().items())


def test_a_prefix_in_safetensors_and_another_ending_make_no_difference(tmp_path, stored) -> None:
    save_file({f"module.{name}": tensor for name, tensor in stored.items()}, tmp_path / "w.bin")
    model = network()
    load_weights(model, tmp_path / "w.bin")
    assert torch.equal(model[0].weight, stored["0.weight"])


def test_several_that_fit_are_not_chosen_from(tmp_path, stored) -> None:
    other = {name: tensor + 1 for name, tensor in stored.items()}
    torch.save({"generator": stored, "critic": other}, tmp_path / "w.pt")
    assert_refused_and_unchanged(tmp_path / "w.pt", "several state dicts that fit, 'generator', 'critic'")
    torch.save({"model": stored, "state_dict": other}, tmp_path / "w.pt")
    assert_refused_and_unchanged(tmp_path / "w.pt", "several state dicts that fit, 'state_dict', 'model'")


class Hostile:
    """What runs when it is unpickled."""

    def __init__(self, marker) -> None:
        self.marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w')",)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "wrap", [lambda h, t: h, lambda h, t: {**t, "h": h}, lambda h, t: {"state_dict": t, "args": [h]}]
)
def test_nothing_that_asks_for_code_is_unpickled(tmp_path, stored, wrap, legacy, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, marker = tmp_path / "w.pt", tmp_path / "ran"
    torch.save(wrap(Hostile(marker), stored), path, _use_new_zipfile_serialization=not legacy)
    assert_refused_and_unchanged(
        path, "more than tensors, .*exec, and unpickling that could run any code; save"
    )
    assert not marker.exists()


def test_a_whole_model_is_refused_with_what_to_save_instead(tmp_path) -> None:
    torch.save(network(), tmp_path / "w.pt")
    assert_refused_and_unchanged(tmp_path / "w.pt", r"more than tensors, torch\.nn.*model\.state_dict\(\)")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_one_line_or_the_same_weights(tmp_path, legacy, data) -> None:
    path = tmp_path / "w.pt"
    torch.save(network().state_dict(), path, _use_new_zipfile_serialization=not legacy)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(
        content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    )
    model, complaint = network(), ""
    try:
        load_weights(model, path)
    except TuckertreeError as error:
        complaint = str(error)
    assert "\n" not in complaint
    changed = any(not torch.equal(t, network().state_dict()[name]) for name, t in model.state_dict().items())
    assert not (complaint and changed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(2)], "holds a list without a state dict"),
        (torch.zeros(2), "holds a Tensor without a state dict"),
        ({"epoch": 3, "model": None}, "holds a dict without a state dict"),
        ({"0.weight": torch.zeros(4, 3, 3, 3)}, "4 tensors that the network needs are missing|missing"),
    ],
)
def test_what_holds_no_weights_is_said(tmp_path, content, message) -> None:
    torch.save(content, tmp_path / "w.pt")
    assert_refused_and_unchanged(tmp_path / "w.pt", message)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_odd_tensors_are_refused(tmp_path, stored) -> None:
    for odd in (
        stored["0.weight"].to_sparse(),
        torch.quantize_per_tensor(stored["0.weight"], 0.1, 0, torch.qint8),
        stored["0.weight"].to("meta"),
        stored["0.weight"].to(torch.complex64),
    ):
        torch.save({**stored, "0.weight": odd}, tmp_path / "w.pt")
        assert_refused_and_unchanged(tmp_path / "w.pt", "of the wrong kind: 0.weight|not a whole file")


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path, stored) -> None:
    torch.save({**stored, "0.weight": torch.zeros(4, 3, 300, 300)}, tmp_path / "w.pt")
    with (
        zipfile.ZipFile(tmp_path / "w.pt") as archive,
        zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in archive.namelist():
            small.writestr(name, archive.read(name))
    assert_refused_and_unchanged(tmp_path / "small.pt", "is compressed, which torch.save does not do")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_programs_are_called_by_their_kind(tmp_path) -> None:
    example, path = torch.zeros(1, 3, 8, 8), tmp_path / "w.pt"
    torch.jit.save(torch.jit.trace(network().eval(), example), path)
    assert_refused_and_unchanged(path, "is a TorchScript program")
    with pytest.raises(UsageError, match=r"is a TorchScript program, .*--weights"):
        open_model(TrustedName(str(path)))
    if torch.__version__ >= "2.7":  # 2.6 exports no program in a process that has compiled others
        torch.export.save(torch.export.export(network().eval(), (example,)), path)
        assert_refused_and_unchanged(path, "is an exported program")
    torch.save(network().state_dict(), path)
    with pytest.raises(UsageError, match=r"is a file of weights, .*--weights"):
        open_model(TrustedName(str(path)))
    path.write_text("notes")
    with pytest.raises(UsageError, match="no network that can be read"):
        open_model(TrustedName(str(path)))


def test_a_name_without_its_scheme_is_answered_with_it() -> None:
    pytest.importorskip("torchvision")
    pytest.importorskip("timm")
    for name, meant in (
        ("resnet50", "'torchvision:resnet50' or 'timm:resnet50'"),
        ("googlenet", "'caffe:googlenet' or 'torchvision:googlenet'"),
        ("resnet20", "'cifar10:resnet20'"),
        ("resnet18?num_classes=10", r"'torchvision:resnet18\?num_classes=10'"),
    ):
        with pytest.raises(UsageError, match=rf"unknown model '{re.escape(name)}'; give .*, here {meant}"):
            open_model(TrustedName(name))
    with pytest.raises(UsageError, match="unknown model 'nosuch'; give 'demo' or a name that begins with"):
        open_model(TrustedName("nosuch"))


def test_missing_file(tmp_path) -> None:
    assert_refused_and_unchanged(tmp_path / "w.safetensors", r"w\.safetensors: no such file")


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated_file(tmp_path, stored, keep) -> None:
    path = tmp_path / "w.safetensors"
    save_file(stored, path)
    path.write_bytes(path.read_bytes()[:keep])
    assert_refused_and_unchanged(path, r"w\.safetensors: not a whole safetensors file")


def _without_five(tensors):
    for name in ("0.bias", "0.weight", "1.bias", "1.weight", "2.weight"):
        del tensors[name]


def _with_another(tensors):
    tensors["head.weight"] = torch.zeros(2)


def _of_another_shape(tensors):
    tensors["2.bias"] = torch.zeros(3)


def _of_integers(tensors):
    tensors["2.bias"] = torch.zeros(2, dtype=torch.int8)


def _with_nan(tensors):
    tensors["2.bias"][1] = float("nan")


def _with_infinity(tensors):
    tensors["0.weight"][0, 0, 0, 0] = float("inf")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_five, "5 tensors that the network needs are missing: 0.bias, 0.weight, 1.bias, ...;"),
        (_with_another, "1 tensors that the network does not have: head.weight;"),
        (_of_another_shape, "1 tensors of the wrong shape: 2.bias [3] instead of [2];"),
        (_of_integers, "1 tensors of the wrong kind: 2.bias torch.int8 instead of torch.float32;"),
        (_with_nan, "1 tensors with numbers that are not finite: 2.bias;"),
        (_with_infinity, "1 tensors with numbers that are not finite: 0.weight;"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, stored, damage, message) -> None:
    damage(stored)
    save_file(stored, tmp_path / "w.safetensors")
    assert_refused_and_unchanged(tmp_path / "w.safetensors", re.escape(message))


def test_numbers_too_large_for_the_network_are_refused(tmp_path, stored) -> None:
    stored["2.bias"][0] = 1e6
    save_file(stored, tmp_path / "w.safetensors")
    with pytest.raises(TuckertreeError, match=r"not finite: 2\.bias"):
        load_weights(network().half(), tmp_path / "w.safetensors")
