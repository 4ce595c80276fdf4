"""A report for machines: what `evals.report.content` holds, as JSON."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass

from pydantic import BaseModel, JsonValue

from evals.metrics import Interval
from evals.report.content import Report
from evals.results import as_pair


def report_json(report: Report) -> str:
    """The report for machines, ending in a newline."""
    return json.dumps(_plain(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: object) -> JsonValue:
    """As JSON has it; intervals as pairs, like in the summary of a run."""
    if isinstance(value, Interval):
        return as_pair(value)
    if isinstance(value, BaseModel):
        return _plain(value.model_dump())
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    assert value is None or isinstance(value, str | int | float)
    return value
