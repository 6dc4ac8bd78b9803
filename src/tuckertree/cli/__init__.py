"""The command line: thin, each command calls one function of the library.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 failed, 2 usage, 3 the target
cannot be reached, 130 interrupted.
"""

<<<<<<< HEAD
from tuckertree.cli import bench, compress, demo, evaluate, export, inspect  # noqa: F401  (they register themselves)
=======
# Commands register themselves.
from tuckertree.cli import compress, demo, evaluate, finetune, inspect, reproduce, train  # noqa: F401
>>>>>>> main
from tuckertree.cli.app import app, main

__all__ = ["app", "main"]
