"""Folders and files that appear whole or not at all, and what they never replace."""

from pathlib import Path

import pytest

from tuckertree._base import reading
from tuckertree._base.atomic import Kind, atomic_files, atomic_folder, check_free
from tuckertree._base.errors import TuckertreeError

KIND = Kind("it.json", {"format": int, "made": str}, frozenset({"it.json", "data"}))
OURS = '{"format": 1, "made": "here", "more": 2}'


def write(path, text, *, overwrite=False):
    with atomic_files(path, overwrite=overwrite) as new:
        new.write_text(text)
        new.with_suffix(".bin").write_text(text)


def contents(folder):
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_files_appear_and_are_replaced_together(tmp_path):
    write(tmp_path / "net.xml", "old")
    write(tmp_path / "net.xml", "new", overwrite=True)
    assert contents(tmp_path) == {"net.xml": "new", "net.bin": "new"}


def test_a_file_beside_it_is_not_replaced_unasked(tmp_path):
    (tmp_path / "net.bin").write_text("another's")
    with pytest.raises(TuckertreeError, match=r"net\.bin exists already; .* overwrite=True"):
        write(tmp_path / "net.xml", "new")
    assert contents(tmp_path) == {"net.bin": "another's"}


def test_a_block_that_fails_leaves_everything_as_it_was(tmp_path):
    write(tmp_path / "net.xml", "old")

    def fill_the_disk():
        with atomic_files(tmp_path / "net.xml", overwrite=True) as new:
            new.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(TuckertreeError, match=r"cannot write .*net\.xml: No space left"):
        fill_the_disk()
    assert contents(tmp_path) == {"net.xml": "old", "net.bin": "old"}


def folder_of(path, **files):
    path.mkdir()
    for name, text in files.items():
        (path / name.replace("_", ".")).write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"model_type": "resnet"}',
        '{"format": "1", "made": "here"}',
        "[" * 100_000,
        OURS + " " * 200_000,
    ],
    ids=["empty", "list", "another's", "type", "deep", "large"],
)
def test_a_folder_whose_marker_is_not_ours_is_never_replaced(tmp_path, monkeypatch, text):
    monkeypatch.setattr(reading, "LARGEST_JSON", 200_000)
    folder = folder_of(tmp_path / "out", it_json=text)
    with pytest.raises(TuckertreeError, match="out exists and holds other files; choose another output"):
        check_free(folder, kind=KIND, overwrite=True)


def test_a_folder_of_ours_with_a_file_that_is_not_is_never_replaced(tmp_path):
    folder = folder_of(tmp_path / "out", it_json=OURS, data="", thesis_tex="years of work")
    with pytest.raises(TuckertreeError, match=r"holds other files \(thesis\.tex\); choose another output"):
        check_free(folder, kind=KIND, overwrite=True)


@pytest.mark.parametrize("renames", [1, 2], ids=["old one is away", "new one is there"])
def test_ctrl_c_between_two_folders_leaves_one_of_them(tmp_path, monkeypatch, renames):
    folder = folder_of(tmp_path / "out", it_json=OURS)
    rename, done = Path.rename, []

    def interrupted(path, target):
        rename(path, target)
        done.append(path)
        if len(done) == renames:
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_folder(folder, kind=KIND, overwrite=True) as new:
        (new / "data").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert contents(folder) == ({"it.json": OURS} if renames == 1 else {"data": "new"})
