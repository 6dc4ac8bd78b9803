"""Networks that are scored by a function, in folds."""

from functools import partial

import pytest
import torch

import tuckertree as tt
from tests.tools.comparison.cases import broken, folded_task, sharpness
from tests.tools.comparison.test_comparing import in_this_process
from tuckertree.tools.comparison import Fold, Score, Settings, Task, cells_of, compare, measure_cell


def test_each_fold_has_a_network_of_its_own_and_counts_as_its_images_do():
    task = folded_task()
    (cell,) = cells_of(["svd"], ["2x"])
    found = measure_cell(task, cell, Settings())
    own = []
    for fold in task.folds:
        result = tt.compress(
            task.model, task.example, tt.Budget(macs=0.5), methods=("svd",), calibration=fold.calibration
        )
        own.append(sharpness(result.model))
    assert own[0] != own[1]
    assert found.score.images == 4
    for name, value in found.score.numbers.items():
        assert value == pytest.approx(0.75 * own[0][name] + 0.25 * own[1][name])


def test_without_images_there_is_one_network_for_all_folds():
    task = folded_task()
    (cell,) = cells_of(["svd:weights"], ["2x"])
    found = measure_cell(task, cell, Settings())
    one = measure_cell(folded_task(counts=(1, 3)), cell, Settings())
    assert found.score.numbers == pytest.approx(one.score.numbers)


def test_tables_and_pages_name_the_score(tmp_path):
    found = compare(folded_task, ["svd:weights"], ["2x"], tmp_path / "out", mapper=in_this_process)
    page = (tmp_path / "out" / "comparison.md").read_text()
    assert "What is compared is dB / error on 4 images" in page
    assert "| parameters | dB / error |" in page
    assert found.lines()[0] == "measured    dB / error on 4 of pictures"
    assert found.settings["folds"] == 2
    again = compare(folded_task, ["svd:weights"], ["2x"], tmp_path / "out", mapper=in_this_process)
    assert again.outcomes == found.outcomes


def test_a_score_that_fails_is_the_reason_of_its_cell_alone(tmp_path):
    task = partial(folded_task, broken)
    found = compare(task, ["svd:weights", "prune:weights"], ["2x"], tmp_path / "out", mapper=in_this_process)
    dense, *others = found.outcomes
    assert dense.score.numbers == {"mAP": 50.0}
    assert all("it cannot be scored: ZeroDivisionError: no boxes" in each.failed for each in others)
    assert not any(each.is_final for each in others)


@pytest.mark.parametrize(
    ("numbers", "message"), [({}, "no numbers"), ({"dB": float("nan")}, "dB is not finite")]
)
def test_what_is_no_score_is_said(numbers, message):
    task = folded_task(lambda model: numbers)
    with pytest.raises(tt.TuckertreeError, match=f"it cannot be scored: .*{message}"):
        task.score([task.model] * 2)


def test_methods_that_are_fitted_need_images_in_every_fold(tmp_path):
    model, image = torch.nn.Conv2d(1, 4, 3), torch.zeros(1, 1, 8, 8)
    folds = [Fold(sharpness, 1, image), Fold(sharpness, 1)]
    with pytest.raises(tt.UsageError, match="the method svd is given unlabelled images"):
        compare(lambda: Task("net", model, image, folds, "data"), ["svd"], ["2x"], tmp_path / "out")


def test_scores_are_read_by_their_names():
    assert Score.of({"top1": 90.0}, 100).name == "top-1"
    assert str(Score.of({"distance": 0.25}, 100)) == "0.2500"
    assert Score.of({"mAP": 1.0, "AP50": 2.0}, 3).name == "mAP / AP50"
