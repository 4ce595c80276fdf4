"""Which answers of upstreams that keep them have passed this gate.

A request may go on from an answer that the upstream kept, by its id. What stands behind an id, the
gate cannot see; it can only know that it was here before. Used on the event loop only.
"""

from collections import OrderedDict
from typing import Literal

from service.errors import UnsupportedInput

CAPACITY = 65_536
"""Ids kept; the one that was named longest ago goes first."""


class History:
    """The ids of answers, and of items in them, that passed whole since this process began."""

    def __init__(self, unseen: Literal["refuse", "pass"], capacity: int = CAPACITY) -> None:
        """`unseen`: what becomes of ids that did not."""
        self._unseen = unseen
        self._capacity = capacity
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, answer_id: object) -> None:
        """Keeps the id of what has passed."""
        if isinstance(answer_id, str):
            self._ids[answer_id] = None
            self._ids.move_to_end(answer_id)
            while len(self._ids) > self._capacity:
                self._ids.popitem(last=False)

    def check(self, stored_id: object, where: str) -> None:
        """Raises `UnsupportedInput` for an id that did not pass here, unless settings allow it.

        Args:
            stored_id: of an answer or an item; None for what never is an answer of this gate.
            where: its place in the body.
        """
        if isinstance(stored_id, str) and stored_id in self._ids:
            self._ids.move_to_end(stored_id)
        elif self._unseen == "refuse":
            raise UnsupportedInput(
                f"{where} refers to content that did not pass this gate since it was started; send"
                " the content itself in input, or ask the operator about the setting"
                " unseen_history",
                param=where,
                code="unseen_history",
            )
