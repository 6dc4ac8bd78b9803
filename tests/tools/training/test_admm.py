"""Training towards the ranks of a plan: the penalty, its updates, and runs with it."""

from dataclasses import replace

import pytest
import torch

import tuckertree
from tests.strategies import method_cuts
from tests.tools.cli.test_cli import tuckertree as run_cli
from tests.tools.training.cases import demo_images, same_weights, terminate
from tuckertree._base.checkpoints import read_checkpoint
from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.core.decomposition import decompose
from tuckertree.core.layers import LayerSpec
from tuckertree.io import read_plan
from tuckertree.tools.training import Settings, finetune, train
from tuckertree.tools.training.admm import Admm
from tuckertree.tools.training.checkpoints import STEP

pytest.importorskip("lightning")


@pytest.fixture(scope="module")
def demo():
    return tuckertree.build("demo")


@pytest.fixture(scope="module")
def result(demo):
    return tuckertree.compress(demo, torch.zeros(1, 3, 32, 32), energy=0.5, include=["layer3.*", "linear"])


@pytest.fixture(scope="module")
def plan(result):
    return result.plan


def settings(epochs=2, **more):
    return Settings(
        epochs,
        **{"batch_size": 8, "limit_train": 32, "validation": 0.0, "lr": 0.01, "admm_rho": 0.1, **more},
    )


def test_the_gradient_of_the_penalty(demo, plan):
    network = tuckertree.build("demo")
    admm = Admm(network, plan, rho=0.25, every=1)
    name = plan.compressed[0].name
    weight = network.get_submodule(name).weight
    admm.U[name] = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    admm.penalty().backward()
    expected = 0.25 * (weight.detach() - admm.Z[name] + admm.U[name])
    torch.testing.assert_close(weight.grad, expected, rtol=1e-6, atol=0)
    planned = {f"{layer.name}.weight" for layer in plan.compressed}
    assert {n for n, p in network.named_parameters() if p.grad is not None} == planned


def test_an_update_truncates_to_the_ranks_of_the_plan_and_adds_up_what_was_missing(demo, plan):
    network = tuckertree.build("demo")
    admm = Admm(network, plan, rho=1.0, every=2)
    before = dict(admm.Z)
    assert not any(missing.any() for missing in admm.U.values())
    with torch.no_grad():
        for layer in plan.compressed:
            weight = network.get_submodule(layer.name).weight
            weight += 0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    admm.after_step(1)
    assert all(admm.Z[name] is before[name] for name in before)
    for step in (2, 4):
        old = dict(admm.U)
        admm.after_step(step)
        for layer in plan.compressed:
            dense = network.get_submodule(layer.name)
            Z, U = admm.Z[layer.name], admm.U[layer.name]
            spec = LayerSpec.of(dense)
            cuts = method_cuts(layer.method, len(spec.nontrivial_modes))
            again = decompose(spec.kernel(Z), layer.ranks, cuts)
            assert again.relative_error(spec.kernel(Z)) < 1e-6
            assert again.ranks == layer.ranks
            truncation = decompose(spec.kernel(dense.weight.detach() + old[layer.name]), layer.ranks, cuts)
            torch.testing.assert_close(spec.kernel(Z), truncation.kernel().float())
            torch.testing.assert_close(U, old[layer.name] + dense.weight.detach() - Z)


def test_weights_that_are_not_finite_are_left_to_the_loss(plan):
    network = tuckertree.build("demo")
    admm = Admm(network, plan, rho=1.0, every=1)
    with torch.no_grad():
        network.get_submodule(plan.compressed[-1].name).weight[0, 0] = torch.inf
    before = dict(admm.Z)
    admm.after_step(1)
    assert all(admm.Z[name] is before[name] for name in before)
    with pytest.raises(TuckertreeError, match=f"{plan.compressed[-1].name}: .*infinite"):
        Admm(network, plan, rho=1.0, every=1)


def test_a_run_brings_the_weights_near_to_the_ranks(demo, result, plan):
    pulled = train(demo, demo_images(), settings(2, admm_rho=2.0, admm_every=2), plan=plan)
    free = train(demo, demo_images(), settings(2, admm_rho=1e-12), plan=plan)
    start = Admm(demo, plan, 1.0, 1).truncation_error()
    ends = [run.history[-1]["truncation_error"] for run in (pulled, free)]
    assert ends[0] < 0.9 * start < ends[1]
    # The decomposition loses just that.
    chains = tuckertree.apply(pulled.model, plan)
    lost = total = 0.0
    for layer in plan.compressed:
        weight = pulled.model.get_submodule(layer.name).weight
        kernel = chains.get_submodule(layer.name).dense.kernel(weight.detach())
        square = float(kernel.double().square().sum())
        lost += chains.get_submodule(layer.name).factors().relative_error(kernel) ** 2 * square
        total += square
    assert (lost / total) ** 0.5 == pytest.approx(ends[0], rel=1e-4)


