"""Numbers that others have published: read from a file, and never mixed with measured ones."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from policies import PolicyFileError
from policies.document import read_document

Words = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PublishedNumber(_Strict):
    """One number of somebody else's."""

    system: Words
    """What was measured, such as a model."""
    data: Words
    """On which data."""
    metric: Words
    """As its authors name it."""
    value: Annotated[float, Field(strict=True, allow_inf_nan=False)]
    source: Words
    """Where it stands: a paper, a model card."""
    note: Words | None = None
    """What makes it differ from the numbers beside it: a threshold tuned on the test data, say."""


class _File(_Strict):
    published: tuple[PublishedNumber, ...] = Field(min_length=1)


def read_published(path: Path) -> tuple[PublishedNumber, ...]:
    """The numbers of a YAML file, a mapping with a list under `published`.

    Raises:
        PolicyFileError: the file cannot be read, or is not of this form; names file and line.
    """
    document = read_document(path)
    try:
        return _File.model_validate(document.data).published
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        problem = first["msg"]
        if first["type"] == "extra_forbidden":
            known = PublishedNumber if len(first["loc"]) > 1 else _File
            problem = f"unknown key; known: {', '.join(known.model_fields)}"
        where = first["loc"]
        raise PolicyFileError(
            path, document.line_of(where), problem, key=".".join(map(str, where)) or None
        ) from exc
