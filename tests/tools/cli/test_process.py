"""The command line as a process: what it imports, how it is interrupted, and who reads what it prints."""

import signal
import subprocess
import sys

import pytest

import tuckertree as tt

MAIN = "import sys; from tuckertree.tools.cli import main; main()"
# Ctrl-C in the middle of an import, of which the import makes something else.
INTERRUPTED = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == {module!r} and self in sys.meta_path:
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), signal.{signal})
                for _ in range(100): pass
            except KeyboardInterrupt:
                {then}
sys.meta_path.insert(0, Finder())
"""
# Python drops what is raised in a destructor.
DROPPED = "exec('class D:\\n def __del__(self): raise KeyboardInterrupt'); D()\n                import time; time.sleep(5)"


def run(code, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, **options
    )


@pytest.mark.parametrize("arguments", [["--version"], ["compress", "--help"], ["nosuch"]])
def test_what_needs_no_network_does_not_import_torch(arguments):
    code = MAIN.replace("main()", "\ntry:\n    main()\nfinally:\n    print('torch' in sys.modules)")
    done = run(code, *arguments)
    assert done.returncode == (2 if "nosuch" in arguments else 0)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_library_offers_what_it_says_and_nothing_else():
    assert set(tt.__all__) <= set(dir(tt))
    assert all(getattr(tt, name) is not None for name in tt.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nosuch'"):
        _ = tt.nosuch


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize(
    ("number", "then"),
    [
        ("SIGINT", "raise"),
        ("SIGTERM", "raise RecursionError('too deep')"),
        ("SIGINT", "raise ImportError('torch is broken')"),
        ("SIGINT", DROPPED),
    ],
    ids=["interrupt", "recursion", "import", "dropped"],
)
def test_ctrl_c_while_torch_is_imported_is_one_line(number, then):
    code = INTERRUPTED.format(module="torch", then=then, signal=number) + MAIN
    done = run(code, "inspect", "demo")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "error: interrupted; nothing was written\n"


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="needs POSIX pipes")
def test_a_reader_that_leaves_does_not_make_it_fail(tmp_path):
    command = [sys.executable, "-c", MAIN, "compress", "demo", "--energy", "0.95", "-o", tmp_path / "out"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()  # before anything is printed
        assert process.stderr.read() == ""
        assert process.wait() == 0
    assert tt.load(tmp_path / "out") is not None
