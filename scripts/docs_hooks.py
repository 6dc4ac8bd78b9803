"""What mkdocs does beside its plugins: roles in docstrings, such as :func:`tuckertree.compress`, become code or links."""

import re
from typing import Any

ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):<code>(~?)([\w.]+)</code>")


def on_page_content(html: str, **_: Any) -> str:
    """Give the name that a role shows, with a link where the page says what it is."""

    def shown(found: re.Match[str]) -> str:
        whole = found[2]
        last = whole.rpartition(".")[2]
        code = f"<code>{last if found[1] else whole}</code>"
        anchor = f"tuckertree.api.{whole.removeprefix('tuckertree.')}"
        return f'<a href="#{anchor}">{code}</a>' if f'id="{anchor}"' in html else code

    return ROLE.sub(shown, html)
