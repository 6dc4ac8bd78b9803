"""A recipe run on what is packaged."""

import json
import signal

import pytest
import torch

import tuckertree as tt
from tests.tools.cli.test_cli import tuckertree
from tests.tools.recipes.cases import TEXT
from tuckertree._base.atomic import check_free
from tuckertree._base.errors import TuckertreeError
from tuckertree.measure import count_parameters, evaluate
from tuckertree.tools.assets import DEMO_WEIGHTS
from tuckertree.tools.data import open_images
from tuckertree.tools.models import resolve
from tuckertree.tools.recipes import find_weights, load_recipe, reproduce
from tuckertree.tools.recipes.reproduction import REPRODUCED

pytest.importorskip("yaml")

FEW_IMAGES = 64
RESULT = '{"format": 1, "recipe": {"id": "demo/demo"}}'


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "demo" / "demo.yaml"
    path.parent.mkdir()
    path.write_text(TEXT)
    return path


@pytest.fixture
def few_test_images(monkeypatch):
    """The packaged test images are a thousand; a few show as well that it works from end to end."""

    def few(source, preprocessing, *, split=None, limit=None):
        return open_images(source, preprocessing, split=split, limit=FEW_IMAGES if split == "test" else limit)

    monkeypatch.setattr("tuckertree.tools.recipes.reproduction.open_images", few)


@pytest.mark.usefixtures("few_test_images")
def test_reproduce_compresses_trains_measures_and_records(recipe, tmp_path):
    pytest.importorskip("lightning")
    short = ("--epochs", 1, "--limit-train", 128, "--seed", 3, "--set", "training.lr=1e-4")
    output = tmp_path / "out"
    code, out, err = tuckertree("reproduce", recipe, "--data", "demo", *short, "--output", output)
    assert (code, err) == (0, "")
    assert "published   1.49x params, 1.50x MACs, -0.50 points of top-1" in out
    assert "changed     training.limit_train = 128" in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo", "out"]  # no checkpoints are left
    result = json.loads((output / "result.json").read_text())
    assert result["recipe"]["text"] == TEXT
    assert result["overrides"] == {
        "training.epochs": 1,
        "training.limit_train": 128,
        "training.seed": 3,
        "training.lr": 1e-4,
    }
    assert result["seeds"] == [3]
    assert (result["train_images"], result["test_images"]) == (256, FEW_IMAGES)
    assert result["stages"][0]["training"]["settings"]["limit_train"] == 128
    assert result["stages"][0]["training"]["distilled"]
    assert len(result["stages"][0]["training"]["history"]) == 1
    assert result["original"]["parameters"] >= 1.5 * result["compressed"]["parameters"]
    assert result["original"]["parameters"] <= 1.51 * result["compressed"]["parameters"]

    # What was measured is what was saved, and it was trained.
    model = tt.load(output / "model")
    preprocessing = resolve("demo").preprocessing
    images = open_images("demo", preprocessing, split="test", limit=FEW_IMAGES)
    batch = (
        torch.stack([images[i][0] for i in range(FEW_IMAGES)]),
        torch.tensor([images.label(i) for i in range(FEW_IMAGES)]),
    )
    assert evaluate(model, [batch]).top1 == result["compressed"]["top1"]
    plan = tt.Plan.from_json(result["stages"][0]["plan"])
    untrained = tt.apply(tt.build("demo"), plan)
    kernels = [m.conv1[0].weight for m in (model.layer3[1], untrained.layer3[1])]
    assert kernels[0].shape == kernels[1].shape
    assert not torch.allclose(*kernels)

    code, _, err = tuckertree("reproduce", recipe, "--data", "demo", *short, "--output", output)
    assert (code, "--overwrite" in err) == (1, True)
    check_free(output, kind=REPRODUCED, overwrite=True)


@pytest.mark.parametrize("files", [{"result.json": '{"top1": 90}'}, {"result.json": RESULT, "notes.txt": ""}])
def test_results_that_are_not_ours_are_never_replaced(recipe, tmp_path, files):
    output = tmp_path / "out"
    output.mkdir()
    for name, text in files.items():
        (output / name).write_text(text)
    code, _, err = tuckertree("reproduce", recipe, "--data", "demo", "--overwrite", "--output", output)
    assert (code, "holds other files" in err) == (1, True)
    assert sorted(path.name for path in output.iterdir()) == sorted(files)


