"""One YAML file as data that remembers on which line each key stands.

Knows YAML and its traps. Knows nothing of policies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from policies.errors import PolicyFileError


@dataclass(frozen=True, slots=True)
class Document:
    """A file whose top level is a mapping without repeated keys."""

    path: Path
    data: dict[Any, Any]
    node: yaml.MappingNode

    def line_of(self, location: Sequence[int | str]) -> int:
        """The line of the deepest step of `location` that stands in the file."""
        node: yaml.Node = self.node
        line = node.start_mark.line
        for step in location:
            if isinstance(node, yaml.MappingNode):
                match = [pair for pair in node.value if pair[0].value == str(step)]
                if not match:
                    break  # a key that is missing: its parent's line
                line, node = match[0][0].start_mark.line, match[0][1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
                node = node.value[step]
                line = node.start_mark.line
        return line + 1


def read_document(path: Path) -> Document:
    """Reads and parses one file.

    Raises:
        PolicyFileError: unreadable, not UTF-8, not YAML, not a mapping, or a key stands twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise PolicyFileError(
            path, None, f"is not a text in UTF-8: byte {exc.object[exc.start]:#04x} at {exc.start}"
        ) from exc
    except OSError as exc:
        raise PolicyFileError(path, None, f"cannot be read: {exc.strerror or exc}") from exc
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        data = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else None
        raise PolicyFileError(path, line, f"is not valid YAML: {exc.problem}") from exc
    except yaml.reader.ReaderError as exc:
        raise PolicyFileError(
            path,
            text.count("\n", 0, exc.position) + 1,
            f"is not valid YAML: the character U+{exc.character:04X} is not allowed",
        ) from exc
    except RecursionError as exc:
        raise PolicyFileError(path, None, "is nested too deeply") from exc
    # PyYAML lets these out for scalars that do not fit their tag, such as the date 2026-13-45
    except (ValueError, LookupError, AttributeError) as exc:
        raise PolicyFileError(path, None, f"holds a value that YAML cannot read: {exc}") from exc
    if not isinstance(data, dict) or not isinstance(node, yaml.MappingNode):
        raise PolicyFileError(path, 1, "expected a mapping: keys with their values")
    _refuse_repeated_keys(path, node, set())
    return Document(path, data, node)


def _refuse_repeated_keys(path: Path, node: yaml.Node, done: set[int]) -> None:
    """YAML lets the last of two equal keys win in silence; a policy must not."""
    if id(node) in done:  # an alias: the same node again, possibly within itself
        return
    done.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise PolicyFileError(
                    path, key.start_mark.line + 1, "this key stands twice", key=key.value
                )
            seen.add(key.value)
            _refuse_repeated_keys(path, value, done)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(path, item, done)
