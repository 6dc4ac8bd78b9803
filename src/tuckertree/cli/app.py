"""The application: errors become one line and an exit code; what commands print with."""

from __future__ import annotations

import json
import os
import signal
import warnings
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from tuckertree._version import __version__
from tuckertree.errors import TuckertreeError, printable

stdout, stderr = Console(), Console(stderr=True)


class _Commands(typer.core.TyperGroup):
    """Turn the errors of the library into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TuckertreeError as error:
            code, message = error.exit_code, str(error)
        except KeyboardInterrupt as error:
            code, message = 130, str(error) or "interrupted; nothing was written"
        except MemoryError as error:
            code, message = 1, f"out of memory: {error}"
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            code, message = 1, f"{where}{error.strerror or error}"
        stderr.print("error:", style="bold red", end=" ")
        stderr.print(_one_line(message), soft_wrap=True)
        raise typer.Exit(code)


app = typer.Typer(
    name="tuckertree",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Compress trained convolutional networks by hierarchical Tucker-2 decomposition.",
    epilog="MODEL is demo, cifar10:resnet20, caffe:googlenet, torchvision:NAME, timm:NAME, a folder saved by "
    "compress, package.module:factory, or an .onnx file.",
)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def print_table(table: Any) -> None:
    """Print a table as wide as the terminal or COLUMNS says; wide enough for all of it where neither does."""
    known = stdout.is_terminal or os.environ.get("COLUMNS", "").isdigit()
    Console(width=None if known else 240).print(table)


def print_json(data: Mapping[str, Any] | list[Any]) -> None:
    """Print JSON to stdout."""
    print(json.dumps(data, indent=1, default=list))


def main() -> None:
    """Run the command line; being told to end counts as Ctrl-C, so that nothing is left half-written."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    warnings.showwarning = _show_warning
    app()


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    stderr.print(_one_line(f"warning: {message}"), soft_wrap=True)


def _one_line(message: str) -> Text:
    """A message on one line, with nothing in it that rich or a terminal would take for an instruction."""
    return Text(printable(" ".join(message.split())))