SCHEDULE = """\
name: short
calibration: 16
tune: 2
training: {epochs: 2, batch_size: 32, lr: 1e-4, validation: 0, limit_train: 64, augment: none}
"""


@pytest.mark.usefixtures("few_test_images")
@pytest.mark.filterwarnings("ignore:tuning. nothing changed in 2 steps")  # two steps may gain or not
def test_a_schedule_reduces_by_images_as_far_as_the_row_and_an_interrupted_run_goes_on_with_the_same_network(
    recipe, tmp_path, monkeypatch
):
    pytest.importorskip("lightning")
    (tmp_path / "schedule-short.yaml").write_text(SCHEDULE)
    run = ("reproduce", recipe, "--data", "demo", "--schedule", "short")
    code, _, err = tuckertree(*run, "--output", tmp_path / "whole")
    assert code == 0, err
    whole = json.loads((tmp_path / "whole/result.json").read_text())
    assert whole["schedule"]["text"] == SCHEDULE
    before, after = whole["original"], whole["compressed"]
    assert before["parameters"] / after["parameters"] >= 1.49
    assert before["macs"] / after["macs"] >= 1.5

    # It is told to end in the second epoch; on the way on nothing is compressed again.
    from tuckertree.tools.training import module

    steps, plain = [], module.loss_of

    def loss_of(*arguments):
        steps.append(1)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGTERM)
        return plain(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(module, "loss_of", loss_of)
        code, _, err = tuckertree(*run, "--output", tmp_path / "cut")
    assert code == 130, err
    assert sorted(p.name for p in (tmp_path / "cut.partial").iterdir()) == ["stage-0", "start-0"]
    code, _, err = tuckertree(*run, "--output", tmp_path / "cut")
    assert (code, "unfinished run" in err) == (1, True), err
    code, _, err = tuckertree(*run, "--set", "compression.tune=3", "--resume", "--output", tmp_path / "cut")
    assert (code, "was compressed otherwise" in err) == (1, True), err
    with monkeypatch.context() as patched:
        patched.setattr("tuckertree.tools.recipes.reproduction.compress", None)
        code, _, err = tuckertree(*run, "--resume", "--output", tmp_path / "cut")
    assert code == 0, err
    resumed = json.loads((tmp_path / "cut/result.json").read_text())
    assert resumed["compressed"] == whole["compressed"]
    tensors = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert tensors[0] == tensors[1]
    assert not (tmp_path / "cut.partial").exists()


def test_a_schedule_that_is_not_there_or_none_is_refused(recipe, tmp_path):
    run = ("reproduce", recipe, "--data", "demo", "--output", tmp_path / "out", "--schedule")
    code, _, err = tuckertree(*run, "cpu")
    assert (code, "unknown schedule 'cpu'; there is none in" in err) == (2, True), err
    (tmp_path / "schedule-cpu.yaml").write_text(SCHEDULE.replace("tune: 2", "tune: -2"))
    code, _, err = tuckertree(*run, "cpu")
    assert (code, "tune must be a number of steps" in err) == (2, True), err
    code, _, err = tuckertree(*run, "gpu")
    assert (code, "unknown schedule 'gpu'; known: cpu" in err) == (2, True), err
    (tmp_path / "schedule-cpu.yaml").write_text(SCHEDULE.replace("calibration: 16\n", ""))
    code, _, err = tuckertree(*run, "cpu")
    assert (code, "schedule-cpu.yaml: " in err) == (2, True), err


@pytest.mark.usefixtures("few_test_images")
def test_stages_compress_what_the_stage_before_has_made(recipe, tmp_path):
    stages = "stages:\n  - {compression: {energy_for: {params: 1.3x}}}\n  - {compression: {energy_for: {params: 1.8x}}}\n"
    text = TEXT.replace("compression:\n  energy_for: {params: 1.5x}\n", stages)
    recipe.write_text("\n".join(line for line in text.splitlines() if not line.startswith("training")))
    done = reproduce(load_recipe(recipe), "demo", output=tmp_path / "out")
    first, second = (tt.Plan.from_json(stage["plan"]) for stage in done.result["stages"])
    assert first.parameters[0] == second.parameters[0] == done.result["original"]["parameters"]
    assert first.parameters[1] > second.parameters[1] == done.result["compressed"]["parameters"]
    assert count_parameters(tt.load(tmp_path / "out/model")) == second.parameters[1]
    # A kernel that has lost ranks in the first stage cannot get them back in the second.
    ranks = {layer.name: layer.ranks for layer in first.layers if layer.ranks}
    again = {layer.name: layer.ranks for layer in second.layers if layer.ranks}
    assert ranks
    assert all(a <= b for name in ranks.keys() & again for a, b in zip(again[name], ranks[name], strict=True))
    assert [stage["training"] for stage in done.result["stages"]] == [None, None]


def test_weights_are_looked_for_beside_the_data(recipe, tmp_path):
    recipe.write_text(
        TEXT.replace(
            "network: demo", "network: cifar10:resnet20\nweights: r20.safetensors\nweights_from: somewhere"
        )
    )
    wanted = load_recipe(recipe).recipe
    data = tmp_path / "cifar10"
    with pytest.raises(TuckertreeError) as caught:
        find_weights(wanted, data)
    there = tmp_path / "models/r20.safetensors"
    assert str(caught.value) == (
        f"{there} is not there; give the weights of cifar10:resnet20 by --weights (somewhere)"
    )
    there.parent.mkdir()
    there.write_bytes(DEMO_WEIGHTS.read_bytes())
    assert find_weights(wanted, data) == there
    assert find_weights(wanted, data, DEMO_WEIGHTS) == DEMO_WEIGHTS
    assert find_weights(wanted, tmp_path / "elsewhere/cifar10", there.parent) == there


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{recipe}.nosuch", "--data", "demo"], 2, "cannot be read"),
        (["{recipe}", "--data", "{tmp}/nowhere"], 1, "nowhere"),
        (["{recipe}", "--data", "demo", "--epochs", 0], 2, "epochs must be at least 1"),
        (["{recipe}", "--data", "demo", "--limit-train", 0], 2, "limit_train must be at least 1"),
        (["{recipe}", "--data", "demo", "--set", "training.speed=1"], 2, "unknown key 'training.speed'"),
        (["{recipe}", "--data", "demo", "--set", "data.test_split=val"], 2, "has no split 'val'"),
        (["{recipe}", "--data", "demo", "--device", "cuda:99"], 2, "device 'cuda:99' cannot be used"),
        (["{recipe}", "--data", "demo", "--weights", "{tmp}/no.safetensors"], 1, "no such file"),
        (
            ["{recipe}", "--data", "demo", "--set", "compression.energy_for.params=9000x"],
            3,
            "no energy reduces this network so far",
        ),
        (
            ["{recipe}", "--data", "demo", "--set", "compression.include=[fc]"],
            2,
            "no layer is named 'fc'",
        ),
    ],
)
def test_bad_runs_get_one_line_and_write_nothing(arguments, code, message, recipe, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    arguments = [str(a).replace("{recipe}", str(recipe)).replace("{tmp}", str(tmp_path)) for a in arguments]
    exit_code, out, err = tuckertree("reproduce", *arguments, "--output", tmp_path / "out")
    assert (exit_code, out) == (code, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(tmp_path.rglob("*")) == before


def test_an_interrupted_run_can_be_gone_on_with(recipe, tmp_path, monkeypatch):
    asked = []

    def interrupt(*arguments, output, resume, **options):
        asked.append((output.relative_to(tmp_path).as_posix(), resume, output.exists()))
        output.mkdir(parents=True, exist_ok=True)
        raise KeyboardInterrupt

    monkeypatch.setattr("tuckertree.tools.recipes.reproduction.finetune", interrupt)
    for option in ("--resume", "--resume", "--overwrite"):
        code, _, _ = tuckertree("reproduce", recipe, "--data", "demo", "--output", tmp_path / "out", option)
        assert code == 130
    folder = "out.partial/stage-0"
    # The first has nothing to go on with, the second has, the third begins anew.
    assert asked == [(folder, False, False), (folder, True, True), (folder, False, False)]
    assert not (tmp_path / "out").exists()
