"""What can stop a run.

RunError             it cannot begin or go on in its folder
└── RunRefused       the folder belongs to another run, or another process is at work in it
"""


class RunError(Exception):
    """A run cannot begin or go on in its folder."""

    code = "run_error"
    """Stable name for machines."""


class RunRefused(RunError):
    """The folder belongs to another run, or another process is at work in it."""

    code = "run_refused"
