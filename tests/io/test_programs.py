"""Two programs and one output, full disks, and files that are none."""

import json
import os
import subprocess
import sys
import threading

import pytest
import torch

import tuckertree as tt
from tests.tools.cli.test_cli import tuckertree
from tuckertree._base.atomic import Kind, atomic_files, atomic_folder, claimed
from tuckertree._base.errors import TuckertreeError, argument, command_line
from tuckertree.io import read_plan

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX locks, pipes and limits")
KIND = Kind("it.json", {"format": int}, frozenset({"it.json"}))
HOLD = (
    "import sys, pathlib\nfrom tuckertree._base.atomic import claimed\n"
    "with claimed(pathlib.Path(sys.argv[1])):\n    print('in', flush=True)\n    sys.stdin.read()\n"
)


def write_folder(path, text, overwrite):
    with atomic_folder(path, kind=KIND, overwrite=overwrite) as new:
        (new / "it.json").write_text(json.dumps({"format": 1, "text": text}))
        yield


def write_file(path, text, overwrite):
    with atomic_files(path, overwrite=overwrite) as new:
        new.write_text(text)
        yield


def finish(writer):
    next(writer, None)


@pytest.mark.parametrize("write", [write_folder, write_file])
def test_of_two_that_write_one_output_exactly_one_is_first(tmp_path, write):
    target = tmp_path / "out"
    one, other = (write(target, text, False) for text in ("one", "other"))
    next(one), next(other)  # both found nothing there, and have written all of it
    finish(one)
    with pytest.raises(
        TuckertreeError, match="out exists already; choose another output or pass overwrite=True"
    ):
        finish(other)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert "one" in (target / "it.json" if target.is_dir() else target).read_text()


@pytest.mark.parametrize("write", [write_folder, write_file])
def test_of_many_at_once_all_but_one_are_refused_and_the_output_is_whole(tmp_path, write):
    target, refused, start = tmp_path / "out", [], threading.Barrier(8)

    def work(number):
        writer = write(target, f"{number}" * 1000, False)
        try:
            next(writer)
            start.wait()
            finish(writer)
        except TuckertreeError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(refused), [path.name for path in tmp_path.iterdir()]) == (7, ["out"])


@pytest.mark.parametrize("write", [write_folder, write_file])
def test_who_may_replace_replaces_the_other(tmp_path, write):
    target = tmp_path / "out"
    writers = [write(target, text, True) for text in ("one", "other")]
    for step in (next, finish):
        for writer in writers:
            step(writer)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert "other" in (target / "it.json" if target.is_dir() else target).read_text()


def test_a_folder_of_work_belongs_to_one_program_until_it_ends(tmp_path):
    folder = tmp_path / "net.safetensors.partial"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "in\n"
        with pytest.raises(TuckertreeError, match="another program is at work in"), claimed(folder):
            pass
        for more in ((), ("--overwrite",), ("--resume",)):
            code, _, err = tuckertree(
                "train", "demo", "--data", "demo", "-o", tmp_path / "net.safetensors", "--epochs", 1, *more
            )
            assert (code, err.count("\n")) == (1, 1)
            assert ("another program is at work" in err) == bool(more)
        holder.kill()
    with claimed(folder):  # whatever ended it
        assert folder.is_dir()
    assert not folder.exists()


@pytest.fixture(scope="module")
def result():
    example = torch.zeros(1, 3, 32, 32)
    return tt.compress(tt.build("demo"), example, tt.Energy(0.5), include=["layer3.1.*"])


@pytest.fixture
def saved(result, tmp_path):
    return result.save(tmp_path / "net")


def pipe(path):
    os.mkfifo(path)


def device(path):
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5)) if os.geteuid() == 0 else os.mkfifo(path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize(
    ("make", "what"), [(pipe, "pipe or device"), (device, "pipe or device"), (os.mkdir, "folder")]
)
def test_what_is_no_regular_file_is_refused_and_not_waited_for(saved, name, make, what):
    (saved / name).unlink()
    make(saved / name)
    with pytest.raises(TuckertreeError, match=rf"{name} is a {what}"):
        tt.load(saved)
    for command in ("inspect", "export"):
        code, _, err = tuckertree(command, saved)
        assert (code, err.count("\n"), what in err) == (1, 1, True)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["inspect", "{tmp}/net.onnx"], 1),
        (["compress", "demo", "--energy", "0.5", "--weights", "{tmp}/w.safetensors", "-o", "{tmp}/out"], 1),
        (["compress", "demo", "--energy", "0.5", "--weights", "{tmp}/w.pt", "-o", "{tmp}/out"], 1),
        (["reproduce", "{tmp}/recipe.yaml", "--data", "demo", "-o", "{tmp}/out"], 2),
        (
            [
                "train",
                "cifar10:resnet20",
                "--data",
                "demo",
                "--plan",
                "{tmp}/plan.json",
                "-o",
                "{tmp}/o.safetensors",
            ],
            1,
        ),
        (["inspect", "{tmp}/config.json"], 1),
    ],
)
def test_every_option_that_takes_a_file_refuses_a_pipe(tmp_path, arguments, code):
    if arguments[1].endswith(".onnx"):
        pytest.importorskip("onnx")
    for name in ("net.onnx", "w.safetensors", "w.pt", "recipe.yaml", "plan.json", "config.json"):
        os.mkfifo(tmp_path / name)
    found, out, err = tuckertree(*(text.format(tmp=tmp_path) for text in arguments))
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert "pipe or device" in err


def test_a_plan_in_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "plan.json")
    with pytest.raises(TuckertreeError, match="pipe or device"):
        read_plan(tmp_path / "plan.json")


FULL = """
import resource, signal, sys
import torch
import tuckertree as tt
from tuckertree.io.export import export
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder, example = sys.argv[1], torch.zeros(1, 3, 16, 16)
model = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3), torch.nn.Conv2d(64, 64, 3)).eval()
result = tt.compress(model, example, tt.Energy(0.5))
writers = [lambda: result.save(f"{folder}/out")]
writers += [lambda end=end: export(model, f"{folder}/net.{end}", example) for end in sys.argv[2:]]
resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, resource.RLIM_INFINITY))
for write in writers:
    try:
        write()
    except tt.TuckertreeError as error:
        print(error)
"""


def test_a_full_disk_is_said_of_the_output_and_leaves_nothing(tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("openvino")
    ends = ["pt2", "xml"]
    code = [sys.executable, "-W", "ignore", "-c", FULL, tmp_path, *ends]
    done = subprocess.run(code, capture_output=True, text=True)
    names = ["out", *(f"net.{end}" for end in ends)]
    assert [line.partition(": ")[0] for line in done.stdout.splitlines()] == [
        f"cannot write {tmp_path / name}" for name in names
    ], done.stderr
    assert "File too large" in done.stdout
    assert not list(tmp_path.iterdir())


def test_an_argument_is_named_as_it_is_given(result, saved):
    with pytest.raises(TuckertreeError, match="pass overwrite=True"):
        result.save(saved)
    code, _, err = tuckertree("compress", "demo", "--energy", 0.5, "-o", saved)
    assert (code, "pass --overwrite" in err) == (1, True)
    assert argument("round_to", 8) == "round_to=8"
    with command_line():
        assert (argument("round_to", 8), argument("resume")) == ("--round-to 8", "--resume")
    assert argument("resume") == "resume=True"
