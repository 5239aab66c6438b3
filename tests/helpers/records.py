"""What a verb prints with --json, checked against the schema that is documented for it."""

from __future__ import annotations

import json
from typing import Any

import jsonschema

from gossamer.cli.schemas import schema_of


def validated(verb: str, printed: str) -> dict[str, Any]:
    """The record, which is all that was printed.

    Raises: `jsonschema.ValidationError` where it is not what `gossamer schema VERB` says.
    """
    record = json.loads(printed)
    schema = schema_of(verb)
    checker = jsonschema.Draft202012Validator
    checker.check_schema(schema)
    checker(schema).validate(record)
    return record
