"""Documents of the terminal protocol from its published schemas, for hypothesis. Small on purpose: what we publish."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

Schema = Mapping[str, Any]

_PLAIN = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=20)


def document_of(schemas: Mapping[str, Schema], name: str) -> st.SearchStrategy[Any]:
    """Documents that fit the schema of that name."""
    return _of(schemas, schemas[name])


def _of(schemas: Mapping[str, Schema], schema: Schema) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return _of(schemas, schemas[schema["$ref"].rpartition("/")[2]])
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return st.one_of([_of(schemas, one) for one in schema[key]])
    match schema.get("type"):
        case "object":
            return _object(schemas, schema)
        case "array":
            low, high = schema.get("minItems", 0), schema.get("maxItems", 3)
            return st.lists(_of(schemas, schema["items"]), min_size=low, max_size=max(low, min(3, high)))
        case "string":
            return _string(schema)
        case "integer":
            return st.integers(schema.get("minimum", -(2**31)), schema.get("maximum", 2**40))
        case "number":
            return st.floats(schema.get("minimum"), schema.get("maximum"), allow_nan=False, width=32)
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
    return st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _PLAIN


def _object(schemas: Mapping[str, Schema], schema: Schema) -> st.SearchStrategy[Any]:
    fields = {name: _of(schemas, inner) for name, inner in schema.get("properties", {}).items()}
    required = set(schema.get("required", ()))
    return st.fixed_dictionaries(
        {name: fields[name] for name in fields if name in required},
        optional={name: fields[name] for name in fields if name not in required},
    )


def _string(schema: Schema) -> st.SearchStrategy[str]:
    if schema.get("format") == "date-time":
        offset = st.sampled_from(["Z", "z", "+08:00", "-11:30"])
        return st.builds(lambda moment, zone: f"{moment.isoformat()}{zone}", st.datetimes(), offset)
    low, high = schema.get("minLength", 0), schema.get("maxLength", 40)
    pattern: str | None = schema.get("pattern")
    if pattern is None or r"\x00" in pattern:
        return _PLAIN.filter(lambda text: low <= len(text) <= high)
    return st.from_regex(pattern, fullmatch=True).filter(lambda text: low <= len(text) <= high)
