"""Adapters: YAML files that say what the columns of somebody's data mean.

A value that an adapter does not name is unknown: it labels nothing.
"""

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from evals.data.errors import AdapterError, UnknownAdapter
from policies.document import read_document
from policies.errors import PolicyFileError

SHIPPED = Path(str(files("evals.data") / "adapters"))
"""The adapters that come with the package, one a file."""

Column = Annotated[str, Field(min_length=1)]
"""A name, or a path into an object such as `category.violence`."""
Labels = dict[Annotated[str, Field(min_length=1)], bool]
"""By policy id: whether it is violated."""


Values = Annotated[tuple[str, ...], AfterValidator(lambda values: tuple(map(as_text, values)))]
"""As they are compared."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Columns(_Strict):
    """Where the parts of a record stand."""

    text: Column | None = None
    """What is judged; at least this or `image`."""
    image: Column | None = None
    """A path from the folder of the table, or the bytes."""
    prompt: Column | None = None
    """Of a response: what it answers."""
    id: Column | None = None
    """Unique in the data; made of the file's name and the row where there is none."""
    lang: Column | None = None
    split: Column | None = None


class LabelRule(_Strict):
    """What the values of one column say of policies."""

    column: Column
    values: dict[str, Labels] = Field(min_length=1)
    """By value. Values are compared as texts, whatever their case; `1` is also 1.0, `true` also
    True. Of a list every element counts."""
    separator: Annotated[str, Field(min_length=1)] | None = None
    """Between the values of a text that holds several."""
    when: dict[Column, Values] = {}
    """Only rows with one of these values in each of these columns."""

    @field_validator("values", mode="after")
    @classmethod
    def _folded(cls, values: dict[str, Labels]) -> dict[str, Labels]:
        folded = {as_text(value): labels for value, labels in values.items()}
        if len(folded) < len(values):
            raise ValueError("two of the values differ in case or spaces alone")
        return folded


class Adapter(_Strict):
    """How the rows of a data set become records."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Its name, and the `source` of its records."""
    title: str = Field(min_length=1)
    source: str = Field(min_length=1)
    """Where the data is, and where what this file says of it comes from."""
    licence: str | None = None
    """Of the data."""
    revision: str | None = None
    """Of the data."""
    files: str | None = None
    """Which files of a folder, as a pattern; all tables by default."""
    surface: Literal["prompt", "response", "image"] = "prompt"
    columns: Columns
    lang: str | None = None
    """Of all records."""
    lang_by_file: dict[str, str] = {}
    """Languages by a word that stands in the path of the file."""
    skip: dict[Column, Values] = {}
    """Rows with one of these values in one of these columns are left out; "" is an empty one."""
    labels: tuple[LabelRule, ...] = Field(min_length=1)
    """Where rules disagree on a policy, it is violated."""
    slices: tuple[Column, ...] = ()
    """Columns that records keep, for `--by orig.COLUMN`."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        columns = self.columns
        if self.surface == "image" and (columns.image is None or columns.text is not None):
            raise ValueError("the surface 'image' is of an image alone; expected no column 'text'")
        if self.surface != "image" and columns.text is None:
            raise ValueError(f"a {self.surface} needs a column 'text'")
        if columns.prompt is not None and self.surface != "response":
            raise ValueError("'prompt' is what a response answers; the surface is no response")
        return self

    @property
    def used_columns(self) -> tuple[str, ...]:
        """Every column that is named, once."""
        named = [column for column in self.columns.model_dump().values() if column is not None]
        for rule in self.labels:
            named += [rule.column, *rule.when]
        return tuple(dict.fromkeys([*named, *self.skip, *self.slices]))


def as_text(value: object) -> str:
    """A value as it is compared: `True` is `true`, `1.0` is `1`, nothing is empty."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().casefold()


def shipped_adapters() -> list[str]:
    """Their names."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_adapter(name: str) -> Adapter:
    """A shipped adapter by its name, or that of a file.

    Raises:
        UnknownAdapter: neither.
        AdapterError: the file breaks the schema; names file, line and key.
    """
    if name in shipped_adapters():
        return read_adapter(SHIPPED / f"{name}.yaml")
    if not Path(name).is_file():
        raise UnknownAdapter(
            f"{name!r} is neither a file nor an adapter; known: {', '.join(shipped_adapters())}"
        )
    return read_adapter(Path(name))


def read_adapter(path: Path) -> Adapter:
    """The adapter in a file. Raises `AdapterError`."""
    try:
        document = read_document(path)
    except PolicyFileError as exc:
        raise AdapterError(str(exc)) from exc
    try:
        # scalars as they are written: `yes` is the word, and not the truth that YAML takes it for
        written: Any = yaml.constructor.BaseConstructor().construct_document(document.node)
        return Adapter.model_validate(written)
    except yaml.constructor.ConstructorError as exc:  # an alias within what it stands for
        raise AdapterError(f"{path}: is not valid YAML: {exc.problem}") from exc
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "unknown key"
        raise AdapterError(
            f"{path}:{document.line_of(first['loc'])}: {where + ': ' if where else ''}{message}"
        ) from exc
