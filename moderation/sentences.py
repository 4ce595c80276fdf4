"""Where sentences end, for cutting windows and for checking a growing response."""

import re

SENTENCE_END = re.compile(r"[.!?…][\"'”’»)\]]*(?=\s)|[。！？][”’」』）]*|\n")
"""Ends before the white space that follows a full stop: a Gemma token holds the space in front of
its word, so no token ends behind one."""
