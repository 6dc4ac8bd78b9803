"""The application: errors become one line and an exit code; what commands print with."""

from __future__ import annotations

import _thread
import functools
import inspect
import json
import os
import re
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any, TextIO, get_type_hints

import typer
from rich.console import Console
from rich.text import Text

from tuckertree._base.errors import TuckertreeError, command_line, printable
from tuckertree._base.progress import be_quiet
from tuckertree._base.version import __version__

stdout, stderr = Console(), Console(stderr=True)
_INTERRUPTED = (130, "interrupted; nothing was written")
_HELP = "NoArgsIsHelpError"
"""What typer raises to show the help of a command without arguments."""
_NO_MEMORY = re.compile("allocate memory|out of memory")


class _Commands(typer.core.TyperGroup):
    """Turn errors, of the library and of what was typed, into one line and an exit code."""

    typed: tuple[str, ...] = ()

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **kwargs: Any) -> Any:
        _Commands.typed = tuple(args)
        with _told():
            return super().make_context(info_name, args, *more, **kwargs)

    def invoke(self, ctx: Any) -> object:
        with _told(), command_line():
            return super().invoke(ctx)


@contextmanager
def _told() -> Iterator[None]:
    """Say errors in one line, and end with their exit codes."""
    try:
        yield
    except Exception as error:
        if isinstance(error, typer.Exit):
            raise  # the end of a command
        # An import that Ctrl-C falls into makes what it likes of it: an ImportError, a RecursionError.
        found = _INTERRUPTED if interruption.came else _code_and_message(error)
        if found is None:
            raise
        code, message = found
    except KeyboardInterrupt as error:
        code, message = _INTERRUPTED[0], str(error) or _INTERRUPTED[1]
    else:
        return
    interruption.came = False  # and is told
    fail(message)
    raise typer.Exit(code)


app = typer.Typer(
    name="tuckertree",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Compress trained convolutional networks by hierarchical Tucker-2 decomposition.",
    epilog="MODEL is demo, cifar10:resnet20, caffe:googlenet, torchvision:NAME, timm:NAME, a folder saved by "
    "compress or hf-hub:owner/name, one on the Hugging Face hub, package.module:factory, or an .onnx file.",
)


def _be_quiet(quiet: bool) -> None:
    stdout.quiet = quiet
    be_quiet(quiet)


_QUIET = inspect.Parameter(
    "quiet",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            callback=_be_quiet,
            help="Print no table and no progress; errors, warnings and --json stay.",
        ),
    ],
)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Make a function a command of its name, with the options that every command has."""

    @functools.wraps(function)
    def run(*, quiet: bool, **options: object) -> None:  # noqa: ARG001  (its callback has done it)
        function(**options)

    hints = get_type_hints(function, include_extras=True)
    given = inspect.signature(function).parameters.values()
    parameters = [each.replace(annotation=hints[each.name]) for each in given]
    run.__signature__ = inspect.Signature([*parameters, _QUIET])  # type: ignore[attr-defined]
    run.__annotations__ = {**hints, "quiet": _QUIET.annotation}
    app.command()(run)
    return function


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def typed_command() -> str:
    """The command as it was typed, for those who want to repeat it."""
    return shlex.join(["tuckertree", *_Commands.typed])


def with_command(report: Mapping[str, object]) -> list[str]:
    """The commands that a report says a network was made by, and this one."""
    before = report.get("commands")
    return [*(map(str, before) if isinstance(before, list) else ()), typed_command()]


def print_table(table: object) -> None:
    """Print a table as wide as the terminal or COLUMNS says; wide enough for all of it where neither does."""
    if stdout.quiet:
        return
    known = stdout.is_terminal or os.environ.get("COLUMNS", "").isdigit()
    Console(width=None if known else 240).print(table)


def print_json(data: Mapping[str, object] | list[object]) -> None:
    """Print JSON to stdout."""
    print(json.dumps(data, indent=1, default=list))


def fail(message: str) -> None:
    """Say on stderr what went wrong."""
    stderr.print("error:", style="bold red", end=" ")
    stderr.print(_one_line(message), soft_wrap=True)


def _code_and_message(error: Exception) -> tuple[int, str] | None:
    """Exit code and line of an error that a user can do something about; None for one of ours."""
    if isinstance(error, TuckertreeError):
        return error.exit_code, str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))):
        return 1, f"out of memory: {error}"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return 1, f"{where}{error.strerror or error}"
    return _typed(error)


def _typed(error: Any) -> tuple[int, str] | None:
    """The same of what typer has against the options that were typed; its classes moved between versions."""
    if getattr(error, "ctx", None) is None or type(error).__name__ == _HELP:
        return None
    return 2, f"{error.format_message().rstrip('.')}; see {error.ctx.command_path} --help"


class _Interruption:
    """Ctrl-C, or being told to end, which counts as one: nothing is left half-written."""

    came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        signal.default_int_handler(number, frame)

    def again(self, lost: sys.UnraisableHookArgs) -> None:
        """Interrupt once more where Python drops what the first raised, in a callback for instance."""
        if self.came and issubclass(lost.exc_type, KeyboardInterrupt):
            threading.Timer(0.01, _thread.interrupt_main).start()
        else:
            sys.__unraisablehook__(lost)


interruption = _Interruption()


class _Unread:
    """A stream whose reader may leave, as `head` does; what it does not want is dropped, and the work is done."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._unread():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._unread():
            self._stream.flush()

    @contextmanager
    def _unread(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # what the stream still holds goes there at the end
            os.close(nowhere)


def main() -> None:
    """Run the command line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interruption)
    warnings.showwarning = show_warning
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is not None:
            setattr(sys, name, _Unread(stream))
    sys.unraisablehook = interruption.again
    try:
        app()
    except (SystemExit, KeyboardInterrupt) as end:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is ending
        code = end.code if isinstance(end, SystemExit) else _INTERRUPTED[0]
        if interruption.came and code:  # while typer itself was imported
            code = _INTERRUPTED[0]
            fail(_INTERRUPTED[1])
        if code == _INTERRUPTED[0]:
            sys.stdout.flush()
            os._exit(code)  # Python would turn an interruption in the middle of an exec() into a signal
        raise


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Say on stderr what there is to be wary of."""
    stderr.print(_one_line(f"warning: {message}"), soft_wrap=True)


def _one_line(message: str) -> Text:
    """A message on one line, with nothing in it that rich or a terminal would take for an instruction."""
    return Text(printable(" ".join(message.split())))
