"""Who may ask MLflow's server for what: its administrator alone, and only to read.

The server is a window on runs and models. Tasks and commands write to its database themselves, so
nobody needs to write through it; and whoever could, would choose the folder in which an uploaded
file is put. MLflow's own permissions do not do: its validators let an administrator do anything.

MLflow calls `authorize` before every request but those that need no login: `/health`, static files
and `server-info` (see `mlflow.server.auth.is_unprotected_route`). A route of MLflow's that is not
listed here is refused, so a new version of it opens nothing.
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING

from include.config.settings import Settings
from include.files import write_text

if TYPE_CHECKING:
    from flask import Response
    from werkzeug.datastructures import Authorization

ADMIN = "admin"
PASSWORD = "mlflow_admin"  # name of the generated secret, no password  # noqa: S105
FLASK_KEY = "mlflow_flask"  # name of the generated secret with which Flask signs its forms

# The pages read by POST too where a question may be long. GraphQL changes nothing: what it calls
# mutations are two searches, and an echo of MLflow's own tests.
_PAGES = re.compile(
    r"GET /(version|get-artifact|model-versions/get-artifact)?|POST /graphql"
    r"|(GET|POST) /(ajax-)?api/[23]\.0/mlflow/("
    r"experiments/search|registered-models/get-latest-versions|datasets/search)"
    r"|GET /(ajax-)?api/[23]\.0/mlflow/("
    r"experiments/(get|get-by-name)"
    r"|runs/get|artifacts/list"
    r"|metrics/(get-history|get-history-bulk|get-history-bulk-interval)"
    r"|registered-models/(get|search|alias)|model-versions/(get|search)"
    r"|logged-models/[^/]+(/artifacts/(directories|files))?"
    r"|traces/[^/]+|get-trace-artifact"
    r"|users/current(/permissions)?)"
    r"|POST /(ajax-)?api/[23]\.0/mlflow/("
    r"experiments/search-datasets|runs/search|logged-models/search|traces/(search|metrics))"
)


def is_admitted(method: str, path: str) -> bool:
    """Tell whether a request only reads what MLflow's pages show."""
    return _PAGES.fullmatch(f"{'GET' if method == 'HEAD' else method} {path}") is not None


def authorize() -> Authorization | Response:
    """Return who asks, or the answer that refuses the request at hand; MLflow's server calls it.

    The password is compared with the one of this start: MLflow keeps that of its first start.
    """
    from flask import make_response, request
    from mlflow.server.auth import auth_config, make_basic_auth_response
    from werkzeug.datastructures import Authorization

    given, wanted = request.authorization, auth_config.admin_password
    if (
        given is None
        or given.type != "basic"
        or not wanted
        or given.username != ADMIN
        or not hmac.compare_digest((given.password or "").encode(), wanted.encode())
    ):
        response: Response = make_basic_auth_response()
        return response
    if not is_admitted(request.method, request.path):
        return make_response(
            "This server only shows; write with `evergreen`, or to MLflow's database.\n", 403
        )
    return Authorization("basic", {"username": ADMIN, "password": ""})


def login_variables(settings: Settings) -> dict[str, str]:
    """Write MLflow's configuration of its login, and return the variables that name it.

    They hold secrets.
    """
    path = settings.home / "run" / "mlflow_login.ini"
    users = f"sqlite:///{settings.home / 'mlflow_users.db'}"
    lines = {
        "default_permission": "READ",
        # Absolute: MLflow reads a relative one from the folder that it was started in.
        "database_uri": users.replace("%", "%%"),  # configparser expands a single one
        "authorization_function": f"{__name__}:{authorize.__name__}",
    }
    settings.make_home()
    write_text(path, "[mlflow]\n" + "".join(f"{name} = {lines[name]}\n" for name in lines))
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(path),
        "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
        "MLFLOW_AUTH_ADMIN_PASSWORD": settings.secret(PASSWORD).get_secret_value(),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": settings.secret(FLASK_KEY).get_secret_value(),
        "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
        "MLFLOW_ENABLE_AI_GATEWAY": "false",
        "MLFLOW_ENABLE_REMOTE_ASSISTANT": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
