"""`tuckertree demo`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tuckertree.tools.cli.app import command, print_json, print_table, stdout
from tuckertree.tools.cli.options import AsJson, Overwrite


@command
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to save to.")] = Path("out/demo"),
    energy: Annotated[list[float] | None, typer.Option(help="Energy to try; may be repeated.")] = None,
    params: Annotated[
        list[float] | None, typer.Option(help="Share of parameters to try; may be repeated.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compress the packaged ResNet-20 in several ways and show what each costs and keeps."""
    from tuckertree.tools.demo import demo_table, run_demo

    if energy is None and params is None:
        energy, params = [0.9, 0.8], [0.65, 0.4, 0.26]
    rows = run_demo(output, energies=energy or (), params=params or (), overwrite=overwrite)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    print_table(demo_table(rows))
    stdout.print(
        "energy: the paper's rule, without images; params: a budget, fitted to unlabelled images; nothing fine-tuned. "
        "ms: 32 images, PyTorch in channels_last, ONNX Runtime where it is installed",
        soft_wrap=True,
        highlight=False,
    )
    stdout.print(f"saved       {output}/*", soft_wrap=True, highlight=False)
