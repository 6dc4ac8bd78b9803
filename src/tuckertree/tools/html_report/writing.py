"""One file that holds all of a page: its text as data, our script and style, and plotly's script."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from tuckertree._base.extras import require_extra
from tuckertree._base.version import __version__
from tuckertree.tools.html_report.content import Page

_PLACE = re.compile("@([A-Z]+)@")
_DOCTYPE, _OURS = b"<!doctype html>", b'<meta name="generator" content="tuckertree '
_SCRIPTS = "elements", "tables", "plots", "strip", "ranks", "page"
"""Each uses those before it."""
_FACTORY = "this, () => {"
"""Where plotly's large function begins; a version that is written otherwise is taken as it is."""
_HEAD = 4096
"""So far into a page stands what made it, before all that a result could put there."""


def is_page(path: Path) -> bool:
    """Whether a file is a page of ours."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return head.startswith(_DOCTYPE) and _OURS in head


def page_html(page: Page) -> str:
    """A page as HTML that asks no network for anything.

    Names in it are data: they stand in JSON without ``<``, and the script sets them as text. The browser is told to run the
    two scripts of known content and no other, and to load nothing.

    Raises
    ------
    TuckertreeError
        If plotly is not installed.
    """
    plots = require_extra("plotly.offline", extra="report").get_plotlyjs()
    plots, script = (_lines(text) for text in (_parsed_once(plots), _script()))
    hashes = " ".join(
        f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in (plots, script)
    )
    parts = {
        "TITLE": _escaped(page.title),
        "POLICY": f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'",
        "VERSION": _escaped(__version__),
        "STYLE": _asset("page.css"),
        "DATA": _as_data(page.to_json()),
        "SCRIPT": script,
        "PLOTLY": plots,
    }
    return _PLACE.sub(lambda found: parts[found[1]], _asset("page.html"))


def _as_data(data: object) -> str:
    """JSON that no text in it can end: neither the element, nor a line of a script."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _escaped(text: str) -> str:
    text = text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair is no sign of a page
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def _asset(*names: str) -> str:
    return files(__package__).joinpath(*names).read_text(encoding="utf-8")


def _script() -> str:
    """Ours, by subject, in a scope of its own."""
    parts = "\n".join(_asset("script", f"{name}.js") for name in _SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _parsed_once(plots: str) -> str:
    """Plotly's script with its one large function in parentheses, which V8 then parses once and not first in passing."""
    head, start, body = plots.partition(_FACTORY)
    body, end, rest = body.rpartition("}));")
    if not start or not end or rest.strip():
        return plots
    return f"{head}{start.replace('() =>', '(() =>')}{body}}})));{rest}"


def _lines(text: str) -> str:
    """As a browser reads a script, of which the hash is taken."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
