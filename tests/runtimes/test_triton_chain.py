"""Chains in Triton kernels, by Triton's interpreter: the same function, or a reason why not."""

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tuckertree as tt
from tuckertree._base.errors import TuckertreeError
from tuckertree.core.layers import contract_chain, fusion_variants
from tuckertree.runtimes.triton_chain import FusedChain, fuse_chains, fused_chain, unfit

FORMS = ((0, 1, 2), (1, 2), (0, 2), (0, 1), (0,), (1,), (2,))
pytestmark = pytest.mark.usefixtures("interpreted")


def made(channels=32, filters=48, ranks=(10, 20, 17), dtype=torch.float32, **geometry):
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(channels, filters, **{"kernel_size": 3, "padding": 1, **geometry})
    return tt.factorize(layer, "ht2", ranks).eval().to(dtype)


@torch.inference_mode()
def error(chain, fused, x):
    """Relative to the chain in single precision, and in its shape."""
    found, wanted = fused(x), chain.float()(x.float())
    assert found.shape == wanted.shape
    assert found.dtype == x.dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    return float((found.float() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("cuts", FORMS)
def test_each_form_is_the_chain(cuts, stride):
    chain = made(stride=stride)
    assert error(chain, fused_chain(chain, cuts), torch.randn(2, 32, 9, 11)) < 1e-5


@pytest.mark.parametrize("cuts", [(1, 2), (2,)])
def test_half_precision_is_near(cuts):
    chain = made(dtype=torch.float16)
    fused = fused_chain(chain, cuts)
    assert error(chain, fused, torch.randn(2, 32, 6, 7).half()) < 2e-3


@settings(max_examples=12, deadline=None)
@given(
    st.tuples(*[st.integers(1, 24)] * 3),
    st.integers(1, 3).map(lambda blocks: 16 * blocks),
    st.integers(1, 40),
    st.tuples(st.integers(3, 9), st.integers(3, 9)),
    st.sampled_from([1, 3, 5]).flatmap(
        lambda size: st.fixed_dictionaries(
            {
                "kernel_size": st.just((3, size)),
                "padding": st.tuples(st.integers(0, 2), st.integers(0, 2)).map(
                    lambda p: (p[0], max(p[1], size // 2))
                ),
                "stride": st.tuples(st.integers(1, 3), st.integers(1, 2)),
                "bias": st.booleans(),
            }
        )
    ),
    st.sampled_from(FORMS),
)
def test_any_geometry_is_the_chain(ranks, channels, filters, size, geometry, cuts):
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(channels, filters, **geometry)
    ranks = ranks if geometry["kernel_size"][1] > 1 else ranks[:2]
    chain = tt.factorize(layer, "ht2", ranks).eval()
    kept = tuple(cut for cut in cuts if cut in chain.cuts) or chain.cuts
    assert error(chain, fused_chain(chain, kept), torch.randn(2, channels, *size)) < 1e-5


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(FORMS), st.booleans(), st.booleans(), st.booleans(), st.sampled_from([5, 17, 48]))
def test_residual_and_relu_are_applied_in_the_last_kernel(cuts, relu, adds, bias, filters):
    chain = made(filters=filters, bias=bias)
    form = next(f for f in fusion_variants(chain.stages, chain.cuts) if f.cuts == cuts)
    fused = FusedChain(contract_chain(chain, form), relu=relu)
    x, residual = torch.randn(2, 32, 5, 6), torch.randn(2, filters, 5, 6) if adds else None
    with torch.inference_mode():
        wanted = chain(x) if residual is None else chain(x) + residual
        torch.testing.assert_close(fused(x, residual), wanted.relu() if relu else wanted)


def test_relu_keeps_what_is_not_a_number():
    fused, x = FusedChain(made(), relu=True), torch.randn(1, 32, 5, 5)
    x[0, 0, 0, 0] = torch.nan
    with torch.inference_mode():
        assert fused(x)[0, :, 0, 0].isnan().all()
        assert not fused(x)[0, :, 4, 4].isnan().any()


def test_plain_layers_in_a_row_are_run_as_a_chain_is():
    torch.manual_seed(0)
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(16, 24, (3, 1), stride=(2, 1), bias=False), torch.nn.Conv2d(24, 20, (1, 3))
    ).eval()
    assert error(layers, FusedChain(layers), torch.randn(2, 16, 7, 6)) < 1e-5
    assert "Linear" in unfit(torch.nn.Sequential(torch.nn.Linear(16, 16)))
    assert "no sequence" in unfit(torch.nn.Sequential())


def among_nan(values):
    """The same values, with memory around them that is not a number."""
    flat = torch.full((values.numel() + 2048,), torch.nan)
    return flat[1024:-1024].copy_(values.flatten()).view(values.shape)


@pytest.mark.parametrize("biases", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_each_bias_of_plain_layers_is_added(biases, dtype):
    torch.manual_seed(0)
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(16, 20, 3, padding=1, bias=biases[0]), torch.nn.Conv2d(20, 24, 1, bias=biases[1])
    )
    layers = layers.eval().to(dtype)
    fused = FusedChain(layers)
    assert len(fused.steps) == 1
    assert error(layers, fused, torch.randn(2, 16, 5, 6).to(dtype)) < (
        1e-5 if dtype == torch.float32 else 2e-3
    )


@pytest.mark.parametrize(
    ("channels", "kernels"),
    [
        ((16, 20, 24), (3, 3)),
        ((16, 20, 24), (3, 1)),
        ((16, 33, 5), (1, 3)),
        ((16, 20, 40, 7), (1, 3, 3)),
        ((32, 48), (3,)),
    ],
)
def test_nothing_is_read_beyond_the_weights(channels, kernels):
    torch.manual_seed(0)
    sizes = zip(channels, channels[1:], kernels, strict=False)
    layers = torch.nn.Sequential(*[torch.nn.Conv2d(*size) for size in sizes]).eval()
    fused, x = FusedChain(layers), torch.randn(2, channels[0], 7, 6)
    for step in fused.steps:
        for name, values in list(step.named_buffers()):
            setattr(step, name, among_nan(values))
    x = among_nan(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert error(layers, fused, x) < 1e-5


def test_ranks_that_do_not_stay_in_registers_have_a_kernel_of_their_own():
    chain = made(48, 304, (48, 144, 304))
    fused = fused_chain(chain, (2,))
    assert len(fused.steps) == 2
    assert error(chain, fused, torch.randn(1, 48, 3, 3)) < 1e-5


def test_a_batch_of_no_image_gives_none():
    assert fused_chain(made())(torch.zeros(0, 32, 8, 8)).shape == (0, 48, 8, 8)


def test_the_1x1_at_the_end_is_no_kernel_of_its_own():
    assert [len(fused_chain(made(), cuts).steps) for cuts in FORMS] == [3, 2, 2, 3, 2, 2, 1]


def test_chains_of_a_network_are_replaced_where_they_can_be():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        tt.factorize(torch.nn.Conv2d(3, 16, 3, padding=1), "ht2", (3, 8, 8)),
        torch.nn.ReLU(),
        tt.factorize(torch.nn.Conv2d(16, 32, 3, padding=1), "ht2", (8, 8, 8)),
        tt.factorize(torch.nn.Conv2d(32, 16, 3, padding=1), "tucker2", (8, 8)),
    ).eval()
    fused = fuse_chains(model, (1, 2))
    assert [isinstance(module, FusedChain) for module in fused] == [False, False, True, True]
    assert [len(module.steps) for module in fused[2:]] == [2, 2]
    x = torch.randn(1, 3, 7, 7)
    with torch.inference_mode():
        torch.testing.assert_close(fused(x), model(x))


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        (lambda: made(dilation=2), "dilation"),
        (lambda: made(padding="same"), "padding"),
        (lambda: made(padding_mode="reflect"), "reflect"),
        (lambda: made(channels=20), "20 input channels"),
        (lambda: made(dtype=torch.float64), "float64"),
        (lambda: tt.factorize(torch.nn.Conv1d(16, 16, 3), "ht2", (4, 4)), "Conv1d"),
        (lambda: tt.factorize(torch.nn.Conv2d(32, 32, 3), "cp", (8,)), "groups"),
    ],
)
def test_what_the_kernels_cannot_run_is_refused_with_the_reason(chain, reason):
    with pytest.raises(TuckertreeError, match=reason):
        fused_chain(chain())


def test_a_form_that_the_chain_does_not_have_is_refused():
    for cuts in ((), (3,), (1, 0)):
        with pytest.raises(TuckertreeError, match="no factored form"):
            fused_chain(made(), cuts)


def test_without_triton_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(TuckertreeError, match="triton is not installed"):
        fused_chain(made())
