"""The contract of methods, kept by all that come with the package; and what becomes of methods that break it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import tuckertree as tt
import tuckertree.core.layers.methods.method as registry
from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.core.decomposition import Factors
from tuckertree.core.layers import Choices, LayerSpec, chain_stages, get_method, known_methods, register
from tuckertree.core.layers.methods import CutMethod
from tuckertree.testing import MethodContract

BUDGET = tt.Budget(params=0.5)


class TestHT2(MethodContract):
    method = "ht2"


class TestTucker2(MethodContract):
    method = "tucker2"


class TestSpatial(MethodContract):
    method = "spatial"


class TestSVD(MethodContract):
    method = "svd"


class TestCP(MethodContract):
    method = "cp"


def compress(method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    register(method)
    return tt.compress(model, torch.zeros(1, 6, 9, 9), BUDGET, methods=(method.name,))


class Broken(CutMethod):
    """An SVD in which something is wrong."""

    def __init__(self, **wrong):
        super().__init__("broken", lambda order: [order])
        for name, value in wrong.items():
            object.__setattr__(self, name, value)


def choices(change):
    def changed(spec, kernel, round_to):
        found = get_method("svd").choices(spec, kernel, round_to)
        return change(found.ranks, found.squared)

    return changed


def factors(change):
    return lambda kernel, ranks, spectra=None: Factors(
        tuple(change(core) for core in get_method("svd").decompose(kernel, ranks, spectra))
    )


def stages(**wrong):
    """The stages of an SVD, the last with something else than it should have."""

    def changed(spec, ranks):
        *others, last = chain_stages(spec, (len(spec.nontrivial_modes),), ranks)
        return (*others, replace(last, spec=replace(last.spec, **wrong)))

    return changed


def named(stages, name):
    return tuple(replace(stage, name=name) for stage in stages)


BREACHES = {
    "negative": ({"choices": choices(lambda r, e: Choices(r, e - 1e9))}, "not negative"),
    "nan": ({"choices": choices(lambda r, e: Choices(r, e * torch.nan))}, "must be finite"),
    "infinite": ({"choices": choices(lambda r, e: Choices(r, e / 0))}, "must be finite"),
    "zero ranks": ({"choices": choices(lambda r, e: Choices(0 * r, e))}, "positive int64 ranks"),
    "real ranks": ({"choices": choices(lambda r, e: Choices(r.double(), e))}, "positive int64 ranks"),
    "too many ranks": ({"choices": choices(lambda r, e: Choices(r.repeat(1, 2), e))}, "ranks"),
    "too few errors": ({"choices": choices(lambda r, e: Choices(r, e[1:]))}, "ranks"),
    "no table": ({"choices": lambda *_: None}, "choices"),
    "factors that are none": ({"decompose": lambda *_: None}, "factors"),
    "nan factors": ({"decompose": factors(lambda core: core * torch.nan)}, "NaN or infinite"),
    "short factors": ({"decompose": factors(lambda core: core[..., :1])}, "the stages take"),
    "one factor": (
        {"decompose": lambda k, r, s=None: Factors((torch.ones(1, 1, 8, 1),))},
        "multiply to a kernel",
    ),
    "costs": (
        {"stages": lambda spec, ranks: chain_stages(spec, (spec.order,), (ranks[0] + ranks[0] // 3,))},
        "monomial",
    ),
    "another layer": (
        {"stages": lambda spec, ranks: chain_stages(LayerSpec.of(nn.Conv2d(3, 8, 3)), (2,), ranks)},
        "do not have the layer's in_channels",
    ),
    "no stride": ({"stages": stages(stride=(2, 1))}, "do not have the layer's stride"),
    "no padding": ({"stages": stages(padding=(1, 1))}, "do not have the layer's padding"),
    "two biases": ({"stages": stages(bias=False)}, "do not have the layer's bias"),
    "loose ends": ({"stages": stages(out_channels=99)}, "do not have the layer's .*channels"),
    "one name": ({"stages": lambda spec, ranks: named(chain_stages(spec, (2,), ranks), "same")}, "names"),
}


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))


@pytest.mark.parametrize(("wrong", "clause"), BREACHES.values(), ids=BREACHES)
def test_a_method_that_breaks_its_contract_is_refused_by_clause(wrong, clause):
    with pytest.raises(TuckertreeError, match=clause) as refused:
        compress(Broken(**wrong))
    assert "'broken' breaks its contract" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_registered_method_is_known_by_its_name_and_forgotten_with_the_registry():
    found = compress(CutMethod("mine", lambda order: [0]))
    assert {layer.method for layer in found.plan.compressed} == {"mine"}
    assert known_methods()[-1] == "mine"


@pytest.mark.parametrize("name", ["svd", "dense", "", "two words", None, 3])
def test_a_name_that_is_taken_or_no_name_is_refused(name):
    class Other(CutMethod):
        pass

    with pytest.raises(UsageError, match="name"):
        register(Other(name, lambda order: [0]))
    with pytest.raises(UsageError, match="name"):
        register(CutMethod(name, lambda order: [0]))
    with pytest.raises(UsageError, match="instance of Method"):
        register(CutMethod)


def test_a_class_that_is_defined_anew_takes_the_place_of_its_former_self():
    first, second = Broken(), Broken()
    register(first)
    assert get_method(register(second).name) is second
