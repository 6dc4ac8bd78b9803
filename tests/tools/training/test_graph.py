"""A pass captured as a CUDA graph does what it does call by call."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from tuckertree.tools.training.graph import CapturedPass

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_cuda
@pytest.mark.parametrize("bf16", [False, True])
def test_captured_steps_are_those_made_call_by_call(bf16):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)
    ).cuda()
    other = copy.deepcopy(network)
    batches = [
        (torch.randn(16, 3, 8, 8, device="cuda"), torch.randint(4, (16,), device="cuda")) for _ in range(4)
    ]

    def forward_of(module):
        def forward(images, labels):
            logits = module(images)
            return functional.cross_entropy(logits.float(), labels), logits

        return forward

    losses = []
    for module, captured in ((network, True), (other, False)):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        forward = forward_of(module)
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            step = CapturedPass(module, forward, *batches[0]) if captured else None
            for images, labels in batches:
                if step is not None:
                    loss, _ = step(images, labels)
                else:
                    optimizer.zero_grad()
                    loss, _ = forward(images, labels)
                    loss.backward()
                optimizer.step()
                losses.append(float(loss))
    assert losses[:4] == pytest.approx(losses[4:], rel=2e-2 if bf16 else 1e-4)
    assert losses[0] != losses[1]
    for name, tensor in network.state_dict().items():
        assert torch.allclose(tensor.float(), other.state_dict()[name].float(), rtol=5e-2, atol=5e-3), name
