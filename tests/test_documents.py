"""Every code block of the README and of docs: Python runs, commands are parsed, what is neither says why and is counted."""

import ast
import json
import re
import shlex
import shutil
import tomllib
import warnings
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import typer
import yaml
from torch import nn

import tuckertree as tt
from tuckertree.tools.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>not run|tested): (?P<why>.+?) -->\n)?^```(?P<language>\S*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
INDENTED = re.compile(r"(?<=\n\n) {4}((?:python|tuckertree|make|pip) (?:.*\n)(?: {4}.*\n)*)")
"""What the benchmarks write into their own pages."""
INLINE = re.compile(r"`(tuckertree [a-z][^`]*)`")
NOT_RUN = 7
"""Blocks that are marked as not run. One more is one more that may be wrong: think twice."""
COMMANDS = typer.main.get_command(app).commands
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
EXTRAS = set(
    tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
)


class Block(NamedTuple):
    page: Path
    line: int
    mark: str | None
    why: str | None
    language: str
    code: str

    @property
    def place(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in BLOCK.finditer(text):
            line = text.count("\n", 0, found.start("code")) + 1
            yield Block(page, line, *found.group("mark", "why", "language", "code"))
        if page.is_relative_to(ROOT / "docs/results"):
            for found in INDENTED.finditer(text):
                line = text.count("\n", 0, found.start()) + 1
                yield Block(page, line, None, None, "sh", re.sub("(?m)^ {4}", "", found[1]))


BLOCKS = list(blocks())
PYTHON = [block for block in BLOCKS if block.language == "python"]
RUN = [block for block in PYTHON if block.mark is None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the blocks run: with an ONNX file, as a reader has one."""
    folder = tmp_path_factory.mktemp("reader")
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tt.export(network(), folder / "model.onnx", torch.zeros(1, 3, 8, 8))
    return folder


def network():
    """A small classifier whose kernels are near ones of low rank, as trained ones are."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    ).eval()
    with torch.no_grad():
        for weight in (model[0].weight, model[3].weight):
            u, s, v = torch.linalg.svd(weight.flatten(1), full_matrices=False)
            weight.copy_((u * s * 0.7 ** torch.arange(len(s)) @ v).view_as(weight))
    return model


@cache
def stub():
    """What a block may take for given: a model, its inputs, images, and what compress made of them."""
    model = network()
    images = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = model(images).argmax(1)
    example = torch.zeros(1, 3, 8, 8)
    return {
        "__name__": "page",
        "tt": tt,
        "torch": torch,
        "nn": nn,
        "model": model,
        "original": model,
        "example": example,
        "example_inputs": example,
        "images": images,
        "result": tt.compress(model, example, tt.Budget(params=0.6), calibration=images),
        "labelled": list(zip(images.split(12), labels.split(12), strict=True)),
    }


@pytest.mark.parametrize("page", sorted({block.page for block in RUN}), ids=lambda page: page.stem)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, folder, tmp_path, monkeypatch):
    shutil.copy(folder / "model.onnx", tmp_path)
    monkeypatch.chdir(tmp_path)
    names = dict(stub())
    for block in RUN:
        if block.page == page:
            for package in re.findall(r"^(?:from|import) (\w+)", block.code, re.MULTILINE):
                pytest.importorskip(package)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a reader sees them; the stub is small and random
                exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), names)


def test_what_is_not_run_says_why_and_is_counted():
    marked = [block for block in BLOCKS if block.mark == "not run"]
    for block in marked:
        if block.language == "python":
            ast.parse(block.code)
        print(f"{block.place}: {block.why}")
    print(
        f"{len(RUN)} blocks of Python run; {len(marked)} of {len(BLOCKS)} blocks neither run nor are parsed"
    )
    assert len(marked) == NOT_RUN
    for block in BLOCKS:
        if block.mark == "tested":
            assert block.page.name in (ROOT / block.why).read_text(encoding="utf-8"), block.place


def test_each_page_can_be_found():
    """Without mkdocs: it says so too, when the site is built."""
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    index = (ROOT / "docs/results/index.md").read_text(encoding="utf-8")
    for page in PAGES[2:]:
        assert f" {page.relative_to(ROOT / 'docs')}\n" in listed, f"mkdocs.yml does not list {page.name}"
        if page.parent == ROOT / "docs/results" and page.name != "index.md":
            assert f"({page.name})" in index, f"docs/results/index.md does not list {page.name}"


def test_a_block_says_what_it_is():
    known = {"python", "sh", "yaml", "toml", "json", "text", "javascript", "groovy", "html"}
    assert not [block.place for block in BLOCKS if block.language not in known]
    for page in PAGES:
        if page.name != "CONTRIBUTING.md" and not page.is_relative_to(ROOT / "docs/results"):
            text = BLOCK.sub("", page.read_text(encoding="utf-8"))
            assert not re.search(r"\n\n {4}(?! *[-*0-9])\S", text), f"{page.name}: fence its indented code"


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "sh"], ids=lambda block: block.place
)
def test_a_command_is_one(block):
    if block.mark == "not run":
        return
    for line in block.code.replace("\\\n", " ").splitlines():
        for words in commands_of(line):
            check(words, block.place)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_data_can_be_read(block):
    readers = {"yaml": yaml.safe_load, "toml": tomllib.loads, "json": json.loads}
    readers.get(block.language, str)(block.code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_in_the_text_exist(page):
    for said in INLINE.findall(page.read_text(encoding="utf-8")):
        words = said.split()
        assert words[1] in COMMANDS, said
        known = {name for option in COMMANDS[words[1]].params for name in option.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known | {"--help"}, said


def commands_of(line):
    """The commands of a line, without settings of the environment, comments and what goes between commands."""
    found = [[]]
    for word in shlex.split(line.partition(" > ")[0], comments=True):
        if word in ("&&", "|", ";"):
            found.append([])
        elif found[-1] or not re.fullmatch(r"[A-Z_]+=.*", word):
            found[-1].append(word)
    return [words for words in found if words]


def check(words, place):
    command, *rest = words
    command = Path(command).name
    if command == "tuckertree":
        if rest[0].startswith("--"):
            assert rest[0] in {"--help", "--version"}, place
        else:
            COMMANDS[rest[0]].make_context(rest[0], rest[1:], resilient_parsing="--help" in rest)
    elif command == "make":
        assert {word for word in rest if "=" not in word} <= TARGETS, place
    elif command == "pip":
        asked = re.search(r"\.\[(.*?)\]", " ".join(rest))
        assert not asked or set(asked[1].split(",")) <= EXTRAS, place
    elif command in ("python", "torchrun"):
        script = next(word for word in rest if not word.startswith("-"))
        if script.endswith(".py") and "/" in script:
            text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / script).parent.glob("*.py"))
            for option in [word for word in rest[rest.index(script) :] if word.startswith("--")]:
                assert f'"{option}"' in text, f"{place}: {script} has no {option}"
            assert (ROOT / script).is_file(), place
    else:
        assert command in {"cd", "git", "export", "cat", "npm", "ls"}, f"{place}: {command}?"
