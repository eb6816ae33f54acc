"""What the words of a header say of its column: an id, a person, a time, an outcome.

The patterns are searched in `plain(header)`: lower case, words divided by `_`.
"""

from __future__ import annotations

import re

ID = re.compile(r"(^|_)(id|uuid|guid|key|no|nr|num|number)$")
NO_ID = re.compile(
    r"(^|_)(weeks?|months?|days?|years?|hours?|quarters?|phones?|telephone|house|street|zip|postal"
    r"|pages?|lines?|floors?|rooms?|guests?|counts?|of)(_|$)|weekday|weeknum"
)
"""Headers that end like an id, such as `week_number`, and are none: by whole words, since an
`account_id` holds a `count` and a `package_id` a `page`.
"""
WHO = re.compile(
    r"customer|client|account|user|member|patient|person|loan|card|subscriber|policy|device|machine"
)
INDEX = re.compile(r"(__index_level_\d+__|unnamed[:_ ]*\d*|)$", re.IGNORECASE)
"""Whole headers that pandas and R give to the place of a row; as they stand, not `plain`."""
BIRTH = re.compile(r"birth|born|(^|_)(dob|bday)($|_)|geburt|naissance|nacimiento")
LABEL = re.compile(
    r"label|target|outcome|default|delinq|dlq|churn|fraud|(^|_)(re|un)?paid($|_)|charged_off"
    r"|converted|response|survived|(^|_)(won|late|delayed|dead|died|death|deceased|spam|hired|sold|bought)($|_)"
    r"|returned|refunded|canceled|cancelled|purchased|clicked|subscribed|exited|escalated"
    r"|readmi(tted|ssion)|mortality|recid|malignan|diagnosis|disease"
    r"|^y$|^class$|attrition|(^|_)bad($|_)|approved|accepted|satisfaction|(^|_)pass_?fail($|_)"
)
"""Words of an outcome. A name that only might be one (`status`, `result`) is in `STATE`."""
STATE = re.compile(r"(^|_)(status|state|result|results|verdict|decision|grade|quality|risk)$")
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
    r"|cancel|churn|terminat|complet|finish|deliver|(^|_)(re)?paid_(at|on|date)|returned"
    r"|convert|default|chg_?off|died|death|deceased|discharg|readmi|fraud|exit_?(at|on|date|time)"
)
AFTER_OUTCOME = re.compile(
    r"(^|_)status($|_)|closed|closing|result|outcome|charged|charge_?(off|back)|chg_?off|write_?off"
    r"|written_?off|settle|resol|recover|refund|collection|collected|cancel"
    r"|churn|terminat|(^|_)(re)?paid($|_)|returned|discharge|(^|_)(exit|death|died)($|_)"
    r"|(^|_)(total|last|next)_(pymnt|payment)|(^|_)total_rec(_|$)|(^|_)out_prncp"
    r"|assigned|final|changes$|(^|_)(end|ended)($|_)|days_(late|overdue)|duration"
)
OWN_STATUS = re.compile(
    r"(^|_)(marital|marriage|civil|family|relationship|smok\w*|drink\w*|employ\w*|job|work\w*"
    r"|occupation\w*|education\w*|hous\w*|home|resident\w*|residence|citizen\w*|immigra\w*|student"
    r"|veteran|military|insur\w*|health|disab\w*|check\w*|saving\w*|account|acc|tax|income|member\w*"
    r"|vip|loyalty|credit|socio\w*|economic)_status($|_)"
)
"""Names of a state that somebody or something had before: `marital_status`, `checking_status`."""

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
    name = OWN_STATUS.sub("_", name)
    return bool(AFTER_OUTCOME.search(name)) and not BEFORE.search(name)
