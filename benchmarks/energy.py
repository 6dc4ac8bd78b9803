"""The paper's rule on real networks and real images, before any fine-tuning.

For every network and energy: parameters, MACs, error of the weights and top-1, of what was saved and loaded
again. The images are the whole CIFAR-10 test set and, for GoogLeNet, 500 photographs (a drop against our own
baseline on them, not an ImageNet accuracy). Nothing is chosen by these numbers.

    python benchmarks/energy.py DATA --output docs/results

DATA holds cifar10/ (parquet), imagenet-like/ (parquet) and models/ (safetensors).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import tuckertree
from merging import write_report
from tuckertree.measure import environment, evaluate
from tuckertree.tools.data import batches, open_images
from tuckertree.tools.models import resolve

NETWORKS = {
    "ResNet-20": ("cifar10:resnet20", "cifar10_resnet20", "cifar10"),
    "ResNet-32": ("cifar10:resnet32", "cifar10_resnet32", "cifar10"),
    "ResNet-56": ("cifar10:resnet56", "cifar10_resnet56", "cifar10"),
    "VGG-19-BN": ("cifar10:vgg19_bn", "own_cifar10_vgg19_bn_fp16", "cifar10"),
    "GoogLeNet": ("caffe:googlenet", "imagenet_googlenet_bvlc", "imagenet-like"),
}
ENERGIES = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--energies", nargs="+", type=float, default=ENERGIES)
    parser.add_argument("--limit", type=int, help="images to look at; all by default")
    parser.add_argument("--output", type=Path, help="folder for energy.json and energy.md")
    options = parser.parse_args()
    results = [
        row
        for name in options.networks
        for row in measure(name, options.data, options.energies, options.limit)
    ]
    report = {"environment": environment(), "results": results}
    print(markdown(report))
    if options.output:
        write_report(options.output, "energy", report, markdown(report))


def measure(name: str, data: Path, energies: list[float], limit: int | None) -> list[dict[str, Any]]:
    """Rows of one network, the dense one first."""
    architecture, weights, images = NETWORKS[name]
    known = resolve(architecture)
    model = tuckertree.build(architecture, weights=data / "models" / f"{weights}.safetensors")
    image_set = open_images(data / images, known.preprocessing, split="test", limit=limit)

    def top1(network: torch.nn.Module) -> float:
        return evaluate(network, batches(image_set, 100)).top1

    rows: list[dict[str, Any]] = []
    baseline = top1(model)
    for energy in energies:
        started = time.perf_counter()
        result = tuckertree.compress(model, known.example_inputs(), energy=energy)
        seconds = time.perf_counter() - started
        with tempfile.TemporaryDirectory() as folder:
            saved = tuckertree.load(result.save(Path(folder) / "saved"))
        rows.append(
            {
                "network": name,
                "images": len(image_set),
                "energy": energy,
                "parameters": result.plan.parameters,
                "macs": result.plan.macs,
                "relative_error": result.relative_error,
                "top1_dense": baseline,
                "top1": top1(saved),
                "seconds": seconds,
            }
        )
        print(rows[-1], flush=True)
    return rows


def markdown(report: dict[str, Any]) -> str:
    machine = report["environment"]
    lines = [
        "# The paper's rule without fine-tuning",
        "",
        "One energy for all layers, first convolution and pointwise layers by SVD of the T-mode, linear layers by",
        "truncated SVD. Measured by `python benchmarks/energy.py DATA --output docs/results` with tuckertree",
        f"{machine['tuckertree']}, torch {machine['torch']}, {machine['processor']}, {machine['threads']} threads. There is",
        "nothing random in it. GoogLeNet is measured on 500 photographs: read its column as a drop, not as ImageNet",
        "accuracy.",
        "",
        "| network (top-1 dense) | energy | parameters | MACs | weight error | top-1 |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['network']} ({row['top1_dense']:.2f}) | {row['energy']:g} "
        f"| {row['parameters'][0] / row['parameters'][1]:.2f}x | {row['macs'][0] / row['macs'][1]:.2f}x "
        f"| {row['relative_error']:.3f} | {row['top1']:.2f} |"
        for row in report["results"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
