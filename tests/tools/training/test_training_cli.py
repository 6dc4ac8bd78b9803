"""tuckertree finetune and train, as a user runs them."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

import tuckertree as library
from tests.tools.cli.test_cli import tuckertree
from tuckertree.tools.assets import DEMO_WEIGHTS

pytest.importorskip("lightning")
SHORT = ("--data", "demo", "--epochs", 1, "--limit-train", 40, "--batch-size", 12)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training") / "demo"
    assert tuckertree("compress", "demo", "--energy", 0.5, "--output", folder)[0] == 0
    return folder


def test_finetune_saves_a_folder_with_its_record(compressed, tmp_path):
    out = tmp_path / "out"
    given = ("--teacher-weights", DEMO_WEIGHTS, "--lr", 0.01, "--seed", 3, "--output", out)
    code, text, err = tuckertree("finetune", compressed, *SHORT, *given)
    assert (code, err) == (0, "")
    assert "top-1 (validation)" in text
    assert "distilled   yes" in text
    assert f"saved       {out}" in text
    record = json.loads((out / "report.json").read_text())["training"]
    assert (record["settings"]["seed"], record["settings"]["lr"], len(record["history"])) == (3, 0.01, 1)
    assert record["data"] == "demo (train): 36 images, 4 for validation"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert list((out / "logs").iterdir())
    before, after = (load_file(folder / "model.safetensors") for folder in (compressed, out))
    assert before.keys() == after.keys()
    assert not all(before[name].equal(after[name]) for name in before)
    library.load(out)


def test_without_the_original_it_says_that_it_does_not_distil(compressed, tmp_path):
    given = ("--validation", 0, "--output", tmp_path / "out", "--json")
    code, text, err = tuckertree("finetune", compressed, *SHORT, *given)
    assert code == 0
    assert err == "training without distillation: give the original network by --teacher-weights FILE\n"
    assert json.loads(text)["distilled"] is False


def test_in_stages_it_is_compressed_further_and_the_original_stays_the_teacher(compressed, tmp_path):
    first, further, second = (tmp_path / name for name in ("first", "further", "second"))
    teacher = ("--teacher-weights", DEMO_WEIGHTS)
    assert tuckertree("finetune", compressed, *SHORT, *teacher, "--output", first)[0] == 0
    code, text, err = tuckertree("compress", first, "--params", "0.1", "--output", further)
    assert (code, err) == (0, "")
    assert f"from        {first}, compressed already: multiplied out first" in text
    dense = sum(parameter.numel() for parameter in library.build("demo").parameters())
    before, after = json.loads((further / "report.json").read_text())["parameters"]
    assert (before, after <= 0.1 * dense) == (dense, True)
    code, text, err = tuckertree("finetune", further, *SHORT, *teacher, "--output", second)
    assert (code, err) == (0, "")
    assert "distilled   yes" in text
    code, text, _ = tuckertree("evaluate", second, "--data", "demo", "--limit", 20, "--json")
    assert (code, json.loads(text)["parameters"]) == (0, after)


def test_train_saves_weights_and_measures_the_test_split_once(tmp_path):
    out = tmp_path / "r20.safetensors"
    code, text, err = tuckertree("train", "cifar10:resnet20", *SHORT, "--test", "--output", out, "--json")
    assert (code, err) == (0, "")
    assert json.loads(text)["test_images"] == 1000
    assert [p.name for p in tmp_path.iterdir()] == ["r20.safetensors"]
    library.build("cifar10:resnet20", weights=out)
    code, _, err = tuckertree("train", "cifar10:resnet20", *SHORT, "--output", out)
    assert (code, "exists already" in err) == (1, True)


def test_killed_in_an_epoch_it_goes_on_to_the_same_weights(compressed, tmp_path):
    def words(out):
        given = ["--checkpoint-steps", 2, "--no-distill", "--batch-size", 8, "--ema", 0.9, "--output", out]
        words = ["finetune", compressed, "--data", "demo", "--epochs", 1, "--limit-train", 80, *given]
        return [str(word) for word in words]

    assert tuckertree(*words(tmp_path / "whole"))[0] == 0
    killed = tmp_path / "killed"
    checkpoint = tmp_path / "killed.partial/step.ckpt"
    run = subprocess.Popen([sys.executable, "-m", "tuckertree", *words(killed)])
    while run.poll() is None and not checkpoint.exists():
        time.sleep(0.01)
    run.kill()
    assert run.wait() == -9
    assert not killed.exists()
    code, _, err = tuckertree(*words(killed))
    assert (code, "holds an unfinished run; pass --resume" in err) == (1, True)
    assert tuckertree(*words(killed), "--resume")[0] == 0
    whole, resumed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed"))
    assert whole == resumed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["killed", "whole"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--epochs", 0], 2, "epochs must be at least 1"),
        (["--optimizer", "lion"], 2, "optimizer must be one of sgd, adamw"),
        (["--device", "cuda:99"], 2, "device 'cuda:99' cannot be used here"),
        (["--data", "nowhere"], 1, "nowhere: no such file or folder"),
        (["--teacher", "cifar10:resnet20"], 2, "has random weights; give those of the original"),
        (["--teacher-weights", "none.safetensors"], 1, "none.safetensors: no such file"),
        (["--teacher", "cifar10:resnet56", "--teacher-weights", DEMO_WEIGHTS], 1, "layer1.3"),
        (["--lr", 1e30, "--no-distill"], 1, "lr 1e+30 diverged; give a lower one"),
    ],
)
def test_bad_input_gets_one_line_and_a_code(compressed, tmp_path, arguments, code, message):
    words = ["finetune", compressed, *SHORT, *arguments, "--output", tmp_path / "out"]
    exit_code, text, err = tuckertree(*words)
    assert (exit_code, text) == (code, "")
    assert message in err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_folder_of_ours_is_needed(tmp_path):
    code, _, err = tuckertree("finetune", tmp_path, *SHORT, "--output", tmp_path / "out")
    assert (code, "it has no config.json" in err) == (1, True)
    code, _, err = tuckertree("train", "cifar10:resnet20", *SHORT, "--output", tmp_path / "weights.pt")
    assert (code, "must end in .safetensors" in err) == (2, True)
    assert not Path(tmp_path / "out.partial").exists()
