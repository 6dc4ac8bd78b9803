"""From what a path holds to the file of its page."""

from __future__ import annotations

from pathlib import Path

from tuckertree._base.atomic import atomic_files, check_free_file
from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree._base.extras import require_extra
from tuckertree.io import is_on_hub, local_folder
from tuckertree.io.folder import CONFIG
from tuckertree.io.hub import short_name
from tuckertree.tools.html_report.comparison import comparison_page, is_comparison
from tuckertree.tools.html_report.content import Page
from tuckertree.tools.html_report.onnx_file import onnx_page
from tuckertree.tools.html_report.reading import open_folder, with_sensitivity
from tuckertree.tools.html_report.saved import saved_page
from tuckertree.tools.html_report.writing import is_page, page_html


def default_output(source: Path) -> Path:
    """Where the page of a result goes: beside it, since a saved folder holds nothing but a network.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tuckertree.tools.html_report import default_output
    >>> default_output(Path("out/r56")).as_posix(), default_output(Path("small.onnx")).as_posix()
    ('out/r56-report.html', 'small.onnx-report.html')
    """
    if is_on_hub(source):
        return Path(f"{short_name(source)}-report.html")
    source = source if source.name not in ("", "..") else source.resolve()
    return source.with_name(f"{source.name}-report.html")


def page_of(source: Path, sensitivity: Path | None = None) -> Page:
    """The page of a saved folder, a comparison or an ONNX file, which are read and never run.

    Raises
    ------
    TuckertreeError
        If it is none of these, or damaged.
    """
    if (source / CONFIG).exists():
        folder = open_folder(source)
        return saved_page(folder if sensitivity is None else with_sensitivity(folder, sensitivity))
    if source.suffix.lower() == ".onnx" and not source.is_dir():
        return onnx_page(source, sensitivity)
    if sensitivity is not None:
        raise UsageError(f"a sensitivity is shown with a saved folder, which {source} is not")
    if is_comparison(source):
        return comparison_page(source)
    what = (
        "there is no such file or folder"
        if not source.exists()
        else "it holds no config.json or comparison.json"
    )
    what = "it is a file" if source.is_file() else what
    raise TuckertreeError(
        f"{source} is no result: {what}; give a folder of compress, tune, finetune or compare, or an .onnx file"
    )


def write_report(
    source: str | Path,
    output: str | Path | None = None,
    *,
    sensitivity: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write what a saved folder, a comparison or an ONNX file holds as one HTML file, and give its path.

    Parameters
    ----------
    output
        The file; by default that of :func:`default_output`.
    sensitivity
        For what ``compress`` made, a file of what ``inspect --sensitivity --json`` printed, to be shown too.
    overwrite
        Whether it may be replaced; only a page is, never another file.

    Raises
    ------
    TuckertreeError
        If the source is no result, plotly is not installed, or the file exists, belongs to what is shown, or cannot be written.

    Examples
    --------
    >>> import tempfile, torch, tuckertree as tt
    >>> from tuckertree.tools.html_report import write_report
    >>> result = tt.compress(tt.build("demo"), torch.zeros(1, 3, 32, 32), tt.Budget(macs=0.5))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = write_report(result.save(f"{folder}/small"))
    ...     text = written.read_text(encoding="utf-8")
    >>> written.name, "2.0x fewer MACs" in text
    ('small-report.html', True)
    """
    source = Path(source)
    output = default_output(source) if output is None else Path(output)
    source = local_folder(source)
    require_extra("plotly.offline", extra="report")
    sensitivity = None if sensitivity is None else Path(sensitivity)
    page = page_of(source, sensitivity)
    _check_output(output, source, sensitivity, overwrite=overwrite)
    with atomic_files(output, overwrite=overwrite) as fresh:
        fresh.write_text(page_html(page), encoding="utf-8", newline="\n")
    return output


def _check_output(output: Path, source: Path, sensitivity: Path | None, *, overwrite: bool) -> None:
    """Refuse what is shown, what is in its folder, and any file but a page."""
    read = [file.resolve() for file in (source, sensitivity) if file is not None]
    for place in (
        output.resolve(),
        output.parent.resolve() / output.name,
    ):  # what a link leads to, and itself
        if place in read:
            raise TuckertreeError(f"{output} is what is to be shown; choose another output")
        if read[0] in place.parents:
            raise TuckertreeError(
                f"{output} is in the folder of the result, which holds nothing else; choose another output"
            )
    check_free_file(output, overwrite=overwrite)
    if (output.exists() or output.is_symlink()) and not is_page(output):
        raise TuckertreeError(f"{output} exists and is no page of report; choose another output")
