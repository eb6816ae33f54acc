"""The scripts that draw the charts of reports: kept once beside all pages, which refer to them.

They are Plotly's, as the installed package ships it, and a short one of our own. Embedded they
would make every page 4 MB larger; from the internet no page would open without a network.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import logging
import shutil
from pathlib import Path

from include.files import written_aside

# No use case can be called so: names begin with a letter.
FOLDER = "_assets"
DRAWING = Path(__file__).parent / "static" / "charts.js"

log = logging.getLogger(__name__)


def store_scripts(reports: Path) -> list[Path]:
    """Put the scripts beside the reports, where they are not there yet, and return their paths.

    Their names carry version or digest, so a page of before keeps the ones that it was made for.
    There are none where Plotly is not installed: pages then show their tables alone.

    Raises:
        OSError: they cannot be written.
    """
    kept = sources()
    for name, source in kept.items():
        target = reports / FOLDER / name
        if not target.exists():
            with written_aside(target) as temporary:
                shutil.copyfile(source, temporary)
    return [reports / FOLDER / name for name in kept]


@functools.cache
def sources() -> dict[str, Path]:
    """Return the files by the names under which they are kept, in the order in which they run."""
    # Found without an import: Plotly's Python part has no use here.
    package = importlib.util.find_spec("plotly")
    library = (
        None
        if package is None or package.origin is None
        else Path(package.origin).parent / "package_data" / "plotly.min.js"
    )
    if library is None or not library.is_file():
        log.warning("Plotly's script is not installed; reports have tables and no charts")
        return {}
    version = importlib.metadata.version("plotly")
    digest = hashlib.sha256(DRAWING.read_bytes()).hexdigest()[:12]
    return {f"plotly-{version}.min.js": library, f"charts-{digest}.js": DRAWING}
