"""Parameters of LightGBM: every name is known, stands once, and may be set by a use case."""

from __future__ import annotations

import pytest

from include.errors import ConfigError
from include.models import lightgbm_parameters as parameters
from include.models.lightgbm_fitting import DEFAULTS


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"learning_rte": 0.1}, {"learning_rte": "did you mean learning_rate?"}),
        ({"xyzzy": 1}, {"xyzzy": "no such parameter"}),
        ({"objective": "regression"}, {"objective": "Evergreen's"}),
        ({"app": "regression"}, {"app": "Evergreen's"}),
        ({"random_state": 3}, {"random_state": "training.seed"}),
        ({"n_jobs": 4}, {"n_jobs": "Evergreen's"}),
        ({"early_stopping_round": 5}, {"early_stopping_round": "training.early_stopping"}),
        ({"metric": "None"}, {"metric": "write binary_logloss or auc"}),
        ({"metric": "nonsense"}, {"metric": "no such metric"}),
        ({"num_leaves": 1, "max_bin": 1}, {"num_leaves": "must be > 1", "max_bin": "must be > 1"}),
        ({"num_leaves": "many"}, {"num_leaves": "should be of type int"}),
        ({"num_iterations": 0}, {"num_iterations": "at least 1"}),
        ({"eta": 0.1, "learning_rate": 0.2}, {"learning_rate": "the same as eta"}),
        ({"is_unbalance": True, "scale_pos_weight": 2.0}, {"": "at the same time"}),
        ({"forced_splits": "f.json"}, {"forced_splits": "files"}),
        ({"boosting": "dart", "num_iterations": 5, "objective": "binary", "eta": 0.1}, {}),
        ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, {}),
        ({}, {}),
    ],
)
def test_parameters_are_refused_by_lightgbms_own_list(
    params: parameters.Params, said: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    found = dict(parameters.problems(params, DEFAULTS, 3))
    assert found.keys() == said.keys()
    assert all(text in found[name] for name, text in said.items())
    assert "LightGBM]" not in capfd.readouterr().err


def test_an_alias_reaches_lightgbm_under_the_name_that_it_goes_by() -> None:
    """`eta` beside the default `learning_rate` would be passed over without a word."""
    assert parameters.canonical({"eta": 0.1, "max_leaves": 7}) == {
        "learning_rate": 0.1,
        "num_leaves": 7,
    }


def test_all_wrong_names_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        parameters.canonical({"learning_rte": 0.1, "num_leaves": 7, "nthread": 2})
    assert [line.split(": ")[1] for line in str(refused.value).splitlines()] == [
        "learning_rte",
        "nthread",
    ]


def test_an_error_that_is_not_lightgbms_goes_through() -> None:
    @parameters.refusing
    def fit(frame: object, parts: object, use_case: object) -> None:
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError, match="ours"):
        fit(None, None, None)
