"""Small data sets in every format, and adapters for them."""

import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from PIL import Image

from evals.data.adapter import Adapter, read_adapter
from evals.data.reading import read_data
from evals.records import Record

ADAPTER: dict[str, Any] = {
    "id": "made_up",
    "title": "Made up",
    "source": "tests",
    "columns": {"text": "words"},
    "labels": [{"column": "bad", "values": {"1": {"any_harm": True}, "0": {"any_harm": False}}}],
}
ROWS: list[dict[str, object]] = [
    {"words": "first, with a comma", "bad": 1, "kind": {"a.b": True, "c": None}},
    {"words": "second\nof two lines", "bad": 0, "kind": {"a.b": False, "c": None}},
    {"words": "Dritter mit ß", "bad": None, "kind": {"a.b": None, "c": True}},
]
FORMATS = ("jsonl", "jsonl.gz", "json", "csv", "csv.gz", "tsv", "parquet", "arrow")


def adapter(folder: Path, **changes: Any) -> Adapter:
    """`ADAPTER` with changes, read from a file as anybody's is."""
    path = folder / "adapter.yml"
    path.write_text(yaml.safe_dump({**ADAPTER, **changes}, allow_unicode=True), encoding="utf-8")
    return read_adapter(path)


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """The rows in the format that the name says; text formats have no objects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pl.DataFrame(rows)
    flat = frame.drop(name for name, kind in frame.schema.items() if kind.is_nested())
    match path.name.partition(".")[2]:
        case "jsonl":
            path.write_text(_lines(rows), encoding="utf-8")
        case "jsonl.gz":
            path.write_bytes(gzip.compress(_lines(rows).encode()))
        case "json":
            path.write_text(json.dumps(rows), encoding="utf-8")
        case "csv":
            flat.write_csv(path)
        case "csv.gz":
            path.write_bytes(gzip.compress(flat.write_csv().encode()))
        case "tsv":
            flat.write_csv(path, separator="\t")
        case "parquet":
            frame.write_parquet(path)
        case "arrow":  # a stream, as `save_to_disk` of Hugging Face writes it
            frame.write_ipc_stream(path)
    return path


def _lines(rows: Sequence[Mapping[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def read(data: Path, chosen: Adapter) -> list[Record]:
    return list(read_data(data, chosen))


def png(colour: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(data, "PNG")
    return data.getvalue()


def image_folder(folder: Path) -> Path:
    """Images in sub-folders by label, and what else lies about."""
    for name, colour in (
        ("bad/red.png", "red"),
        ("fine/blue.png", "blue"),
        ("fine/it.PNG", "lime"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(colour))
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "no.png").write_bytes(b"")
    (folder / "notes.txt").write_text("nothing")
    return folder


BY_FOLDER: dict[str, Any] = {
    "surface": "image",
    "columns": {"image": "image"},
    "labels": [
        {
            "column": "folder",
            "values": {
                "bad": {"violence": True, "sexually_explicit": False},
                "fine": {"violence": False},
            },
        }
    ],
    "slices": ["folder"],
}
"""Of `image_folder`."""
