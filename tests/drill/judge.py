"""What looks after the releases of the drill: a turn of the judge every half second.

    python -m tests.drill.judge

In an installation Airflow's task does this; here the process is one that the drill can kill.
"""

from __future__ import annotations

import logging
import time

from include.clock import utc_now
from include.config.settings import settings
from include.deployment.judge_release import turn
from include.errors import EvergreenError
from include.records.records import Records
from tests.builders.serving import NAME

PAUSE = 0.5
log = logging.getLogger(__name__)


def main() -> None:
    """Take turns at whatever release is there, until killed."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    here = settings()
    records = Records.open(here.records_address)
    while True:
        try:
            release = records.releases.running(NAME) or records.releases.watched(NAME)
            if release is not None:
                log.info("%s", turn(here, NAME, release.id, utc_now()))
        except EvergreenError as error:  # the records are away, or another hand was faster
            log.warning("%s", error)
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
