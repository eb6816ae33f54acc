"""What `training.params` may say, by LightGBM's own list of names and by a trial of the values.

LightGBM passes over a name that it does not know, and over an alias of a name that is set (`eta`
beside `learning_rate`). Here each name is known, stands once and is the one that LightGBM goes by;
values are tried on a few rows that are made up.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar, cast

import numpy as np

from include.config.use_case import UseCase
from include.errors import ConfigError

Params = Mapping[str, float | int | str | bool]
Fit = TypeVar("Fit", bound=Callable[..., Any])

# What equal frames giving equal models, and a binary outcome, need; the value is what to write
# instead.
OURS = {
    "objective": "the outcome is 0 or 1, and the objective binary",
    "seed": "write training.seed",
    "early_stopping_round": "write training.early_stopping",
    "deterministic": "equal frames give equal models",
    "force_row_wise": "equal frames give equal models",
    "force_col_wise": "equal frames give equal models",
    "num_threads": "equal frames give equal models",
    "device_type": "equal frames give equal models",
    "verbosity": "LightGBM stays silent",
}
_ALLOWED: dict[str, tuple[object, ...]] = {
    "objective": ("binary",),
    "deterministic": (True,),
    "force_row_wise": (True,),
    "num_threads": (1,),
    "device_type": ("cpu",),
}
_OF_FILES = (
    *(
        "task",
        "config",
        "data",
        "valid",
        "input_model",
        "output_model",
        "output_result",
        "save_binary",
        "snapshot_freq",
    ),
    *(
        "convert_model",
        "convert_model_language",
        "saved_feature_importance_type",
        "header",
        "two_round",
        "pre_partition",
    ),
    *(
        "label_column",
        "weight_column",
        "group_column",
        "ignore_column",
        "categorical_feature",
        "parser_config_file",
    ),
    *("precise_float_parser", "forcedsplits_filename", "forcedbins_filename", "num_class"),
    *(
        "machines",
        "machine_list_filename",
        "num_machines",
        "local_listen_port",
        "time_out",
        "tree_learner",
    ),
    *(
        "start_iteration_predict",
        "num_iteration_predict",
        "predict_raw_score",
        "predict_leaf_index",
        "predict_contrib",
    ),
    *(
        "predict_disable_shape_check",
        "pred_early_stop",
        "pred_early_stop_freq",
        "pred_early_stop_margin",
    ),
)
_NO_METRIC = ("", "none", "na", "null", "custom")
_ROWS, _ROUNDS = 400, 2  # of a trial: enough for every check that LightGBM makes


def canonical(params: Params) -> dict[str, float | int | str | bool]:
    """Return parameters under LightGBM's own names.

    Raises:
        ConfigError: a name is unknown, stands twice, or is not for a use case to set; all of them,
            a line each.
    """
    wrong = list(_wrong_names(params))
    if wrong:
        raise ConfigError("\n".join(f"training.params: {name}: {reason}" for name, reason in wrong))
    names = _aliases()
    return {names[name]: value for name, value in params.items()}


def problems(
    params: Params, defaults: Mapping[str, Any], features: int
) -> Iterator[tuple[str, str]]:
    """Yield what is wrong: the parameter, and what with its remedy.

    The parameter is an empty text where it is the combination. `features` is how many there are.
    """
    wrong = dict(_wrong_names(params))
    yield from wrong.items()
    sound = {name: value for name, value in params.items() if name not in wrong}
    for name in list(sound):
        if (
            reason := _refusal({**defaults, **canonical({name: sound[name]})}, features)
        ) and not _needs_others(name, sound):
            yield name, f"{sound[name]!r}: {reason}"
            del sound[name]
    if reason := _refusal({**defaults, **canonical(sound)}, features) if sound else "":
        yield "", f"{', '.join(sound)} together: {reason}"


def refusing(fit: Fit) -> Fit:
    """Wrap a fit so that it names training.params where LightGBM refuses to train.

    The use case is the third argument of `fit`.

    Raises:
        ConfigError: with LightGBM's reason in our words.
    """

    @functools.wraps(fit)
    def fitted(frame: Any, parts: Any, use_case: UseCase, *rest: Any) -> Any:
        try:
            return fit(frame, parts, use_case, *rest)
        except Exception as error:  # LightGBM's own class is no subclass of any other
            if not _is_lightgbms(error):
                raise
            params = (
                ", ".join(f"{name}: {value}" for name, value in use_case.training.params.items())
                or "none"
            )
            raise ConfigError(
                f"{use_case.name}: LightGBM cannot train with training.params ({params}): "
                f"{_reason_of(error)}; correct them"
            ) from error

    return cast(Fit, fitted)


def _is_lightgbms(error: BaseException) -> bool:
    """Tell whether an error was raised within LightGBM, by its class or its innermost frame."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))
    return f"{type(error).__module__}.{module}".startswith("lightgbm.") or module.startswith(
        "lightgbm"
    )


