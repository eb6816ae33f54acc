"""Feast's registry: the definitions of every use case, applied under a lease when they changed.

Names carry the use case (`<use_case>__<view>`). The service's tag `definitions` says what is
registered, so that an unchanged registry is recognised without importing feast.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from include.config import use_case_file
from include.config.settings import ROOT, Settings
from include.config.use_case import UseCase
from include.features import feast_tables, feature_sets
from include.features.feature_sets import FeatureSet, FeatureView
from include.point_in_time.expiry import Calendar
from include.records.records import Records
from include.records.restarts import through_restarts

if TYPE_CHECKING:
    import feast

log = logging.getLogger(__name__)
REPO = ROOT / "feature_repo"
PROJECT = "evergreen"
LEASE_SECONDS = 60.0


def view_name(use_case: str, view: str) -> str:
    """Return the name of a view in Feast's registry."""
    return f"{use_case}__{view}"


def service_name(use_case: str) -> str:
    """Return the name of the feature service of a use case."""
    return f"{use_case}__features"


def definitions(settings: Settings) -> dict[str, Any]:
    """Return the Feast objects of every use case in the settings, by name."""
    object_by_name: dict[str, Any] = {}
    for path in use_case_file.files(settings.usecase_dirs):
        use_case = use_case_file.load(path)
        for each in objects(use_case, feature_sets.current(use_case)):
            object_by_name[each.name] = each
    return object_by_name


def objects(use_case: UseCase, feature_set: FeatureSet) -> list[Any]:
    """Return entity, views and service of one feature set of a use case."""
    from feast import FeatureService

    entity = _entity(use_case, feature_set)
    views = [_view(use_case, feature_set, view, entity) for view in feature_set.views]
    service = FeatureService(
        name=service_name(use_case.name),
        features=views,
        description=use_case.title or f"All features of {use_case.name}",
        owner=use_case.owner,
        tags={
            "use_case": use_case.name,
            "feature_set": feature_set.version,
            "definitions": _token(use_case, feature_set),
        },
    )
    return [entity, *views, service]


def store(settings: Settings) -> feast.FeatureStore:
    """Open Feast with the registry and stores of feature_store.yaml, under the settings' home."""
    from include.features import feast_unchecked  # noqa: F401 - before feast

    # isort: split
    import feast
    from feast.repo_config import RepoConfig

    document = _configuration()
    home = settings.home / "feast"
    document["online_store"]["path"] = str(home / document["online_store"]["path"])
    address = feast_tables.address_of(settings)
    if address is None:
        document["registry"]["path"] = str(home / document["registry"]["path"])
    else:
        feast_tables.ensure(settings, address)
        document["registry"] = feast_tables.registry(address)
    document["offline_store"]["lake"] = settings.lake_root
    return feast.FeatureStore(config=RepoConfig(**document))


def transient_store(
    settings: Settings, use_case: UseCase, feature_set: FeatureSet
) -> feast.FeatureStore:
    """Open Feast with a registry in memory that holds just this feature set.

    Current sets and old ones are joined by this same path.
    """
    from include.features import feast_unchecked  # noqa: F401 - before feast

    # isort: split
    import feast
    from feast.repo_config import RepoConfig

    document = _configuration() | {
        "registry": {
            "registry_store_type": "include.features.feast_online_store.TransientRegistryStore"
        }
    }
    document["offline_store"]["lake"] = settings.lake_root
    document["online_store"] = None
    opened = feast.FeatureStore(config=RepoConfig(**document))
    entity, *views, service = objects(use_case, feature_set)
    opened.registry.apply_entity(entity, opened.project)
    for view in views:
        opened.registry.apply_feature_view(view, opened.project)
    opened.registry.apply_feature_service(service, opened.project)
    return opened


def online_path(settings: Settings) -> Path:
    """Return the file of Feast's online store."""
    return settings.home / "feast" / str(_configuration()["online_store"]["path"])


