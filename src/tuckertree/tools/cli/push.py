"""`tuckertree push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuckertree.tools.cli.app import command, print_json, stdout
from tuckertree.tools.cli.options import AsJson


@command
def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A saved folder.")],
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository; made if there is none.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make it private; never put anything into a public one.")
    ] = False,
    base_model: Annotated[
        str | None, typer.Option(help="The network it was made from, as OWNER/NAME on the hub.")
    ] = None,
    license: Annotated[str | None, typer.Option(help="Its license, as the hub names it: apache-2.0.")] = None,  # noqa: A002
    message: Annotated[str, typer.Option(help="Message of the commit.")] = "Compressed with tuckertree",
    overwrite: Annotated[
        bool, typer.Option(help="Replace what a repository of a saved folder holds, its page too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a saved folder on the Hugging Face hub, with a page that says what it is.

    Every command takes it from there as hf-hub:OWNER/NAME. It needs a login by `hf auth login`, or HF_TOKEN.
    """
    from tuckertree.io import push_to_hub

    pushed = push_to_hub(
        folder,
        name,
        private=private,
        overwrite=overwrite,
        base_model=base_model,
        license=license,
        message=message,
    )
    if as_json:
        print_json({"pushed": pushed})
    else:
        stdout.print(f"pushed      {pushed}", soft_wrap=True)