def test_a_run_that_is_told_to_end_goes_on_exactly(tmp_path, monkeypatch, demo, plan):
    from tuckertree.tools.training import module

    run = settings(2, admm_every=3, batch_size=4)
    whole = finetune(demo, demo_images(), run, teacher=demo, plan=plan)
    plain, seen = module.loss_of, []

    def loss_of(*arguments):
        seen.append(1)
        if len(seen) == 13:  # of 8 in each epoch: Z and U are neither those of the start nor of an epoch
            terminate()
        return plain(*arguments)

    monkeypatch.setattr(module, "loss_of", loss_of)
    with pytest.raises(KeyboardInterrupt):
        finetune(demo, demo_images(), run, teacher=demo, plan=plan, output=tmp_path)
    state = read_checkpoint(tmp_path / STEP)
    assert (state["epoch"], state["batch"]) == (1, 5)
    assert state["admm"]["U"].keys() == {layer.name for layer in plan.compressed}
    resumed = finetune(demo, demo_images(), run, teacher=demo, plan=plan, output=tmp_path, resume=True)
    assert same_weights(whole.model, resumed.model)
    assert whole.history == resumed.history


def test_a_checkpoint_towards_other_ranks_is_refused(tmp_path, demo, plan):
    run = settings(1)
    train(demo, demo_images(), run, plan=plan, output=tmp_path)
    layers = [
        replace(layer, ranks=tuple(rank + 1 for rank in layer.ranks)) if layer in plan.compressed else layer
        for layer in plan.layers
    ]
    with pytest.raises(UsageError, match=r"another run \(another plan\)"):
        train(
            demo, demo_images(), run, plan=replace(plan, layers=tuple(layers)), output=tmp_path, resume=True
        )


def test_what_does_not_go_together_is_refused(demo, result, plan):
    with pytest.raises(UsageError, match="admm_rho needs a plan"):
        train(demo, demo_images(), settings())
    with pytest.raises(UsageError, match="a plan is of use in training with admm_rho alone"):
        train(demo, demo_images(), settings(admm_rho=None), plan=plan)
    with pytest.raises(UsageError, match="this one is decomposed already"):
        finetune(result, demo_images(), settings(), plan=plan)
    with pytest.raises(UsageError, match=r"the plan does not fit the network: .*does not have"):
        train(tuckertree.build("cifar10:vgg19_bn"), demo_images(), settings(), plan=plan)
    dense = replace(plan, layers=tuple(replace(layer, method="dense", ranks=()) for layer in plan.layers))
    with pytest.raises(UsageError, match="leaves all layers dense"):
        train(demo, demo_images(), settings(), plan=dense)


def test_a_plan_from_a_file_or_a_folder(tmp_path, result, plan):
    result.save(tmp_path / "saved")
    (tmp_path / "plan.json").write_text(plan.dumps())
    assert read_plan(tmp_path / "saved") == read_plan(tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json").compressed == plan.compressed
    with pytest.raises(TuckertreeError, match="no such file or folder; give a plan"):
        read_plan(tmp_path / "nothing.json")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(TuckertreeError, match=r"other\.json is not a plan"):
        read_plan(tmp_path / "other.json")


def test_the_command_line(tmp_path, plan):
    from tuckertree.tools.assets import DEMO_WEIGHTS

    (tmp_path / "plan.json").write_text(plan.dumps())
    out = tmp_path / "out.safetensors"
    words = ["train", "cifar10:resnet20", "--weights", DEMO_WEIGHTS, "--data", "demo", "--epochs", 1]
    words += ["--limit-train", 20, "--batch-size", 8, "--lr", 0.01, "--output", out, "--json"]
    code, _, err = run_cli(*words, "--admm-rho", 0.1)
    assert (code, "admm_rho needs a plan" in err) == (2, True)
    code, text, err = run_cli(*words, "--admm-rho", 0.1, "--plan", tmp_path / "plan.json", "--admm-every", 2)
    assert (code, err) == (0, "")
    assert '"truncation_error"' in text
    tuckertree.build("cifar10:resnet20", weights=out)
