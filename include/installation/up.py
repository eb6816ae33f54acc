"""What `make run` does: start everything, run the newest partition through Airflow, answer.

Everything is used again where it exists already: a second start only finds what is recorded, and
answers.
"""

from __future__ import annotations

import time
from datetime import datetime

from include.clock import utc_now
from include.config.settings import Settings
from include.config.settings import settings as current_settings
from include.config.use_case_file import files, find
from include.errors import EvergreenError
from include.installation import preflight
from include.installation.main_job import MainJob
from include.installation.progress import print_addresses, print_answer, print_line
from include.installation.supervisor import Stopped, Supervisor, migrate
from include.installation.waiting import Unattended
from include.orchestration.airflow_api import AirflowApi
from include.orchestration.airflow_login import ensure_password
from include.pipeline import ranges
from include.point_in_time import partitions

DEFAULT_USE_CASE = "repayment"


def run_main(use_case: str | None = None, once: bool = False, days: int = 0) -> int:
    """Run the main job; return the exit code.

    `once` stops everything after the answer; `days` backfills so many partitions before the newest.

    Raises:
        EvergreenError: something is in the way, with the remedy; whatever was started has been
            stopped.
    """
    began = time.monotonic()
    settings = current_settings()
    if settings.airflow_address:
        return run_elsewhere(settings, use_case, days)
    preflight.check(settings)
    case = find(use_case or DEFAULT_USE_CASE, settings.usecase_dirs)
    try:
        with Supervisor(settings, say=print_line) as supervisor:
            _bring_up(settings, supervisor)
            with AirflowApi(settings) as api:
                job = MainJob(settings, case, supervisor, api, days)
                if days or not job.is_on_record():
                    supervisor.wait_healthy(names=("api-server", "dag-processor"))
                    job.wait_for_dags()
                    job.load_history()
                    job.run_newest()
                    job.backfill()
                supervisor.wait_healthy(names=("node",))
                print_answer(job.predict())
                print_line(f"\nall of it took {time.monotonic() - began:.0f} s")
                if once:
                    print_line("stopping")
                else:
                    supervisor.wait_healthy()
                    job.unpause()
                    print_addresses(settings)
                    supervisor.hold()
    except Stopped as stopped:
        print_line(f"{stopped}; everything that was started has ended")
        return 0 if not once else stopped.exit_code
    return 0


def run_elsewhere(settings: Settings, use_case: str | None, days: int) -> int:
    """Run the main job in an installation whose processes others keep up; return the exit code.

    Raises:
        EvergreenError: something is in the way, with the remedy; nothing was started here.
    """
    began = time.monotonic()
    case = find(use_case or DEFAULT_USE_CASE, settings.usecase_dirs)
    with AirflowApi(settings) as api:
        job = MainJob(settings, case, Unattended(), api, days)
        if days or not job.is_on_record():
            job.wait_for_dags()
            job.load_history()
            job.run_newest()
            job.backfill()
        job.unpause()
        print_answer(job.predict())
    print_line(f"\nall of it took {time.monotonic() - began:.0f} s")
    return 0


def _bring_up(settings: Settings, supervisor: Supervisor) -> None:
    """Prepare databases and password, and start every process."""
    print_line(f"starting Evergreen in {settings.home}")
    if settings.is_public:
        print_line(
            f"  EVERGREEN_HOST is {settings.host}: whoever reaches this machine gets predictions "
            "without a token, and sees passwords that are typed into Airflow's and MLflow's pages "
            "pass unencrypted; put a proxy with TLS before them, or use 127.0.0.1"
        )
    password = ensure_password(settings)
    migrate(settings, say=print_line)
    for line in describe_outdated(settings, utc_now()):
        print_line(f"  {line}")
    supervisor.start()
    if password is not None:
        print_line(
            f"  Airflow's user is `admin`, its password {password} (shown this once; later: "
            "`evergreen password`)"
        )


def describe_outdated(settings: Settings, now: datetime) -> list[str]:
    """Return a line for each use case whose next run computes earlier partitions again.

    It does so where rules, or the code behind them, have changed since.
    """
    lines = []
    for path in files(settings.usecase_dirs):
        try:
            use_case = find(path.stem, settings.usecase_dirs)
            newest = partitions.newest_complete(use_case, now)
            if newest is None:
                continue
            keys = ranges.find_outdated("validate_data", use_case.name, newest, settings=settings)
        except EvergreenError:
            continue  # whoever runs it sees what is wrong with it
        if keys:
            lines.append(
                f"{use_case.name}: contract, SQL or code have changed since {len(keys)} "
                f"partitions were judged ({keys[0]} to {keys[-1]}); the next run judges them "
                "again first"
            )
    return lines
