"""The command that takes a model back: rollback."""

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
from include.cli.release import lift as lift_hold
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
            help="Lift a hold instead; the same as `evergreen release lift`.",
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

    Needs --reason. A model on hold is not promoted again until `evergreen release lift` lifts it.
    Other models that were trained before the rollback are not promoted either. Shows what serves,
    then asks. Where the records cannot be reached, every node of EVERGREEN_NODE_URLS, or the one of
    this machine, takes the model back by itself, if --version names it.
    """
    from include.deployment import rollout
    from include.deployment.rollback import Order

    if lift is not None:
        lift_hold(use_case, lift, reason=reason, yes=yes)
        return
    if not reason.strip():
        raise ConfigError('a rollback needs its reason; add --reason "..."')
    settings = current_settings()
    try:
        route = recorded_route(settings, open_records(settings), use_case)
    except Unavailable as error:
        if version is None or challenger:
            raise
        nodes = " and ".join(settings.node_addresses)
        print_line(f"{error}\nasked to go back by themselves: {nodes}")
        confirm(f"Roll {use_case} back there?", yes=yes)
        _roll_back_on_nodes(settings, use_case, reason, version)
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


def _roll_back_on_nodes(settings: Settings, use_case: str, reason: str, version: int) -> None:
    """Have the nodes take a model back without the records, and say what each did."""
    import secrets

    from include.deployment.node_orders import take_back_on_nodes
    from include.deployment.rollback import Order

    order = Order(
        actor=actor(), reason=reason, version=version, request_id=f"cli-{secrets.token_hex(8)}"
    )
    told = take_back_on_nodes(settings, use_case, order)
    for one in told:
        said = (
            str(one.problem)
            if one.problem is not None
            else f"{one.answer['note']}; model {one.answer['served']['answering']} answers"
        )
        print_line(f"{one.url}: {said}")
    left = [one.url for one in told if one.problem is not None]
    if left:
        raise Unavailable(
            f"{use_case}: {len(left)} of {len(told)} nodes did not go back: {', '.join(left)}; "
            "mend what is said above and run this again"
        )
    print_line("nodes that are not named here go on as they are, until the records are back")
