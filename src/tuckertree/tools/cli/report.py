"""`tuckertree report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuckertree.tools.cli.app import command, print_json, stdout
from tuckertree.tools.cli.options import AsJson


@command
def report(
    result: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|FILE.onnx|COMPARISON",
            help="A folder of compress, tune, finetune or reproduce, hf-hub:owner/name, an ONNX file, or a folder of compare.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The HTML file. [DIR-report.html beside DIR: a saved folder holds nothing but its network]",
        ),
    ] = None,
    sensitivity: Annotated[
        Path | None,
        typer.Option(
            help="Of what compress made: a file of what inspect --sensitivity --json printed, to show it too."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the output if it is a page of report.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write one HTML file that shows a result: verdict, layers, spectra, curves and reasons.

    It holds all it needs and loads nothing from a network. The result is read, and nothing of it is run.
    """
    from tuckertree.tools.html_report import write_report

    written = write_report(result, output, sensitivity=sensitivity, overwrite=overwrite)
    if as_json:
        print_json({"output": str(written), "bytes": written.stat().st_size})
    else:
        stdout.print(f"saved       {written} ({written.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)
