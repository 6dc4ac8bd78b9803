"""Several files that appear together or not at all."""

import pytest

from tuckertree.errors import TuckertreeError
from tuckertree.formats.atomic import atomic_files


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
    with pytest.raises(TuckertreeError, match=r"net\.bin exists already; .* --overwrite"):
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
