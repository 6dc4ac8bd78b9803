"""What cannot be compressed is named in one line; what can, is."""

import copy
import warnings

import pytest
import torch
from torch import nn

import tuckertree as tt
from tuckertree._base.errors import TuckertreeError
from tuckertree.planning import take_inventory

IMAGE = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
pytestmark = [
    pytest.mark.usefixtures("fresh_compiler"),
    pytest.mark.filterwarnings("ignore:.*torch.jit"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor"),
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated"),
]


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3)).eval()


def around(part):
    return nn.Sequential(part, nn.Conv2d(32, 32, 3)).eval()


def program():
    return torch.export.export(network(), (IMAGE,))


def quantized():
    model = nn.Sequential(nn.Flatten(), nn.Linear(432, 64)).eval()
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear})


REFUSED = {
    "program": (program, "a torch.nn.Module, can be compressed; this is an ExportedProgram"),
    "program's module": (
        lambda: program().module(),
        "^the model is a program of torch.export.*exported from",
    ),
    "unflattened": (lambda: torch.export.unflatten(program()), "^the model is a program of torch.export"),
    "part a program": (
        lambda: nn.Sequential(program().module(), nn.Conv2d(32, 32, 3)),
        "^0 is a program of torch.export",
    ),
    "scripted": (
        lambda: torch.jit.script(network()),
        "^the model is TorchScript.*made from, and script or trace",
    ),
    "traced": (lambda: torch.jit.trace(network(), IMAGE), "^the model is TorchScript"),
    "frozen": (lambda: torch.jit.freeze(torch.jit.script(network())), "^the model is TorchScript"),
    "meta": (lambda: network().to("meta"), r"^0\.weight is on the meta device, where it has no values; load"),
    "meta buffer": (
        lambda: around(nn.BatchNorm2d(3, affine=False, device="meta")),
        r"^0\.running_mean is on the meta",
    ),
    "lazy": (lambda: around(nn.LazyBatchNorm2d()), "^0 is lazy and has no weights yet; run the model once"),
    "quantized": (quantized, r"^1 is quantized already \(Linear\); compress the module it was made from"),
    "state dict": (lambda: network().state_dict(), "this is a state dict$"),
    "function": (lambda: network().forward, "this is a method$"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_network_of_layers_and_weights_is_refused_in_one_line(kind):
    make, message = REFUSED[kind]
    if torch.__version__ < "2.7" and ("program" in kind or kind == "unflattened"):
        pytest.skip("torch 2.6 exports no program in a process that has compiled others")
    model = make()
    for act in (lambda: tt.compress(model, IMAGE, energy=0.5), lambda: take_inventory(model, IMAGE)):
        with pytest.raises(TuckertreeError, match=message) as caught:
            act()
        assert "\n" not in str(caught.value)


TAKEN = {
    "compiled": lambda: torch.compile(network(), backend="eager"),
    "part compiled": lambda: around(torch.compile(network(), backend="eager")),
    "graph": lambda: torch.fx.symbolic_trace(network()),
    "part a graph": lambda: around(torch.fx.symbolic_trace(network())),
    "part scripted": lambda: around(torch.jit.script(network())),
    "part frozen": lambda: around(torch.jit.freeze(torch.jit.script(network()))),
    "data parallel": lambda: nn.DataParallel(network()),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_what_torch_wraps_around_layers_is_no_hindrance(kind):
    model = TAKEN[kind]()
    result = tt.compress(model, IMAGE, energy=0.5)
    dense = tt.to_dense(result.model)
    with torch.no_grad():
        torch.testing.assert_close(result.model(IMAGE), dense(IMAGE), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(result.model(IMAGE), model(IMAGE), atol=1e-3)
    assert take_inventory(model, IMAGE).macs == result.plan.macs[0]
    if kind in ("compiled", "graph", "data parallel"):
        assert result.plan.macs[0] == take_inventory(network(), IMAGE).macs
    layers = 1 if kind in ("part scripted", "part frozen") else 3 if kind.startswith("part") else 2
    assert len(result.plan.compressed) == layers


class Int8Tensor(torch.Tensor):
    """A quantized weight as a tensor of its own kind: it knows a linear layer, and next to nothing else."""

    @staticmethod
    def __new__(cls, values, scale):
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=scale.dtype, device=values.device)

    def __init__(self, values, scale):
        self.values, self.scale = values, scale

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is nn.functional.linear:
            x, weight, bias = args
            return x @ (weight.values * weight.scale).T + bias
        return super().__torch_function__(func, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.detach.default, torch.ops.aten.clone.default):
            return cls(func(args[0].values), func(args[0].scale))
        raise NotImplementedError(
            f"{cls.__name__} dispatch: attempting to run unimplemented operator: {func}"
        )


class TaggedTensor(torch.Tensor):
    """A tensor of another class that does all a tensor does."""

    def __deepcopy__(self, memo):
        return nn.Parameter(self.detach().clone())


def with_int8():
    model = nn.Sequential(network(), nn.Flatten(), nn.Linear(2048, 10)).eval()
    weight = model[2].weight.detach()
    scale = weight.abs().amax(1, keepdim=True) / 127
    model[2].weight = nn.Parameter(
        Int8Tensor((weight / scale).round().to(torch.int8), scale), requires_grad=False
    )
    return model


def with_other_weight(change, what="weight"):
    model = nn.Sequential(network(), nn.Flatten(), nn.Linear(2048, 10)).eval()
    setattr(model[2], what, change(getattr(model[2], what).detach()))
    return model


PECULIAR = {
    "Int8Tensor": (with_int8, "its weight is an Int8Tensor"),
    "TaggedTensor": (
        lambda: with_other_weight(lambda w: nn.Parameter(w.as_subclass(TaggedTensor))),
        "its weight is a TaggedTensor",
    ),
    "bias": (
        lambda: with_other_weight(lambda b: nn.Parameter(b.as_subclass(TaggedTensor)), "bias"),
        "its bias is a TaggedTensor",
    ),
}


@pytest.mark.filterwarnings("ignore::tuckertree.calibration.moments.CalibrationWarning")
@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("kind", PECULIAR)
def test_a_layer_whose_weight_is_another_kind_of_tensor_stays_dense_with_the_reason(kind, calibrated):
    make, reason = PECULIAR[kind]
    model = make()
    result = tt.compress(
        model, IMAGE, energy=0.5, calibration=torch.rand(8, 3, 12, 12) if calibrated else None
    )
    assert [(layer.name, layer.method, layer.reason) for layer in result.plan.layers][-1] == (
        "2",
        "dense",
        reason,
    )
    assert len(result.plan.compressed) == 2
    assert type(result.model[2].weight) is type(model[2].weight)
    with torch.no_grad():
        assert result.model(IMAGE).shape == model(IMAGE).shape


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_a_sparse_weight_stays_dense_with_the_reason():
    model = with_other_weight(lambda weight: nn.Parameter(weight.to_sparse_csr()))
    assert take_inventory(model, IMAGE).layers[-1].skip_reason == "its weight is sparse_csr"


@pytest.mark.skipif(
    torch.__version__ < "2.7", reason="torch 2.6 cannot export such a tensor, with another message"
)
def test_such_a_weight_cannot_be_saved_or_exported_and_nothing_is_written(tmp_path):
    from tuckertree.io.export import export

    result = tt.compress(with_int8(), IMAGE, energy=0.5)
    for act in (
        lambda: result.save(tmp_path / "folder"),
        lambda: export(result.model, tmp_path / "net.pt2", IMAGE),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(TuckertreeError, match="Int8Tensor") as caught:
                act()
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert copy.deepcopy(result.model)
