"""Ranks and errors that the authors' own implementation gives, in float32, for known kernels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tuckertree.core.decomposition import decompose, kernel_spectra

HT2 = (0, 1, 2)


@pytest.fixture
def oracle(real_data: Path) -> Path:
    folder = real_data.parent / "oracle"
    if not folder.is_dir():
        pytest.skip(f"the reference values are not at {folder}")
    return folder


def assert_runs_agree(name: str, weight: Tensor, runs: list[dict]) -> None:
    kernel = weight.unsqueeze(0)
    spectra = kernel_spectra(kernel, HT2)
    for run in runs:
        where = f"{name} at energy {run['energy']}"
        ranks = tuple(bond.rank_for_energy(run["energy"]) for bond in spectra.bonds.values())
        assert ranks == (run["R1"], run["R13"], run["R3"]), where
        error = decompose(kernel, ranks, HT2, spectra).relative_error(kernel)
        assert error == pytest.approx(run["rel_error"], abs=1e-4), where


def test_single_kernels_agree(oracle):
    runs = json.loads((oracle / "ht2_reference.json").read_text())["kernels"]
    with np.load(oracle / "kernels.npz") as kernels:
        assert runs.keys() == set(kernels)
        for name, reference in runs.items():
            assert_runs_agree(name, torch.from_numpy(kernels[name]), reference["runs"])


@pytest.mark.parametrize("network", ["resnet20", "resnet32", "resnet56"])
def test_trained_networks_agree(oracle, real_data, network):
    layers = json.loads((oracle / "ht2_reference.json").read_text())["layers"][network]
    weights = load_file(real_data / "models" / f"cifar10_{network}.safetensors")
    for name, runs in layers.items():
        assert_runs_agree(name, weights[f"{name}.weight"], runs)
