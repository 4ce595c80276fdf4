"""Looks at the bytes of a JSON text before anything is built of it.

A few megabytes of `[],[],` become gigabytes of objects, and a parser holds the interpreter while
it makes them. A text is one piece, however long it is and whatever it holds.
"""

import re

# Every alternative matches at its first byte and never gives a byte back, so that one pass is
# enough for whatever is sent, well formed or not.
_RUN = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+"?|[,:\[{])|[^",:\[{]++', re.DOTALL)


def has_more_pieces(raw: bytes | bytearray, most: int) -> bool:
    """Whether a JSON text has more than `most` strings, commas, colons and opening brackets.

    Stops at the first piece too many.
    """
    left = most
    for run in _RUN.finditer(raw):
        if run.lastindex is not None:
            left -= 1
            if left < 0:
                return True
    return False
