"""Fine-tune in a loop of your own: balance the factors first, and start at a lower rate than for a new network."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

import tuckertree as tt
from tuckertree.calibration import rebalance
from tuckertree.tools.data import batches, open_images
from tuckertree.tools.models import resolve
from tuckertree.tools.training import default_finetune_lr

STEPS, TEMPERATURE = 8, 4.0
known = resolve("demo")
teacher, example = tt.build("demo").eval(), known.example_inputs()
training = open_images("demo", known.preprocessing, split="train", limit=STEPS * 32)
test = open_images("demo", known.preprocessing, split="test", limit=200)

result = tt.compress(teacher, example, energy=0.9)
student = rebalance(
    result.model
)  # a copy, the same function; orthonormal factors of equal norm descend evenly
rate = default_finetune_lr(STEPS)  # short runs need a low one: what is there already is good
optimizer = torch.optim.SGD(student.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=1e-4)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=STEPS, pct_start=0.3)
print(f"before: {tt.evaluate(student, batches(test, 100))}")
student.train()
for step, (images, labels) in enumerate(batches(training, 32)):
    with torch.no_grad():
        target = softmax(teacher(images) / TEMPERATURE, 1)
    logits = student(images)
    distance = kl_div(log_softmax(logits / TEMPERATURE, 1), target, reduction="batchmean")
    loss = 0.1 * cross_entropy(logits, labels) + 0.9 * TEMPERATURE**2 * distance
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    print(f"step {step}: loss {loss.item():.3f}")
print(f"after: {tt.evaluate(student, batches(test, 100))}")
with (
    TemporaryDirectory() as folder
):  # the result with the trained copy in it: result.save() would write the untrained one
    saved = replace(result, model=student.eval()).save(Path(folder) / "r20")
    print(f"loaded: {tt.evaluate(tt.load(saved), batches(test, 100))}")
