"""Make in Airflow's database what its own migration does not: pools, roles and users.

`python -m include.orchestration.airflow_init`, in the environment of the part `airflow-init`;
`evergreen airflow-init` starts it after the migration. It may run again and again: it changes
passwords to those of the secrets, and roles back to what they are meant to be.
"""

from __future__ import annotations

import sys

from include.config.settings import Settings, settings
from include.orchestration.airflow_login import ROLES, password_of
from include.orchestration.queues import HEAVY


def make_pools(here: Settings) -> None:
    """Make the pool of heavy tasks, as large as the settings say."""
    from airflow.models.pool import Pool

    Pool.create_or_update_pool(
        HEAVY,
        here.heavy_tasks,
        "Heavy tasks at once on all workers (EVERGREEN_HEAVY_TASKS)",
        include_deferred=False,
    )


def make_users(here: Settings) -> None:
    """Make the roles of FAB and the three users, or set what they are to be.

    Raises:
        ConfigError: the secret of a password is missing.
    """
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
    from werkzeug.security import check_password_hash

    passwords = {user: password_of(here, user).get_secret_value() for user in ROLES}
    with get_application_builder() as builder:
        builder.add_permissions(update_perms=True)  # type: ignore[no-untyped-call]
        manager = builder.sm
        manager.sync_roles()
        for user, role_name in ROLES.items():
            role, known = manager.find_role(role_name), manager.find_user(user)
            if known is None:
                email = f"{user}@evergreen.invalid"  # FAB wants one of each user's own
                added = manager.add_user(user, user, "Evergreen", email, role, passwords[user])
                if not added:
                    raise RuntimeError(f"FAB did not add the user {user}; see what it logged")
                continue
            if not check_password_hash(known.password, passwords[user]):
                manager.reset_password(known.id, passwords[user])
            if [one.name for one in known.roles] != [role_name] or not known.active:
                known.roles, known.active = [role], True
                manager.update_user(known)


def main() -> int:
    """Make what the settings ask for; return the exit code."""
    here = settings()
    if here.executor == "celery":
        make_pools(here)
    if here.airflow_auth == "fab":
        from airflow.utils.providers_configuration_loader import providers_configuration_loaded

        providers_configuration_loaded(make_users)(here)
    return 0


if __name__ == "__main__":
    sys.exit(main())
