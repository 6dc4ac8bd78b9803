"""`tuckertree bench`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tuckertree._base.errors import UsageError
from tuckertree.tools.cli.app import command, print_json, print_table, stdout
from tuckertree.tools.cli.options import (
    AsJson,
    BuiltBy,
    Device,
    InputSize,
    InputValues,
    Models,
    NoFused,
    fused_lines,
    parse_sizes,
    parse_values,
)


@command
def bench(
    models: Models,
    runtime: Annotated[
        str, typer.Option(help="Runtimes, with commas: onnxruntime,openvino,torch,torch-compile,triton.")
    ] = "onnxruntime",
    threads: Annotated[int | None, typer.Option(help="Threads a run may use.", min=1)] = None,
    batch: Annotated[int, typer.Option(help="Samples in one run.", min=1)] = 1,
    rounds: Annotated[int, typer.Option(help="Timed runs of each network.", min=5)] = 25,
    memory: Annotated[bool, typer.Option(help="Measure the memory, in processes of their own.")] = True,
    plot: Annotated[Path | None, typer.Option(help="Draw a bar chart: FILE.svg.")] = None,
    architecture: BuiltBy = None,
    input_size: InputSize = None,
    input_values: InputValues = None,
    device: Device = "cpu",
    no_fused: NoFused = False,
    as_json: AsJson = False,
) -> None:
    """Time networks against the first of them, in turns, beside the work and the memory they need."""
    from tuckertree._base.atomic import write_atomically
    from tuckertree._base.progress import progress_bar
    from tuckertree.io.report import bench_table
    from tuckertree.measure import environment
    from tuckertree.runtimes import get_runtime
    from tuckertree.tools.bench import bar_chart, open_subject
    from tuckertree.tools.bench import bench as measure

    if plot is not None and plot.suffix.lower() != ".svg":
        raise UsageError(f"a chart is written as SVG; {plot} does not end with .svg")
    runtimes = [get_runtime(name.strip(), threads=threads, device=device) for name in runtime.split(",")]
    size, values = parse_sizes(input_size), parse_values(input_values)
    subjects = [
        open_subject(
            name,
            batch=batch,
            architecture=architecture,
            input_size=size,
            input_values=values,
            fused=not no_fused,
        )
        for name in models
    ]
    plans, files = ({s.name: getattr(s, what) for s in subjects} for what in ("plan", "file"))
    fused = fused_lines(plans, no_fused=no_fused, int8=files)
    with progress_bar() as tick:
        rows = measure(subjects, runtimes, repeats=rounds, memory=memory, tick=tick)
    if plot is not None:
        write_atomically(plot, bar_chart(rows))
    if as_json:
        found = [{**asdict(row), "throughput": row.throughput, "realised": row.realised} for row in rows]
        int8 = [subject.name for subject in subjects if subject.plan and subject.file]
        print_json({"rows": found, "fused": bool(fused), "int8": int8, "environment": environment()})
        return
    print_table(bench_table(rows))
    stdout.print(
        "ms: one run, the least in each group of five, median over the groups; faster, fewer MACs: against the first "
        "network; realised: the first of them over the second; size: of an ONNX file, or a "
        "folder's file of weights; of other networks, and folders run as measured, of parameters and buffers; memory: peak "
        "of a process of its own, above its packages",
        soft_wrap=True,
        highlight=False,
    )
    for line in fused:
        stdout.print(line, soft_wrap=True, highlight=False)
    if plot is not None:
        stdout.print(f"saved       {plot}", soft_wrap=True)
