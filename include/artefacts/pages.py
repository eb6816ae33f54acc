"""Pages for people in the store, with the scripts that draw their charts beside them.

A page finds the scripts by a relative address: it opens from a folder, and wherever an object store
is served.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from include.artefacts.address import REPORTS
from include.artefacts.store import ArtefactStore
from include.reports.page import render
from include.reports.scripts import FOLDER, sources


def page_address(use_case: str, key: str, name: str) -> str:
    """Return the address of a partition's page of this name."""
    return f"store:{REPORTS}/{use_case}/{key}/{name}.html"


def put_page(store: ArtefactStore, uri: str, template: str, values: Mapping[str, Any]) -> None:
    """Render a template and put the page in place as a whole.

    Raises:
        Unavailable: the page or the scripts cannot be written.
    """
    scripts = sources()
    for name, source in scripts.items():
        script = f"store:{REPORTS}/{FOLDER}/{name}"
        if not store.is_there(script):
            with store.written(script) as path:
                shutil.copyfile(source, path)
    addresses = [f"../../{FOLDER}/{name}" for name in scripts]
    store.write(uri, render(template, values, scripts=addresses))