def is_applied(settings: Settings, use_case: UseCase, feature_set: FeatureSet) -> bool:
    """Tell whether Feast's registry holds these definitions."""
    address = feast_tables.address_of(settings)
    if address is not None:
        token, service = _token(use_case, feature_set), service_name(use_case.name)
        return feast_tables.is_registered(settings, address, PROJECT, service, token)
    # Without parsing it, which would import feast: protobuf keeps a tag as its bytes.
    path = settings.home / "feast" / _configuration()["registry"]["path"]
    return path.exists() and _token(use_case, feature_set).encode() in path.read_bytes()


@through_restarts
def apply_registry(
    settings: Settings, records: Records, use_case: UseCase, feature_set: FeatureSet
) -> bool:
    """Register a use case's definitions, one writer at a time; tell whether they had changed.

    In PostgreSQL the service, which says what is registered, is written after its views: what a
    kill leaves half-way is applied again.
    """
    if is_applied(settings, use_case, feature_set):
        return False
    owner = f"apply {use_case.name} {os.getpid()}"
    with records.leases.claim(
        "feast", "registry", "all", owner=owner, attempt=1, ttl=LEASE_SECONDS, wait=LEASE_SECONDS
    ) as lease:
        # The writer before may have been one of the same definitions.
        if is_applied(settings, use_case, feature_set):
            return False
        opened = store(settings)
        wanted = objects(use_case, feature_set)
        lease.check()
        opened.apply(
            wanted, objects_to_delete=_obsolete(opened, use_case.name, wanted), partial=False
        )
    log.info("registered feature set %s of %s with feast", feature_set.version, use_case.name)
    return True


def _obsolete(opened: feast.FeatureStore, use_case: str, wanted: Sequence[Any]) -> list[Any]:
    """Return the registered views of the use case that it no longer has."""
    names = {each.name for each in wanted}
    registered = opened.registry.list_feature_views(opened.project)
    return [
        view
        for view in registered
        if view.tags.get("use_case") == use_case and view.name not in names
    ]


def _configuration() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(
        (REPO / "feature_store.yaml").read_text(encoding="utf-8")
    )
    return document


def _entity(use_case: UseCase, feature_set: FeatureSet) -> Any:
    from feast import Entity, ValueType

    return Entity(
        name=view_name(use_case.name, use_case.entity.name),
        join_keys=[feature_set.key],
        value_type=ValueType.INT64
        if feature_set.views[0].key_type == "int64"
        else ValueType.STRING,
        description=f"{use_case.entity.name} of {use_case.title or use_case.name}",
        owner=use_case.owner,
        tags={"use_case": use_case.name},
    )


def _view(use_case: UseCase, feature_set: FeatureSet, view: FeatureView, entity: Any) -> Any:
    from include.features import feast_unchecked  # noqa: F401 - before feast

    # isort: split
    import feast
    from feast import Field, FileSource
    from feast.types import Bool, Float64, Int64, String

    types = {"int64": Int64, "float64": Float64, "string": String, "bool": Bool}
    name = view_name(use_case.name, view.name)
    source = FileSource(
        name=name,
        path=view.table(use_case.name),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
        owner=use_case.owner,
    )
    declared = use_case.features.get(view.name)
    return feast.FeatureView(
        name=name,
        entities=[entity],
        ttl=view.ttl,
        schema=[
            Field(name=view.key, dtype=types[view.key_type]),
            *(Field(name=column, dtype=types[kind]) for column, kind in view.columns.items()),
        ],
        source=source,
        description=(declared.description if declared else "")
        or f"{view.grain} view {view.name} of {use_case.name}",
        owner=use_case.owner,
        tags={
            "use_case": use_case.name,
            "grain": view.grain,
            "view_version": view.version,
            "feature_set": feature_set.version,
            "calendar": Calendar.of(use_case).text,
            **({"own": "first version"} if view.first_versions else {}),
        },
    )


def _token(use_case: UseCase, feature_set: FeatureSet) -> str:
    """Return the text by which the registry shows that these definitions are applied.

    It holds a digest over all that `objects` is made of.
    """
    described = [
        use_case.title,
        use_case.owner,
        use_case.entity.model_dump(),
        Calendar.of(use_case).text,
    ]
    described += [[name, view.description] for name, view in use_case.features.items()]
    digest = hashlib.sha256(
        json.dumps([feature_set.to_dict(), described], sort_keys=True).encode()
    ).hexdigest()
    return f"{use_case.name}@{digest[:32]}"
