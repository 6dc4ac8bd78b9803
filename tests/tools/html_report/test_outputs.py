"""Where a page may be written, and what it never replaces."""

import json

import pytest

from tests.tools.cli.test_cli import tuckertree
from tests.tools.html_report.cases import comparison, outcomes, saved, sensitivity

pytest.importorskip("plotly")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("made") / "small")


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(*words):
    code, out, err = tuckertree("report", *words)
    assert (code, out, err.count("\n")) == (1, "", 1)
    return err


def test_a_page_is_replaced_when_asked(folder, tmp_path):
    output = tmp_path / "page.html"
    assert tuckertree("report", folder, "--output", output)[0] == 0
    before = output.read_bytes()
    output.write_bytes(before + b"older")
    assert "--overwrite" in refused(folder, "--output", output)
    assert output.read_bytes() == before + b"older"
    assert tuckertree("report", folder, "--output", output, "--overwrite")[0] == 0
    assert output.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize("content", ["", "mine", "<!doctype html>\n<title>mine</title>"])
def test_no_other_file_is_ever_replaced(folder, tmp_path, content):
    output = tmp_path / "page.html"
    output.write_text(content)
    refused(folder, "--output", output)
    assert "no page" in refused(folder, "--output", output, "--overwrite")
    assert output.read_text() == content


@pytest.mark.parametrize("inside", ["report.html", "logs/report.html", "../small/report.html"])
def test_a_page_does_not_go_into_the_folder(folder, inside):
    before = contents(folder)
    assert "in the folder" in refused(folder, "--output", folder / inside, "--overwrite")
    assert contents(folder) == before
    assert not (folder / "logs").exists()


def test_a_link_leads_neither_into_the_folder_nor_out_of_it(folder, tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "compared"
    inside.symlink_to(folder, target_is_directory=True)
    assert "in the folder" in refused(folder, "--output", inside / "x.html")
    assert "in the folder" in refused(inside, "--output", folder / "x.html")
    comparison(outside, outcomes())
    (outside / "cells" / "x.html").symlink_to(tmp_path / "x.html")
    assert "in the folder" in refused(outside, "--output", outside / "cells" / "x.html", "--overwrite")


def test_a_page_does_not_go_among_the_cells_of_a_comparison(tmp_path):
    compared = comparison(tmp_path / "compared", outcomes())
    before = contents(compared)
    assert "in the folder" in refused(compared, "--output", compared / "cells" / "x.html")
    assert contents(compared) == before


def test_a_page_does_not_take_the_place_of_the_sensitivity_that_it_shows(folder, tmp_path):
    file = tmp_path / "sensitivity.json"
    file.write_text(json.dumps(sensitivity()))
    before = contents(tmp_path)
    assert "to be shown" in refused(folder, "--sensitivity", file, "-o", file, "--overwrite")
    assert contents(tmp_path) == before


def test_a_page_does_not_take_the_place_of_the_model_that_it_shows(tmp_path):
    pytest.importorskip("onnxscript")
    import torch

    import tuckertree as tt
    from tests.tools.comparison.cases import tiny

    file = tt.export(tiny(), tmp_path / "net.onnx", torch.zeros(1, 3, 32, 32)).path
    link = tmp_path / "link.html"
    link.symlink_to(file)
    before = contents(tmp_path)
    for output in (file, tmp_path / "." / "net.onnx", link):
        assert "to be shown" in refused(file, "--output", output, "--overwrite")
    assert contents(tmp_path) == before
