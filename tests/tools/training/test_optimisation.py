"""Loss, schedules, parameter groups and the running average against their formulas."""

import math

import pytest
import torch
from torch import nn

from tests.tools.training.cases import tiny_network
from tuckertree.tools.training import Settings
from tuckertree.tools.training.optimisation import (
    RunningAverage,
    default_finetune_lr,
    learning_rate,
    loss_of,
    make_optimizer,
)


def test_onecycle_is_that_of_torch():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.4, total_steps=50, cycle_momentum=False)
    settings = Settings(1, lr=0.4)
    for step in range(50):
        assert math.isclose(learning_rate(settings, step, 50), optimizer.param_groups[0]["lr"], rel_tol=1e-9)
        optimizer.step()
        if step < 49:
            schedule.step()


@pytest.mark.parametrize("schedule", ["onecycle", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_the_shortest_runs_have_a_learning_rate_too(schedule, steps):
    settings = Settings(1, lr=0.4, schedule=schedule)
    rates = [learning_rate(settings, step, steps) for step in range(steps)]
    assert all(0 < rate <= 0.4 for rate in rates)


def test_cosine_falls_from_the_rate_to_zero():
    settings = Settings(1, lr=0.4, schedule="cosine")
    assert learning_rate(settings, 0, 100) == 0.4
    assert math.isclose(learning_rate(settings, 50, 100), 0.2)
    assert learning_rate(settings, 99, 100) < 1e-3


def test_distillation_is_the_weighted_sum_of_the_paper():
    logits, teacher = torch.randn(6, 10, dtype=torch.float64), torch.randn(6, 10, dtype=torch.float64)
    labels = torch.arange(6)
    settings = Settings(1, distill=0.7, temperature=3.0)
    p, q = torch.softmax(teacher / 3, 1), torch.softmax(logits / 3, 1)
    divergence = (p * (p / q).log()).sum(1).mean()
    entropy = -torch.log_softmax(logits, 1)[torch.arange(6), labels].mean()
    expected = 0.3 * entropy + 0.7 * 9 * divergence
    torch.testing.assert_close(loss_of(logits, labels, settings, teacher), expected.float())
    torch.testing.assert_close(loss_of(logits, labels, settings), entropy.float())


def test_biases_and_norms_do_not_decay():
    network = tiny_network()
    decaying, others = make_optimizer(network, Settings(1, weight_decay=0.5)).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.5, 0.0)
    assert decaying["nesterov"]
    expected = [network[0].weight, network[6].weight]
    assert [id(p) for p in decaying["params"]] == [id(p) for p in expected]
    assert len(others["params"]) == 4
    adamw = make_optimizer(network, Settings(1, optimizer="adamw", momentum=0.8))
    assert (type(adamw), adamw.param_groups[0]["betas"]) == (torch.optim.AdamW, (0.8, 0.999))


def test_the_running_average_is_the_recursion_with_a_growing_decay():
    network = tiny_network()
    average = RunningAverage(network, 0.5)
    expected = network[0].bias.detach().clone()
    for step in range(12):
        with torch.no_grad():
            network[0].bias += 1
        network[1].num_batches_tracked += 1
        average.update(network)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network[0].bias.detach()
    torch.testing.assert_close(average.state["0.bias"], expected)
    assert average.state["1.num_batches_tracked"] == 12
    held = network[0].bias.detach().clone()
    average.swap(network)
    torch.testing.assert_close(network[0].bias.detach(), expected)
    average.swap(network)
    assert torch.equal(network[0].bias.detach(), held)


def test_a_short_run_is_gentle_to_what_is_there():
    assert default_finetune_lr(4000) == default_finetune_lr(10**6) == 0.05
    assert default_finetune_lr(1000) == pytest.approx(0.05 * 0.25**0.75)
    assert 0 < default_finetune_lr(0) == default_finetune_lr(1) < 1e-3
    assert default_finetune_lr(4000, "adamw") == 1e-3
