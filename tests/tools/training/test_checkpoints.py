"""Checkpoints: whole or not at all, never unpickled, of the same run or refused."""

import pytest
import torch

from tests.tools.training.cases import tiny_network
from tuckertree._base.checkpoints import read_checkpoint, write_checkpoint
from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.tools.training import Settings
from tuckertree.tools.training.checkpoints import EPOCH, STEP, identity, latest


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


def state(epoch=1, batch=0, **settings):
    return {
        "identity": identity(Settings(3, **settings), tiny_network(), None, "demo"),
        "epoch": epoch,
        "batch": batch,
    }


def test_the_one_that_is_further_on_is_taken(tmp_path):
    wanted = state()["identity"]
    assert latest(tmp_path, wanted) is None
    write_checkpoint(tmp_path / STEP, state(1, 5))
    write_checkpoint(tmp_path / EPOCH, state(2))
    assert latest(tmp_path, wanted)["epoch"] == 2
    write_checkpoint(tmp_path / STEP, state(2, 3))
    assert latest(tmp_path, wanted)["batch"] == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == [EPOCH, STEP]


def test_another_run_is_refused_and_the_difference_named(tmp_path):
    write_checkpoint(tmp_path / EPOCH, state(lr=0.1))
    with pytest.raises(UsageError, match=r"another run \(lr 0.1 there, 0.2 here\); go on with the same"):
        latest(tmp_path, state(lr=0.2)["identity"])
    network = tiny_network()
    network[0].bias.data += 1
    with pytest.raises(UsageError, match=r"another run \(another network\)"):
        latest(tmp_path, identity(Settings(3, lr=0.1), network, None, "demo"))
    # How the work is divided may change.
    assert latest(tmp_path, identity(Settings(3, lr=0.1, workers=2, devices=2), tiny_network(), None, "demo"))


def test_nothing_is_unpickled(tmp_path, capsys):
    torch.save({"format": 1, "epoch": Evil()}, tmp_path / EPOCH)
    with pytest.raises(TuckertreeError, match="not a whole checkpoint of ours"):
        read_checkpoint(tmp_path / EPOCH)
    assert capsys.readouterr().out == ""


def test_a_damaged_file_and_another_format_are_refused(tmp_path):
    write_checkpoint(tmp_path / EPOCH, state())
    content = (tmp_path / EPOCH).read_bytes()
    (tmp_path / EPOCH).write_bytes(content[: len(content) // 2])
    with pytest.raises(TuckertreeError, match="not a whole checkpoint"):
        read_checkpoint(tmp_path / EPOCH)
    torch.save({"format": 2}, tmp_path / EPOCH)
    with pytest.raises(TuckertreeError, match="format 1"):
        read_checkpoint(tmp_path / EPOCH)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / EPOCH, state(1))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(TuckertreeError, match="No space left on device; make room"):
        write_checkpoint(tmp_path / EPOCH, state(2))
    assert read_checkpoint(tmp_path / EPOCH)["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == [EPOCH]
