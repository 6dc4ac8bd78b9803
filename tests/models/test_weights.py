import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tuckertree.errors import TuckertreeError
from tuckertree.models import build, load_weights


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


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".PTH"])
def test_pickles_are_refused_by_name(tmp_path, suffix) -> None:
    (tmp_path / f"w{suffix}").write_bytes(b"")
    assert_refused_and_unchanged(tmp_path / f"w{suffix}", "would need unpickling.*convert it with")


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
