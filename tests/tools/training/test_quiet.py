"""Lightning leaves the process as it was."""

import subprocess
import sys

import pytest

pytest.importorskip("lightning")


def test_importing_lightning_sets_no_environment_variable():
    code = "import os; before = dict(os.environ); from tuckertree.tools.training.quiet import load_lightning; load_lightning()"
    code += "; print({k: v for k, v in os.environ.items() if before.get(k) != v and k.startswith('PYTORCH')})"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "{}"
