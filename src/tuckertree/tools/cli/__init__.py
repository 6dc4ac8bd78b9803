"""The command line: thin, each command calls one function of the library.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 failed, 2 usage, 3 the target
cannot be reached, 130 interrupted.
"""

import os
import sys

try:
    from tuckertree.tools.cli import (  # noqa: F401  (commands register themselves)
        bench,
        compare,
        compress,
        demo,
        evaluate,
        export,
        finetune,
        inspect,
        push,
        report,
        reproduce,
        train,
        tune,
    )
    from tuckertree.tools.cli.app import app, main
except KeyboardInterrupt:
    print("error: interrupted; nothing was written", file=sys.stderr, flush=True)
    os._exit(130)  # see main()

__all__ = ["app", "main"]
