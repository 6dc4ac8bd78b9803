"""Run the command line: ``python -m tuckertree``."""

import os
import sys

if sys.path[:1] == [os.getcwd()]:  # noqa: PTH109  (as Python itself wrote it there)
    # `python -m` imports from the working folder first, which may be anybody's; what the user names is found there.
    del sys.path[0]

from tuckertree.tools.cli import main

main()
