"""Make docs/networks from docs/results: a page for each network, with accuracy, size, latency, time and command.

    python scripts/network_pages.py

A dash stands where nothing was measured. The same files give the same pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from network_lines import READERS, Line, compress
from network_list import ERROR, NETWORKS, Network

ROOT = Path(__file__).parents[1]
DASH = "-"


def fewer(values: tuple[int, int] | None) -> str:
    """How many times fewer, and how many remain."""
    if values is None:
        return DASH
    before, after = values
    unit, name = next(((u, n) for u, n in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if after >= u), (1, ""))
    return f"{before / after:.2f}x ({after / unit:.3g}{name})"


def cells(number: int, line: Line, score: str) -> Iterator[str]:
    """A line of the table."""
    yield str(number)
    yield line.how
    yield fewer(line.parameters)
    yield fewer(line.macs)
    yield DASH if line.size is None else f"{line.size[0] / 1e6:.2f} > {line.size[1] / 1e6:.2f}"
    if line.score is None:
        yield DASH
    else:
        before, after = line.score
        digits = 3 if score == ERROR else 2
        yield (
            f"{after:.{digits}f}" if before is None else f"{before:.{digits}f}&nbsp;>&nbsp;{after:.{digits}f}"
        )
    yield (
        DASH
        if line.latency is None
        else f"{line.latency[1]:.2f}x of {line.latency[0]:.3g} ms, {line.latency[2]}"
    )
    yield DASH if line.seconds is None else f"{line.seconds:.0f}"
    yield f"[{line.source}](../results/{line.source}.md)"


def page(of: Network) -> str:
    """The page of a network."""
    lines = [line for reader in READERS for line in reader(of)]
    head = (
        "|  | how | parameters | MACs | file, MB | "
        + of.score
        + " | faster | seconds | measured |\n"
        + "|--:|---|--:|--:|--:|--:|--:|--:|---|\n"
    )
    commands = list(dict.fromkeys(line.command for line in lines)) or [
        of.command or compress(of, "--macs 2x --calibration IMAGES")
    ]
    rows = [
        "| " + " | ".join(cells(commands.index(line.command) + 1, line, of.score)) + " |\n" for line in lines
    ]
    rows = rows or ["| 1 | budget, MACs 2x" + f" | {DASH}" * 7 + " |\n"]
    said = "\n".join(f"# {number}\n{command}" for number, command in enumerate(commands, 1))
    return (
        f"# {of.title}\n\n{of.about}\n\n{head}{''.join(rows)}\n"
        f"A dash: not measured. `>`: before and after. *Faster*: ONNX Runtime, one sample, beside the dense network's "
        f"time in milliseconds. *Seconds*: to compress, train and tune. Each line was measured by the benchmark of the page in its "
        f"last column, which says on which images and machine, and whether the code has changed since.\n\n"
        f"## Commands\n\nOf the numbers in the first column:\n\n```sh\n{said}\n```\n"
    )


def index() -> str:
    """The page that lists them."""
    rows = "".join(
        f"| [{of.title}]({of.page}.md) | `{of.model}` | {sum(1 for reader in READERS for _ in reader(of)) or DASH} | {of.score} |\n"
        for of in NETWORKS
    )
    return (
        "# Networks\n\nWhat was measured of each network: accuracy, size, latency, the time it took, and the command. These pages are "
        "made by `python scripts/network_pages.py` from [the results](../results/index.md), and from nothing else.\n\n"
        "| network | MODEL | lines | score |\n|---|---|--:|---|\n" + rows
    )


def pages() -> dict[str, str]:
    """All pages by the names of their files."""
    return {"index.md": index(), **{f"{of.page}.md": page(of) for of in NETWORKS}}


def main() -> None:
    """Write the pages."""
    folder = ROOT / "docs/networks"
    folder.mkdir(exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
