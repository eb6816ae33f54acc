"""What follows a restore: the champions' files are tried, and the online features written anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from include.artefacts.store import ArtefactStore
from include.backups.restore import Restored
from include.config.settings import Settings
from include.errors import EvergreenError
from include.models.bundle import verify_bundle
from include.models.presence import find_bundle
from include.models.signing import verify_by_folder
from include.pipeline import runner
from include.records.records import Records


def examine_champions(settings: Settings, records: Records, made: Restored) -> None:
    """Verify signature and bundle of each champion, as a node will; note what it will not load."""
    for row in records.serving_rows().rows:
        champion = row.model("champion")
        if champion is None:
            continue
        name = row.route.use_case
        try:
            folder = find_bundle(ArtefactStore.of(settings), champion)
            verify_bundle(folder, champion.model_digest)
            verify_by_folder(settings.signing_keys_folder, champion)
        except EvergreenError as error:
            made.notes.append(f"{name}: model {champion.version} does not load: {error}")
            continue
        made.champions[name] = champion.version


def bring_online(
    settings: Settings,
    records: Records,
    made: Restored,
    *,
    actor: str,
    say: Callable[[str], object],
) -> None:
    """Write the online features anew from the lake: of each use case its newest partition's."""
    for name, key in _online(records):
        try:
            runner.run("materialize_features", name, key, settings=settings, actor=actor)
        except EvergreenError as error:
            made.notes.append(
                f"{name}: its features are not online ({error}); `evergreen run "
                f"materialize_features --use-case {name} --partition {key}` writes them"
            )
            continue
        say(f"{name}: features of {key} are online")


def _online(records: Records) -> Iterator[tuple[str, str]]:
    """Yield each use case that had online features, with their newest partition."""
    for name in records.routes.names():
        keys = [
            result.key
            for result in records.results.of(name, stage="materialize_features")
            if result.state == "done" and result.mode == "live"
        ]
        if keys:
            yield name, max(keys)
