"""Where a name leads: to a file or folder here, or to the hub; and whether the hub answers at all.

A local place asks no network. What looks like a path is never asked from the hub. A hub that does not answer is found
out once, within `WAIT` seconds, where its client would try for minutes.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants

WAIT = 3.0  # seconds; a name is looked up and a connection made in far less than one
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


def looks_like_path(name: Path | str) -> bool:
    """Whether a name can only be meant as a path here: there is such a thing, or the hub has no such names.

    A `Path` is one, for it has lost what a person may have put before the name, as in ./model.
    """
    text = str(name)
    if isinstance(name, Path) or Path(text).exists() or not HUB_NAME.fullmatch(text) or text.startswith("."):
        return True
    owner, slash, _ = text.partition("/")
    return bool(slash) and Path(owner).is_dir()


@contextmanager
def reaching(name: Path | str) -> Iterator[None]:
    """Keep the hub's client from the network inside the block, where the name is local or the hub does not answer."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or looks_like_path(name) or not hub_answers()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@cache
def hub_answers() -> bool:
    """Whether a connection to the hub, or to the proxy on the way to it, can be made; asked once a process."""
    if constants.HF_HUB_OFFLINE:
        return False
    address = urlsplit(constants.ENDPOINT)
    proxy = getproxies().get(address.scheme)
    if proxy:
        address = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    made: list[bool] = []

    def connect() -> None:
        try:
            port = address.port or (80 if address.scheme == "http" else 443)
            socket.create_connection((address.hostname or "", port), timeout=WAIT).close()
            made.append(True)
        except OSError:
            made.append(False)

    thread = threading.Thread(
        target=connect, daemon=True
    )  # a name server that is silent holds it for a minute
    thread.start()
    thread.join(WAIT)
    return made == [True]
