"""Open the lake of an installation."""

from __future__ import annotations

from include.config.settings import Settings
from include.lake.copies import copies_of, keep_copies
from include.lake.tables import Lake
from include.object_stores import is_remote


def open_lake(settings: Settings) -> Lake:
    """Return the lake; copies of the files of a remote one lie in the home folder."""
    prepare_copies(settings)
    return Lake(settings.lake_root)


def prepare_copies(settings: Settings) -> None:
    """Let copies of a remote lake's files lie in the home folder, and remove unused ones.

    Nobody names a file any more that the lake has removed, such as predictions that have expired:
    its copy goes by its age.
    """
    keep_copies(settings.lake_copies, settings.lake_copies_bytes)
    if is_remote(settings.lake_root):
        copies_of(settings.lake_root).sweep()
