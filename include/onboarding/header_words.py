"""What the words of a header say of its column: an id, a person, a time, an outcome.

The patterns are searched in `plain(header)`: lower case, words divided by `_`.
"""

from __future__ import annotations

import re

ID = re.compile(r"(^|_)(id|uuid|guid|key|no|nr|num|number)$")
NO_ID = re.compile(
    r"week|month|day|year|hour|quarter|phone|house|street|zip|post|page|line|floor|room"
    r"|guests?_|count"
)
"""Headers that end like an id, such as `week_number`, and are none."""
WHO = re.compile(
    r"customer|client|account|user|member|patient|person|loan|card|subscriber|policy|device|machine"
)
INDEX = re.compile(r"(__index_level_\d+__|unnamed[:_ ]*\d*|)$", re.IGNORECASE)
"""Whole headers that pandas and R give to the place of a row; as they stand, not `plain`."""
BIRTH = re.compile(r"birth|born|(^|_)(dob|bday)($|_)|geburt|naissance|nacimiento")
LABEL = re.compile(
    r"label|target|outcome|default|churn|fraud|paid|repaid|charged_off|converted|response"
    r"|survived|(^|_)won($|_)|returned|canceled|cancelled"
    r"|^y$|^class$|attrition|(^|_)bad($|_)|approved"
)
EVENT = (
    r"event_?(time|timestamp|date|at)",
    r"decision|appl|approv|order|transaction|due|start|open|visit|booked|signup|sign_up",
    r"timestamp|date|time|month|day",
)
"""Words of the time at which a row happened, the surest first."""
ARRIVAL = re.compile(
    r"created_timestamp|arriv(ed|al)?_(at|time|on)|ingest|load(ed)?_|received|created_at"
    r"|updated|recorded"
)
OUTCOME_TIME = re.compile(
    r"label_(time|timestamp|date|at)|outcome|result|status|closed|closing|charge|settle|resol"
    r"|(^|_)(end|ended|ends)($|_)"
    r"|cancel|churn|terminat|complet|finish|deliver|repaid|paid_(at|on|date)|returned"
)
AFTER_OUTCOME = re.compile(
    r"status|closed|closing|result|outcome|charge|settle|resol|recover|refund|collect|cancel"
    r"|churn|terminat|repaid|paid|returned"
    r"|assigned|final|changes$|(^|_)(end|ended)($|_)|days_(late|overdue)|duration"
)

BEFORE = re.compile(r"(^|_)(previous|prev|prior|past|earlier|history|historical)(_|$)")
"""Words of what was over before the decision, whatever else a name says."""
LEAD_TIME = re.compile(
    r"lead_?time|days_(ahead|before|in_advance|until|to_arrival)|(^|_)advance(_days)?$"
    r"|booking_window|notice_(days|period)"
)
"""Words of the days between a decision and what it is about."""
LATER_TWIN = re.compile(
    r"(^|_)(assigned|actual|final|closing|delivered|received|accepted|granted|current)(_|$)"
)
"""Words that set a column apart from one of the same name that was written first."""
FIRST_TWIN = re.compile(
    r"(^|_)(reserved|requested|planned|scheduled|initial|original|opening|ordered|promised|offered"
    r"|estimated|expected|applied|start|starting|first)(_|$)"
)


def plain(header: str) -> str:
    """Return a header in lower case with `_` between its words, whichever way they were divided."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", header)
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")


def sounds_of_id(header: str) -> bool:
    """Tell whether a name sounds of an id."""
    name = plain(header)
    return bool(ID.search(name)) and not NO_ID.search(name)


def sounds_of_person(header: str) -> bool:
    """Tell whether a name sounds of somebody or something that is scored."""
    return bool(WHO.search(plain(header)))


def sounds_late(header: str) -> bool:
    """Tell whether a name sounds of what is known only after the outcome."""
    name = plain(header)
    return bool(AFTER_OUTCOME.search(name)) and not BEFORE.search(name)