def _wrong_names(params: Params) -> Iterator[tuple[str, str]]:
    if not params:
        return
    names, seen = _aliases(), dict[str, str]()
    for name, value in params.items():
        ours = names.get(name)
        if ours is None:
            alike = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
            yield (
                name,
                "LightGBM has no such parameter; "
                + (f"did you mean {alike[0]}?" if alike else "remove it"),
            )
        elif ours in OURS and value not in _ALLOWED.get(ours, ()):
            yield name, f"is Evergreen's to set: {OURS[ours]}; remove it"
        elif ours in _OF_FILES:
            yield (
                name,
                "is for LightGBM's own files and programs and changes nothing here; remove it",
            )
        elif ours in seen:
            yield name, f"is the same as {seen[ours]}; keep one"
        seen.setdefault(ours or name, name)


def _needs_others(name: str, params: Params) -> bool:
    """Tell whether a value that is refused alone may be right beside the others.

    So is `boosting: rf`, which needs a bagging_freq.
    """
    return len(params) > 1 and _aliases()[name] == "boosting"


def _refusal(params: Mapping[str, Any], features: int) -> str:
    """Return why LightGBM refuses parameters, or an empty text: two rounds on made-up rows."""
    metrics = params.get("metric", "auc")
    if isinstance(metrics, str) and metrics.strip().lower() in _NO_METRIC:
        return "the rounds are found by a metric on the tune part; write binary_logloss or auc"
    rounds = params.get("num_iterations", 1)
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        return "is a number of rounds, at least 1"
    import lightgbm
    from lightgbm.basic import LightGBMError

    own = {name: value for name, value in params.items() if name != "num_iterations"}
    own |= {
        "objective": "binary",
        "seed": 1,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }
    rows = np.random.default_rng(1).normal(size=(_ROWS, features))
    labels = (rows[:, 0] > 0).astype(np.float64)
    with _silent():
        try:
            data = lightgbm.Dataset(rows, labels, params=own)
            held_out = lightgbm.Dataset(rows, labels, reference=data, params=own)
            stop = lightgbm.early_stopping(_ROUNDS, verbose=False)
            lightgbm.train(
                own, data, num_boost_round=_ROUNDS, valid_sets=[held_out], callbacks=[stop]
            )
        except (LightGBMError, ValueError, TypeError) as error:
            return _reason_of(error)
    return ""


def _reason_of(error: Exception) -> str:
    """Return LightGBM's reason in words that a person can act on."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    # "... at /src/io/config.cpp, line 123 ." : the place in its own source.
    text = re.sub(r" at \S+, line \d+ ?\.?$", "", text)
    if "eval metric is required" in text:
        return "it knows no such metric for a binary outcome; write binary_logloss or auc"
    # "Check failed: (num_leaves) > (1)": a limit of one parameter.
    limit = re.fullmatch(r"Check failed: \((\w+)\) (\S+) \((\S+)\)", text)
    if limit:
        return f"{limit[1]} must be {limit[2]} {limit[3]}"
    # An expression of its source, which says nothing to a person.
    if text.startswith(("Check failed", "Unknown token")):
        return (
            "is not what it takes beside the other parameters and the features that there are; "
            "see its own documentation"
        )
    return text


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what LightGBM's library writes to standard error off the screen.

    By the descriptor: it writes from C, past `sys.stderr`.
    """
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@lru_cache(maxsize=1)
def _aliases() -> dict[str, str]:
    """Return LightGBM's own name of each name that it knows."""
    from lightgbm.basic import _ConfigAliases

    return {
        alias: name
        for name, aliases in _ConfigAliases._get_all_param_aliases().items()
        for alias in {name, *aliases}
    }
