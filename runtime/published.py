"""The published terminal contract as files: AsyncAPI document, JSON Schemas, closed lists, examples.

`docs/wire` holds them beside its README; a test says when they are no longer what the codec does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from devices import asyncapi, examples, schema
from devices.codec import EVENT_TYPES

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "wire"


def as_json(document: Any) -> str:
    """Indented, in the order it was made, with Chinese as it is."""
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def as_yaml(document: Any) -> str:
    """The same as YAML, without aliases."""
    return yaml.dump(_plain(document), Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=110)


def files() -> dict[str, str]:
    """Every published file: path below the folder -> text."""
    schemas = schema.components()
    made = {"asyncapi.yaml": as_yaml(asyncapi.document()), "codes.json": as_json(schema.codes())}
    for name in schema.DOCUMENTS:
        made[f"schemas/{name}.json"] = as_json(schema.document_schema(name, schemas))
    for seq, event_type in enumerate(EVENT_TYPES, 1):
        made[f"events/{event_type}.json"] = as_json(examples.event(event_type, seq))
    return made


def write(folder: Path) -> list[str]:
    """Write all files; returns those whose text changed."""
    changed = []
    for name, text in files().items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            changed.append(name)
    return changed


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - every value is written where it stands
        return True


def _plain(document: Any) -> Any:
    """What JSON would make of it: tuples become lists."""
    return json.loads(json.dumps(document, ensure_ascii=False))
