"""Commands that change which model serves: rollback, release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.context import (
    Reason,
    UseCaseArgument,
    Yes,
    actor,
    current_settings,
    open_records,
    recorded_route,
)
from include.cli.output import confirm, print_line, print_table
from include.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from include.config.settings import Settings


def rollback(
    use_case: UseCaseArgument,
    lift: Annotated[
        str | None,
        typer.Option(
            "--release",
            metavar="MODEL",
            help="Lift a hold instead; the same as `evergreen release`.",
        ),
    ] = None,
    reason: Reason = "",
    challenger: Annotated[
        bool,
        typer.Option(
            "--challenger", help="Take the challenger back instead; the champion goes on serving."
        ),
    ] = False,
    version: Annotated[
        int | None,
        typer.Option(
            "--version",
            metavar="N",
            help="Version that is taken back; needed with --yes. If it serves no more, nothing is.",
        ),
    ] = None,
    yes: Yes = False,
) -> None:
    """Let the previous model serve again, and put the one that is taken back on hold.

    Needs --reason. A model on hold is not promoted again until `evergreen release` lifts the hold.
    Other models that were trained before the rollback are not promoted either. Shows what serves,
    then asks. Where the records cannot be reached, the node of this machine takes the model back by
    itself, if --version names it.
    """
    from include.deployment import rollout
    from include.deployment.rollback import Order

    if lift is not None:
        release(use_case, lift, reason=reason, yes=yes)
        return
    if not reason.strip():
        raise ConfigError('a rollback needs its reason; add --reason "..."')
    settings = current_settings()
    try:
        route = recorded_route(settings, open_records(settings), use_case)
    except Unavailable as error:
        if version is None or challenger:
            raise
        print_line(f"{error}\nthe node at {settings.node_url} is asked to go back by itself")
        confirm(f"Roll {use_case} back on this node?", yes=yes)
        _roll_back_on_node(settings, use_case, reason, version)
        return
    columns = ("champion", "previous", "challenger", "generation")
    print_table(columns, [(route.champion, route.previous, route.challenger, route.generation)])
    if yes and version is None:
        # Nobody has looked at what serves: run a second time it would take back the next one too.
        raise ConfigError(
            "with --yes a rollback names what it takes back; add --version "
            f"{(route.challenger if challenger else route.champion) or 'N'}"
        )
    confirm(f"Roll {use_case} back?", yes=yes)
    # What was shown is what is changed: another release in between ends as Conflict.
    order = Order(
        actor=actor(),
        reason=reason,
        version=version,
        generation=route.generation if version is None else None,
        of="challenger" if challenger else "champion",
    )
    taken = rollout.rollback(settings, use_case, order)
    print_line(
        f"{use_case}: {taken.note}; champion is version {taken.route.champion}, generation "
        f"{taken.route.generation}; on hold: {', '.join(taken.route.held) or 'nothing'}"
    )


def _roll_back_on_node(settings: Settings, use_case: str, reason: str, version: int) -> None:
    """Have the node of this machine take a model back without the records, and say what it did."""
    import secrets

    from include.deployment.node_orders import take_back_on_node
    from include.deployment.rollback import Order

    order = Order(
        actor=actor(), reason=reason, version=version, request_id=f"cli-{secrets.token_hex(8)}"
    )
    told = take_back_on_node(settings, use_case, order)
    print_line(f"{use_case}: {told['note']}; model {told['served']['answering']} answers here")
    print_line("other nodes go on as they are: ask each by its own route, or end the outage")


def release(
    use_case: UseCaseArgument,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Version of a model on hold, or the beginning of its digest."
        ),
    ],
    reason: Reason = "",
    yes: Yes = False,
) -> None:
    """Lift the hold that a rollback put on a model, so that it may be promoted again.

    It does not serve by this alone: whether it is promoted is decided as for any other model.
    `evergreen models` shows what is on hold.
    """
    from include.deployment import rollout

    settings = current_settings()
    records = open_records(settings)
    digests_on_hold = recorded_route(settings, records, use_case).held
    on_hold = [row for row in records.models.of(use_case) if row.model_digest in digests_on_hold]
    chosen = [
        row
        for row in on_hold
        if str(row.version) == model or row.model_digest.startswith((model, f"sha256:{model}"))
    ]
    # Several versions of one digest are one model: the hold is on the digest.
    if len({row.model_digest for row in chosen}) != 1:
        listed = ", ".join(f"version {row.version} ({row.model_digest[:19]})" for row in on_hold)
        raise ConfigError(
            f"{model!r} names no single model on hold of {use_case}; on hold is "
            f"{listed or 'nothing'}"
        )
    version, digest = chosen[0].version, chosen[0].model_digest
    confirm(f"Let version {version} ({digest[:19]}) be promoted again?", yes=yes)
    rollout.release_hold(settings, use_case, version, actor(), reason)
    print_line(f"{use_case}: version {version} is no longer on hold")
