"""Record what the serving nodes must know of a use case: as a person asked, or at an upgrade."""

from __future__ import annotations

import logging

from include.clock import utc_now
from include.config import use_case_file
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.deployment.description import Description
from include.errors import ConfigError
from include.records.records import AuditEntry, Records, Route

log = logging.getLogger(__name__)

APPLIED = "use_case.applied"


def apply_use_case(records: Records, use_case: UseCase, actor: str, reason: str) -> Route:
    """Record a use case's description in its routing row; equal to what is there, it is a no-op.

    Raises:
        Conflict: the row has moved on since it was read.
    """
    route, plain = records.routes.get(use_case.name), Description.of(use_case).plain()
    if route.description == plain:
        return route
    return records.routes.change(
        use_case.name,
        set={"description": plain},
        entry=AuditEntry(
            APPLIED, use_case.name, use_case.name, actor, {"reason": reason}, utc_now()
        ),
        expect_generation=route.generation,
    )


def adopt_use_cases(settings: Settings, records: Records) -> list[str]:
    """Record the description of every use case whose row was written by a version without one.

    It is taken from its file, once: before a node starts that reads rows alone. Returns the names.

    Raises:
        ConfigError: a file cannot be read; it is named, and nothing of it is recorded.
    """
    adopted = []
    for name in records.routes.without_description():
        try:
            use_case = use_case_file.find(name, settings.usecase_dirs)
        except ConfigError as error:
            folders = ", ".join(str(folder / f"{name}.yaml") for folder in settings.usecase_dirs)
            raise ConfigError(
                f"{name} is served, and what a node must know of it is not on record yet; it is "
                f"taken from its file ({folders}), which cannot be read: {error}. Mend the file; "
                f"or, if the use case is to go, `evergreen reset {name}`"
            ) from None
        apply_use_case(records, use_case, "upgrade", "taken from its file, once")
        log.info("%s: what a node must know of it is now on record", name)
        adopted.append(name)
    return adopted
