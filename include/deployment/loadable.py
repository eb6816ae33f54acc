"""Whether a worker can load the models that a release depends on: before its start, at its end.

Nodes say the same of what they have in memory (`rollout.node_readiness`). Here it is asked of what
lies in the store now, as a node will find it that starts tomorrow.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import datetime
from typing import Any

from include.config.settings import Settings
from include.deployment.decision import Action, Decision
from include.deployment.description import Description
from include.errors import ArtefactError, ConfigError, Unavailable
from include.pipeline.stage import StageContext
from include.records.records import Model, Records, Release


def expect_way_back(context: StageContext, version: int) -> dict[str, Any]:
    """Refuse to start the release of a version that could not be taken back.

    A rollback names the champion, or before the promotion the model before it. Returns what the
    audit row says of them. Where none of them can be loaded there is nothing to go back to whatever
    is done, and the release is the repair.

    Raises:
        ArtefactError: one of them cannot be loaded, the message has the remedy.
        Unavailable: the store does not answer.
        ConfigError: the public keys cannot be read.
    """
    name, records = context.use_case.name, context.records
    route = records.routes.get(name)
    roles = {role: getattr(route, role) for role in ("champion", "previous")}
    asked = {role: number for role, number in roles.items() if number is not None}
    models = {role: records.models.get(name, number) for role, number in asked.items()}
    bad = {role: why for role, model in models.items() if (why := _why_not(context, model))}
    if len(bad) == len(asked):
        return {"no_way_back": bad} if bad else {}
    for role, model in models.items():
        if model is not None and role not in bad and (why := _why_not_online(context, model)):
            bad[role] = why
    if not bad:
        return {"way_back": sorted(asked.values())}
    role, why = next(iter(bad.items()))
    raise ArtefactError(
        f"{name} {context.key}: model {version} is not released, as a rollback could not go back "
        f"to model {asked[role]}, the {role} one: {why}. {_remedy(context, role, asked[role])}"
    )


def unless_refused(
    settings: Settings, records: Records, release: Release, decision: Decision, now: datetime
) -> Decision:
    """Return what is decided of a release in its steps, unless nodes would load its model no more.

    That says nothing against the model, which may be signed again: it is aborted, not rolled back.
    """
    if decision.word == "fail":
        return decision  # it ends by that
    try:
        why = refusal(settings, records, release)
    except ConfigError as error:
        if decision.action != "promote":
            return decision
        why = f"whether it may be promoted cannot be told: {error}"
        is_late = decision.ends_at is not None and now >= decision.ends_at
        return _held(decision, why, "abort" if is_late else "stay")
    return _held(decision, why, "abort") if why else decision


def _held(decision: Decision, why: str, action: Action) -> Decision:
    about = (*decision.asks_about, "not loadable")
    return replace(decision, word="hold", action=action, reason=why, asks_about=about)


def refusal(settings: Settings, records: Records, release: Release) -> str:
    """Return why nodes would load the model of a release no more, or "".

    They looked when it was tried; its key may have been revoked since, or its row been changed.

    Raises:
        ConfigError: the public keys cannot be read.
    """
    from include.models.artefact import verify_row
    from include.models.signing import verify_by_folder

    model = records.models.get(release.use_case, release.challenger)
    if model is None or model.model_digest != release.challenger_digest:
        return f"model {release.challenger} is not the one on record that was tried"
    try:
        verify_by_folder(settings.signing_keys_folder, model)
        verify_row(model)
    except ArtefactError as error:
        return str(error)
    return ""


def _why_not(context: StageContext, model: Model | None) -> str:
    """Return why a model cannot be loaded, or "".

    Raises: as `expect_way_back`, but for what is wrong with the model.
    """
    from include.models.artefact import verify_row
    from include.models.bundle import verify_bundle
    from include.models.signing import verify_by_folder

    if model is None:
        return "it is not on record"
    try:
        verify_by_folder(context.settings.signing_keys_folder, model)
        verify_row(model)
        verify_bundle(_bundle(context, model), model.model_digest)
        _have_code(context, model)
    except ArtefactError as error:
        return str(error)
    return ""


def _bundle(context: StageContext, model: Model) -> str:
    """Return where the bundle of a model is; a damaged copy is fetched again from the store.

    Raises:
        ArtefactError: it is not in the store, or damaged there.
        Unavailable: the store does not answer.
    """
    from include.models.presence import find_bundle

    try:
        return find_bundle(context.store, model)
    except Unavailable as error:
        if model.bundle_uri is not None and not context.store.holds(model.bundle_uri):
            raise ArtefactError(str(error)) from error
        raise


def _have_code(context: StageContext, model: Model) -> None:
    """Have the Bento of a model that runs by another version's code.

    Raises: as `_bundle`.
    """
    from include.models.bento_archive import have_bento
    from include.models.pins import fits_here

    if fits_here(model.pins):
        return
    if model.bento_tag is None:
        raise ArtefactError("it has other serving pins than this installation, and no bento")
    try:
        have_bento(context.store, model)
    except Unavailable as error:
        if model.bento_uri is not None and not context.store.holds(model.bento_uri):
            raise ArtefactError(str(error)) from error
        raise


def _why_not_online(context: StageContext, model: Model) -> str:
    """Return why a model could not be asked by entity, or "".

    Raises:
        Unavailable: the store does not answer.
    """
    from include.features.online_stores import open_store

    views = Description.of(context.use_case).features
    if not any(view.online for view in views.values()):
        return ""
    with closing(open_store(context.settings, context.use_case.name)) as store:
        if store.describe(model.feature_set) is not None:
            return ""
    return f"its feature set {model.feature_set} is not online; run materialize_features"


def _remedy(context: StageContext, role: str, version: int) -> str:
    name = context.use_case.name
    if role == "champion":
        return (
            f"Mend it, or go back to the model before it now: `evergreen rollback {name} "
            f"--version {version} --reason ...`"
        )
    model = context.records.models.get(name, version)
    key = context.key if model is None else model.partition
    return (
        f"Mend it: `evergreen run train_model --use-case {name} --partition {key}`, then "
        "`evergreen run package_model` of the same, make it again"
    )
