"""Airflow's configuration as variables, for each of its parts what this part needs.

There is no airflow.cfg to go out of date. On one machine all parts have one home; on several each
has its own container, and a secret that a part does not need is kept from it: workers reach
Airflow over its API alone, with the token that comes with each task. They know neither its
database nor the keys that sign tokens and sessions.
"""

from __future__ import annotations

from include.config.settings import ROOT, Settings
from include.errors import ConfigError
from include.orchestration.airflow_login import ADMIN, password_file
from include.orchestration.queues import DEFAULT

DATABASE = ("scheduler", "api-server", "dag-processor", "triggerer", "airflow-init", "history")
"""Parts that have Airflow's own database."""
SIGNING = ("scheduler", "api-server")
"""Parts that sign or verify tokens: of tasks, and of those who log in."""
CELERY = ("scheduler", "celery-worker")
"""Parts that reach the broker, where tasks run on Celery workers."""
CELERY_EXECUTOR = "include.orchestration.celery_executor.PatientCeleryExecutor"
NO_DATABASE = "sqlite://"  # one in memory, which has no tables; Airflow's default is a file
Options = dict[str, dict[str, object]]


def airflow_variables(settings: Settings, part: str) -> dict[str, str]:
    """Return the variables of one of Airflow's parts; they hold secrets.

    Raises:
        ConfigError: a secret is missing, or too short.
    """
    options = _common(settings)
    if part in DATABASE:
        _merge(options, _database(settings))
    if part in SIGNING:
        _merge(options, {"api_auth": {"jwt_secret": _secret(settings, "airflow_jwt")}})
    if part == "api-server":
        _merge(options, _api_server(settings))
    if settings.executor == "celery" and part in CELERY:
        _merge(options, _celery(settings))
    variables = {
        f"AIRFLOW__{section.upper()}__{name.upper()}": str(value)
        for section, values in options.items()
        for name, value in values.items()
    }
    return {"AIRFLOW_HOME": str(settings.home / "airflow"), **variables}


def _common(settings: Settings) -> Options:
    """Return what every part reads, without any secret."""
    return {
        "core": {
            "dags_folder": ROOT / "dags",
            "plugins_folder": ROOT / "plugins",
            "load_examples": False,
            "executor": _executor(settings),
            "auth_manager": _auth_manager(settings),
            "parallelism": settings.parallelism,
            "default_timezone": "utc",
            "execution_api_server_url": f"{settings.airflow_url}/execution/",
            "simple_auth_manager_users": f"{ADMIN}:admin",
            "simple_auth_manager_passwords_file": password_file(settings),
        },
        "database": {"sql_alchemy_conn": NO_DATABASE},
        "api": {
            "host": settings.host,
            "port": settings.airflow_port,
            # Of the login page: what a browser reaches, which tasks need not.
            "base_url": settings.airflow_pages,
            "workers": 1,
        },
        "logging": {"base_log_folder": settings.task_log_folder, "logging_level": "INFO"},
        "operators": {"default_queue": DEFAULT},
        "scheduler": {
            # Seconds. Airflow's own (1, 300, 300) let a killed task be noticed after minutes.
            "scheduler_idle_sleep_time": 0.5,
            "task_instance_heartbeat_timeout": 60,
            "orphaned_tasks_check_interval": 30,
        },
        "dag_processor": {"parsing_processes": 1, "refresh_interval": 5},
    }


def _database(settings: Settings) -> Options:
    options: Options = {
        "core": {
            # A generated secret is 32 bytes in unpadded base64, a Fernet key the same, padded.
            "fernet_key": _secret(settings, "airflow_fernet") + "=",
        },
        "database": {"sql_alchemy_conn": settings.airflow_database},
    }
    if settings.airflow_database_url.get_secret_value():
        # Airflow would take another driver for it, which reads the options of a URL otherwise.
        options["database"]["sql_alchemy_conn_async"] = settings.airflow_database
    return options


def _api_server(settings: Settings) -> Options:
    return {"api": {"secret_key": _secret(settings, "airflow_session")}}


def _celery(settings: Settings) -> Options:
    """Return what the scheduler and the workers read of Celery.

    Raises:
        ConfigError: no broker is named.
    """
    broker = settings.broker_url.get_secret_value()
    if not broker:
        raise ConfigError(
            "EVERGREEN_EXECUTOR is celery, and EVERGREEN_BROKER_URL names no Redis that hands "
            "tasks to the workers; set it for scheduler and workers alike"
        )
    return {
        "scheduler": {
            # Seconds for which a task waits for a worker that takes it, and for which the token
            # that travels with it is good. Then it is sent anew: Airflow's own ten minutes are as
            # long as a lost message stays unnoticed.
            "task_queued_timeout": 60,
            "task_queued_timeout_check_interval": 10,
            # A minute each, in which no worker was there. After an hour the task fails.
            "num_stuck_in_queued_retries": 60,
        },
        "celery": {
            "celery_config_options": "include.orchestration.celery_configuration.CONFIGURATION",
            "broker_url": broker,
            # Airflow would take its database, which workers are not to know.
            "result_backend": broker,
            "worker_concurrency": settings.worker_tasks,
            # Seconds, and tries: while the broker is away a task stays with the scheduler, until it
            # has been queued for too long.
            "operation_timeout": 2,
            "task_publish_max_retries": 1000,
            # Messages are few: processes that send them would be forked for each turn.
            "sync_parallelism": 1,
        },
        # Seconds after which Redis delivers anew what nobody has acknowledged: longer than any
        # task may run.
        "celery_broker_transport_options": {"visibility_timeout": 86_400},
    }


def _executor(settings: Settings) -> str:
    if settings.executor == "local":
        return "LocalExecutor"
    # The second one is for the task that trims Airflow's database, which no worker may reach.
    return f"{CELERY_EXECUTOR},LocalExecutor"


def _auth_manager(settings: Settings) -> str:
    if settings.airflow_auth == "fab":
        return "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
    return "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"


def _secret(settings: Settings, name: str) -> str:
    return settings.secret(name).get_secret_value()


def _merge(options: Options, more: Options) -> None:
    for section, values in more.items():
        options.setdefault(section, {}).update(values)
