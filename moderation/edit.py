"""What a step towards the normal form of a text does to it."""

Edit = tuple[int, int, str]
"""What stands at [start, end) of a text, and what is put there."""
