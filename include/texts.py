"""How a text is read, whoever brings it: a file, a database, a use case or a request.

Contract, encoder and node ask here, so a text of a request means what it meant in training. Nothing
is imported beside the standard library: it is shipped with every model.
"""

from __future__ import annotations

import unicodedata

BLANKS = " \t\r\n\u00a0"
HIDDEN = "\ufeff\u200b\u00ad"  # mark of byte order, blank without width, soft hyphen
_NOTHING = str.maketrans("", "", HIDDEN)


def plain_text(text: str) -> str:
    """Return a text as it is compared: in NFC, without hidden letters, or blanks at either end.

    A letter with a mark on it may be written as one or as two (macOS writes file names so); nobody
    sees which.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.translate(_NOTHING))
    return text.strip(BLANKS)
