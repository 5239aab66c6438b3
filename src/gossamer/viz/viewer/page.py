"""One self-contained HTML file from data: no network, no server, no build step; it opens from file://.

    data -> one JSON block (arrays as base64 of raw little-endian bytes, `<` escaped) + our scripts + our
    style

The page's own policy forbids every request and every script but the one whose hash it names, so a token that
tries to be markup stays text even if an escape were missed. Scripts are plain files that share one scope,
in the order of `SCRIPTS`; each is checked by `tsc --checkJs` against its JSDoc types.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib.resources import files
from typing import Any

SCRIPTS = (
    "circuit.js",
    "bert.js",
    "scene.js",
    "ink.js",
    "map.js",
    "source.js",
    "cut.js",
    "panel.js",
    "page.js",
    "svgfile.js",
    "controls.js",
    "pointer.js",
)
START = "start.js"


def page(
    data: dict[str, Any], *, title: str, left: str = "", connect: str = "'none'", start: str | None = None
) -> str:
    """The whole page as text.

    Args:
        data: what `source.js` calls PageData.
        title: of the page.
        left: HTML of the heads and neurons that are left of the last panel's model.
        connect: whom the page's script may talk to; nobody, unless a server is behind it.
        start: the script that runs last, where it is not the viewer's own.
    """
    script = "\n".join([*(asset(name) for name in SCRIPTS), asset(START) if start is None else start])
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = {"default-src": "'none'", "style-src": "'unsafe-inline'", "script-src": f"'sha256-{digest}'"}
    allowed |= {
        "img-src": "data: blob:",
        "connect-src": connect,
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return fill(
        asset("page.html"),
        title=html.escape(title),
        policy=html.escape("; ".join(f"{name} {value}" for name, value in allowed.items()), quote=True),
        style=asset("page.css"),
        help=asset("help.html"),
        left=left,
        data=as_json(data),
        script=script,
    )


def asset(name: str, package: str = __name__.rpartition(".")[0]) -> str:
    """A file of a package, this one by default, as text."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def as_json(data: Any) -> str:
    """JSON that cannot end the element it stands in; NaN and infinity are refused."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    signs = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
    return re.sub("[<>&\u2028\u2029]", lambda found: signs[found[0]], text)


def fill(template: str, **parts: str) -> str:
    """Replace every `@name@` in one pass, so that what is put in is never looked at again."""
    return re.sub(r"@(\w+)@", lambda found: parts[found[1]], template)
