"""What can be wrong with data.

RecordError             a file cannot be read as records; names file, and line or row
└── AdapterError        the description of a format is wrong, or does not fit the data
    └── UnknownAdapter  no shipped adapter has that name
"""


class RecordError(Exception):
    """A data file that breaks the format it is read as."""

    code = "invalid_records"
    """Stable name for machines."""


class AdapterError(RecordError):
    """An adapter that breaks its schema, or names columns that the data does not have."""

    code = "invalid_adapter"


class UnknownAdapter(AdapterError):
    """Neither a shipped adapter nor a file."""

    code = "unknown_adapter"
