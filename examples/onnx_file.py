"""An ONNX file in, a smaller ONNX file out; it runs in ONNX Runtime, without tuckertree."""

import tempfile
from pathlib import Path

import onnxruntime
import torch

import tuckertree as tt
from tuckertree.tools.data import open_images
from tuckertree.tools.models import resolve

known = resolve("demo")
images = torch.stack(
    [image for image, _ in open_images("demo", known.preprocessing, split="train", limit=64)]
)

with tempfile.TemporaryDirectory() as folder:
    file, small = Path(folder) / "model.onnx", Path(folder) / "small.onnx"
    tt.export(tt.build("demo"), file, known.example_inputs())  # a file of somebody else's would do

    result = tt.compress(file, rule=tt.Budget(macs="1.5x"), calibration=images[:32])
    result.save(small)
    print(f"{file.stat().st_size:,} bytes before, {small.stat().st_size:,} after")

    answers = []
    for path in (file, small):
        session = onnxruntime.InferenceSession(path)
        (output,) = session.run(None, {session.get_inputs()[0].name: images[32:].numpy()})
        answers.append(output.argmax(1))
    print(f"the same answer on {(answers[0] == answers[1]).sum()} of 32 images that were not fitted to")
