"""The page says what the results say, and nothing where there is none."""

import hashlib
import json

import pytest

from tests.tools.recipes.cases import TEXT
from tuckertree._base.errors import TuckertreeError
from tuckertree.tools.recipes import reproduction_page

pytest.importorskip("yaml")


@pytest.fixture
def folders(tmp_path):
    recipes, results = tmp_path / "recipes", tmp_path / "results"
    (recipes / "cifar10").mkdir(parents=True)
    results.mkdir()
    (recipes / "cifar10/demo.yaml").write_text(TEXT)
    return recipes, results


def result(top1=90.0, **changes):
    return {
        "format": 1,
        "recipe": {"id": "cifar10/demo", "sha256": hashlib.sha256(TEXT.encode()).hexdigest()},
        "overrides": {},
        "train_images": 256,
        "test_images": 1000,
        "original": {"parameters": 300, "macs": 500, "top1": 91.25, "top5": 99.0},
        "compressed": {"parameters": 200, "macs": 200, "top1": top1, "top5": 99.5},
        "stages": [{"training": {"diverged": False}}],
        "device": "cpu",
        "seconds": {"a": 1.4, "b": 2},
        **changes,
    }


def page(folders, *results):
    for number, data in enumerate(results):
        (folders[1] / f"{number}.json").write_text(json.dumps(data))
    return reproduction_page(*folders)


def row(text, section, start):
    part = text.partition(f"## {section}")[2].partition("\n## ")[0]
    return next(line for line in part.splitlines() if line.startswith(f"| {start} "))


def test_without_results_every_row_is_not_run(folders):
    text = page(folders)
    published = "| cifar10/demo | demo | 1.49x | 1.50x | -0.50 |  |"
    assert row(text, "CIFAR-10", "cifar10/demo") == f"{published} not run |  |  |  | 1 |"
    other = "| cifar10/demo | Other | 1.40x |  | -1.00 |  |"
    assert row(text, "Other methods", "cifar10/demo") == f"{other} not run |  |  |  |"
    assert "None." in text.partition("## Shortened")[2]
    assert "- cifar10/demo (Other): a note" in text


def test_whole_runs_fill_their_row_all_of_them(folders):
    seed = {"training.seed": 1, "training.precision": "bf16", "training.workers": 4}
    text = page(folders, result(), result(90.5, overrides=seed, device="cuda"))
    assert row(text, "CIFAR-10", "cifar10/demo").endswith("| 1.50x | 2.50x | 91.25 | -1.25, -0.75 | 1 |")
    assert row(text, "Other methods", "cifar10/demo").endswith("| 1.50x | 2.50x | -1.25, -0.75 | +0.50 |")
    assert "not run |" not in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"overrides": {"training.epochs": 1, "training.seed": 2}}, "training.epochs 1"),
        ({"overrides": {"stages.0.training.limit_train": 64}}, "stages.0.training.limit_train 64"),
        ({"overrides": {"training.lr": 0.5}}, "training.lr 0.5"),
        ({"train_images": 12345}, "12,345 train images"),
        ({"test_images": 10}, "10 test images"),
        ({"recipe": {"id": "cifar10/demo", "sha256": "0"}}, "the recipe has changed since"),
        ({"stages": [{"training": None}, {"training": {"diverged": True}}]}, "the training diverged"),
    ],
)
def test_other_runs_stand_apart_and_fill_no_row(folders, changes, said):
    text = page(folders, result(**changes))
    assert "not run |" in row(text, "CIFAR-10", "cifar10/demo")
    assert "not run |" in row(text, "Other methods", "cifar10/demo")
    short = f"| cifar10/demo | {said} | 1.50x | 2.50x | 91.25 | 90.00 | -1.25 | cpu | 3 |"
    assert row(text, "Shortened", "cifar10/demo") == short


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '"text"',
        "{}",
        json.dumps(result(format=2)),
        json.dumps(result(recipe={"id": "cifar10/nosuch", "sha256": ""})),
        json.dumps(result(compressed={"parameters": 0, "macs": 1, "top1": 1, "top5": 1})),
        json.dumps(result(original={"parameters": "many", "macs": 1, "top1": 1, "top5": 1})),
        json.dumps(result(seconds=None)),
        json.dumps(result(stages=[None])),
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_what_is_no_result_is_named(folders, text):
    file = folders[1] / "bad.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(TuckertreeError) as caught:
        page(folders)
    assert str(caught.value).startswith(f"{file} ")
    assert "\n" not in str(caught.value)
