"""What the inventory sees, and what it refuses."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from tests import networks
from tuckertree._base.errors import TuckertreeError
from tuckertree.planning import take_inventory

IMAGE = torch.zeros(1, 3, 16, 16)


def by_name(model, inputs=IMAGE):
    return {layer.name: layer for layer in take_inventory(model, inputs).layers}


def test_layers_come_in_the_order_of_the_forward_and_their_macs_add_up():
    model = networks.small_cnn()
    inventory = take_inventory(model, IMAGE)
    assert [layer.name for layer in inventory.layers] == ["0", "2", "4", "5", "8"]
    assert [layer.is_first for layer in inventory.layers] == [True, False, False, False, False]
    assert inventory.macs == sum(layer.macs for layer in inventory.layers)
    assert inventory.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (networks.hooked(), "has hooks"),
        (networks.parametrized(), "parametrized"),
        (networks.StandardizedConv2d(3, 16, 3), "StandardizedConv2d changes the forward of Conv2d"),
        (nn.Conv2d(3, 6, 3, groups=3), "depthwise"),
        (networks.RenamedConv2d(3, 16, 3), ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_a_layer_that_cannot_be_replaced_exactly_is_refused_with_the_reason(layer, reason):
    skip_reason = by_name(nn.Sequential(layer))["0"].skip_reason
    assert skip_reason.startswith(reason) if reason else skip_reason == ""


def test_old_weight_norm_is_refused():
    with pytest.warns(FutureWarning, match="weight_norm"):
        layer = torch.nn.utils.weight_norm(nn.Conv2d(3, 16, 3))
    assert "has hooks" in by_name(nn.Sequential(layer))["0"].skip_reason


def test_tied_weights_and_unreached_layers_are_refused():
    tied = by_name(networks.TiedWeights(), torch.zeros(1, 8, 6, 6))
    assert tied["a"].skip_reason == tied["b"].skip_reason == "shares its weight with another layer"
    assert by_name(networks.Unreached())["head"].skip_reason == "not called on the example input"


def test_weights_in_the_same_memory_are_shared_and_neighbours_are_not():
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
    both = torch.randn(16, 8)
    model[1].weight = nn.Parameter(model[0].weight.detach().T)
    model[2].weight, model[3].weight = map(nn.Parameter, both.chunk(2))
    found = by_name(model, torch.zeros(1, 8))
    assert [found[name].skip_reason for name in "0123"] == ["shares its weight with another layer"] * 2 + [
        ""
    ] * 2


class InThreads(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3)

    def forward(self, x):
        with ThreadPoolExecutor(1) as threads:
            return threads.submit(lambda: self.a(x.detach())).result()


def test_work_done_in_threads_counts():
    inventory = take_inventory(InThreads(), IMAGE)
    assert inventory.macs == inventory.layers[0].macs > 0


def test_an_encoder_with_padding_is_counted():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1).eval()
    inputs = torch.zeros(2, 5, 8), None, torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    assert by_name(encoder, inputs)["layers.0.linear1"].macs == 2 * 5 * 8 * 16
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_shared_module_is_one_layer_with_two_names_and_two_calls():
    shared = by_name(networks.SharedModule())["a"]
    assert shared.aliases == ("b",)
    assert len(shared.calls) == 2
    assert shared.macs == 2 * 16 * 16 * 9 * 16 * 16


def test_a_lazy_model_is_refused_and_stays_lazy():
    model = nn.Sequential(nn.LazyConv2d(8, 3))
    with pytest.raises(TuckertreeError, match="0 is lazy and has no weights yet; run the model once"):
        take_inventory(model, IMAGE)
    assert isinstance(model[0], nn.LazyConv2d)


def test_the_model_is_left_as_it_was():
    model = networks.small_cnn().train()
    model[2].eval()
    take_inventory(model, IMAGE)
    assert model.training
    assert not model[2].training
    assert not any(module._forward_hooks for module in model.modules())


def test_an_input_of_the_wrong_shape_is_named_with_the_models_own_complaint():
    with pytest.raises(
        TuckertreeError, match=r"example input \[1, 4, 16, 16\] float32: .*to have 3 channels"
    ):
        take_inventory(networks.small_cnn(), torch.zeros(1, 4, 16, 16))


def test_positional_and_keyword_inputs():
    class TwoInputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x, scale):
            return self.conv(x) * scale

    model, scale = TwoInputs(), torch.ones(1)
    assert take_inventory(model, (IMAGE, scale)) == take_inventory(model, {"x": IMAGE, "scale": scale})
