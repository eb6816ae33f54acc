"""Commands about releases in steps: release status, pause, advance, abort, freeze, lift, ..."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

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
from include.cli.output import confirm, json_option, print_line
from include.cli.panels import Suggesting
from include.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

STATUS_KEYS = (
    "use_case",
    "champion",
    "under_way",
    "watched",
    "waiting",
    "judged_seconds_ago",
    "frozen",
    "guards",
    "probations",
    "last",
)
SHORTEST_DIGEST = 4  # letters of its beginning, without "sha256:" before them
LOOK_SECONDS = 5.0  # between two looks of --watch
WhyNeeded = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why you do it; kept in the audit log.")
]
Version = Annotated[
    int | None,
    typer.Option(
        "--version",
        metavar="N",
        help="Version of the model whose release is meant, and no other; else the one under way.",
    ),
]

release_app = typer.Typer(
    cls=Suggesting,
    help="Look at a release on its way, steer it, and lift the hold on a model.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@release_app.command()
def lift(
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

    if not reason.strip():
        raise ConfigError('to lift a hold needs its reason; add --reason "..."')
    settings = current_settings()
    records = open_records(settings)
    digests_on_hold = recorded_route(settings, records, use_case).held
    models = records.models.of(use_case)
    on_hold = [row for row in models if row.model_digest in digests_on_hold]
    # A version first: the digest of another model may begin with the same figures.
    is_version = model in {str(row.version) for row in models}
    chosen = [
        row
        for row in on_hold
        if (str(row.version) == model if is_version else _begins(row.model_digest, model))
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


@release_app.command()
def status(
    use_case: UseCaseArgument,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again until the release has ended.")
    ] = False,
    as_json: Annotated[bool, json_option(STATUS_KEYS)] = False,
) -> None:
    """Show how far a release is: its step and since when, the evidence, and what it waits for.

    Without a release under way it shows what is watched, what waits, and how the last ones ended.
    """
    import json
    import time

    from include.deployment.control_release import status as release_status

    settings = current_settings()
    recorded_route(settings, open_records(settings), use_case)
    while True:
        found = release_status(settings, use_case)
        if as_json:
            print_line(json.dumps([found], indent=2))
        else:
            _print_status(found)
        if not watch or found["under_way"] is None:
            return
        time.sleep(LOOK_SECONDS)


@release_app.command()
def pause(use_case: UseCaseArgument, reason: WhyNeeded = "", version: Version = None) -> None:
    """Let a release stay in its step; its share of the traffic stays too.

    It may still be rolled back. `evergreen release unpause` lets it go on.
    """
    _steer(use_case, "pause", reason, version=version)


@release_app.command()
def unpause(use_case: UseCaseArgument, reason: WhyNeeded = "", version: Version = None) -> None:
    """Let a paused release go on; of a suspended one the step begins anew."""
    _steer(use_case, "unpause", reason, version=version)


@release_app.command()
def advance(
    use_case: UseCaseArgument, reason: WhyNeeded = "", version: Version = None, yes: Yes = False
) -> None:
    """Go on to the next step now, whatever the evidence; after the last one it is promoted."""
    question = "Let the release of {} go on to its next step?"
    version, step = _agreed(question, use_case, version, yes=yes)
    _steer(use_case, "advance", reason, version=version, step=step)


@release_app.command()
def promote(
    use_case: UseCaseArgument, reason: WhyNeeded = "", version: Version = None, yes: Yes = False
) -> None:
    """Make the model of the release champion now, whatever the evidence; it is watched then."""
    version, _ = _agreed("Let the release of {} answer everybody?", use_case, version, yes=yes)
    _steer(use_case, "promote", reason, version=version)


@release_app.command()
def abort(
    use_case: UseCaseArgument, reason: WhyNeeded = "", version: Version = None, yes: Yes = False
) -> None:
    """End a release with the champion answering everybody; nothing is held against its model.

    With --yes it is the one in its steps; one that is only tried, or waits, needs --version. The
    same model may be released again, from the first step. To say that a model is bad, roll it back:
    `evergreen rollback USE_CASE --challenger`.
    """
    version, _ = _agreed("End the release of {}?", use_case, version, yes=yes)
    _steer(use_case, "abort", reason, version=version)


@release_app.command()
def freeze(
    use_case: UseCaseArgument,
    until: Annotated[
        str,
        typer.Option(
            "--until", metavar="TIME", help="When it is over: 2026-12-27 or 2026-12-27T08:00, UTC."
        ),
    ],
    reason: WhyNeeded = "",
) -> None:
    """Start no release of a use case until then; what is under way goes on, rollbacks always may.

    A candidate that comes meanwhile waits. `evergreen release thaw` starts it, or within an hour of
    the end of the freeze the next run of `import_predictions`.
    """
    _steer(use_case, "freeze", reason, until=_moment(until))


@release_app.command()
def thaw(use_case: UseCaseArgument, reason: WhyNeeded = "") -> None:
    """End a freeze; a candidate that waits is started, where Airflow answers."""
    from include.errors import Unavailable
    from include.orchestration.healing import start_waiting

    _steer(use_case, "thaw", reason)
    try:
        if key := start_waiting(current_settings(), use_case, actor=actor()):
            print_line(f"{key}: its candidate, which waited, is started")
    except Unavailable as error:
        print_line(f"{error}; `evergreen heal {use_case}` starts what waits")


@release_app.command()
def probation(
    use_case: UseCaseArgument,
    model: Annotated[int, typer.Argument(metavar="MODEL", help="Version that is on probation.")],
    good: Annotated[
        bool,
        typer.Option("--good/--bad", help="How those fared who met it in its release."),
    ],
    reason: WhyNeeded = "",
) -> None:
    """Say how a promoted model fared, once the outcomes of those are mature who met it first.

    A bad one that still serves is not taken back by this: `evergreen rollback` does. One that was
    replaced is not good from now on: no rollback goes to it, and nobody is judged against it.
    """
    from include.clock import utc_now
    from include.deployment.probation import judge_probation

    settings = current_settings()
    recorded_route(settings, open_records(settings), use_case)
    print_line(
        judge_probation(
            settings, use_case, model, good=good, reason=reason, actor=actor(), at=utc_now()
        )
    )


def _begins(digest: str, text: str) -> bool:
    """Tell whether a text names a digest by its beginning; nothing, or next to it, names none."""
    told = text.removeprefix("sha256:")
    least = SHORTEST_DIGEST if told == text else 1
    return len(told) >= least and digest.removeprefix("sha256:").startswith(told)


def _agreed(
    question: str, use_case: str, version: int | None, *, yes: bool
) -> tuple[int | None, int | None]:
    """Ask about a release by its model's version; return that, and the step that it is in.

    It may move on, or end, before the answer.
    """
    step = None
    if not yes:
        settings = current_settings()
        records = open_records(settings)
        recorded_route(settings, records, use_case)
        under_way = records.releases.running(use_case)
        if under_way is not None and version in (None, under_way.challenger):
            version, step = under_way.challenger, under_way.step
    what = use_case if version is None else f"{use_case} (model {version})"
    confirm(question.format(what), yes=yes)
    return version, step


def _steer(
    use_case: str,
    action: str,
    reason: str,
    *,
    version: int | None = None,
    step: int | None = None,
    until: datetime | None = None,
) -> None:
    from include.clock import utc_now
    from include.deployment.control_release import steer

    settings = current_settings()
    recorded_route(settings, open_records(settings), use_case)
    told = steer(
        settings,
        use_case,
        action,
        reason=reason,
        actor=actor(),
        at=utc_now(),
        version=version,
        step=step,
        until=until,
    )
    print_line(told)


def _moment(text: str) -> datetime:
    """Return a time that a person writes; without a zone it is UTC.

    Raises:
        ConfigError: it is none.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--until {text!r}: write it as 2026-12-27 or 2026-12-27T08:00") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _print_status(found: Mapping[str, Any]) -> None:
    from include.deployment.release_state import describe_state

    under_way = found["under_way"]
    champion = found["champion"]
    print_line(
        f"{found['use_case']}: "
        + ("there is no champion" if champion is None else f"model {champion} is champion")
    )
    if under_way is not None:
        print_line(describe_state(under_way))
        print_line(f"  in this step since {under_way['since']}")
        if under_way["state"] == "running" and found["judged_seconds_ago"] is not None:
            print_line(f"  judged {found['judged_seconds_ago']:.0f} s ago")
    for guard in found["guards"]:
        print_line(f"  node {guard['node']} sends its traffic home: {guard['reason']}")
    for name in ("watched", "waiting"):
        if found[name] is not None:
            print_line(f"{name}: {found[name]['says']}, since {found[name]['since']}")
    for probation in found["probations"]:
        print_line(probation["says"])
    if found["frozen"] is not None:
        frozen = found["frozen"]
        print_line(
            f"frozen until {frozen['until']} by {frozen['actor']}: {frozen['reason']}; no release "
            "starts"
        )
    if under_way is None:
        for state in found["last"]:
            if state["state"] not in ("watched", "waiting"):
                print_line(f"before: {state['says']}")
