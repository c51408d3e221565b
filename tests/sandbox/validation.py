"""Arguments against a model's document, as pydantic would judge them at fal.

Unknown fields are ignored, as everywhere at fal; harmless conversions are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from sandbox.answers import Json, error_item
from sandbox.documents import REF, Interface, Schema, reference

Item = dict[str, Json]

NULL: Schema = {"type": "null"}


def checked(interface: Interface, arguments: Json) -> tuple[Json, list[Item]]:
    """The arguments after conversion, and what is wrong with them."""
    schemas = interface.schemas
    takes = reference(interface.input_name)
    converted = _convert(arguments, takes, schemas)
    validator = Draft202012Validator({**takes, "components": {"schemas": schemas}})
    problems: list[Item] = []
    for error in validator.iter_errors(converted):
        problems += _items(error, ["body"])
    return converted, problems


def _convert(value: Json, schema: Schema, schemas: Mapping[str, Schema]) -> Json:
    """pydantic's lax mode: numbers may be written as text, but text not as numbers."""
    schema = _resolved(schema, schemas)
    if isinstance(value, dict):
        fields: Mapping[str, Schema] = schema.get("properties", {})
        return {
            name: _convert(inner, fields.get(name, {}), schemas) for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_convert(inner, schema.get("items", {}), schemas) for inner in value]
    if "enum" in schema:
        return value  # a Literal, which has no lax mode
    return _converted_scalar(value, schema.get("type"))


def _resolved(schema: Schema, schemas: Mapping[str, Schema]) -> Schema:
    """Through references, and past the null of an optional field."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(REF)
        return schemas[name]
    branches = _without_null(schema.get("anyOf", []))
    if not branches:
        return schema
    return _resolved(branches[0], schemas)


def _without_null(branches: list[Schema]) -> list[Schema]:
    """The null of an optional field is no branch to pydantic."""
    return [branch for branch in branches if branch != NULL]


def _converted_scalar(value: Json, kind: str | None) -> Json:
    try:
        if kind == "integer" and isinstance(value, str):
            return int(value)
        if kind == "integer" and isinstance(value, float) and value.is_integer():
            return int(value)
        if kind == "number" and isinstance(value, str):
            return float(value)
    except ValueError:
        return value
    if kind == "boolean" and isinstance(value, (str, int)):
        return _BOOLEANS.get(str(value).lower(), value)
    return value


_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "y", "t", "1"), True),
    **dict.fromkeys(("false", "no", "off", "n", "f", "0"), False),
}


def _items(error: ValidationError, loc: list[str | int]) -> Iterator[Item]:
    """One finding of jsonschema's in pydantic's terms."""
    loc = [*loc, *error.relative_path]
    keyword, limit = str(error.validator), _limit(error)
    if keyword == "anyOf":
        yield from _union_items(error, loc)
    elif keyword == "required":
        # The validator names no field, and reports each that is missing by itself.
        field = error.message.split("'")[1]
        yield error_item([*loc, field], "missing", "Field required", error.instance)
    elif not (keyword == "type" and _is_literal(error)):
        kind, msg, ctx = DESCRIPTIONS[keyword](limit, error.instance)
        yield error_item(loc, kind, msg, error.instance, ctx)


def _limit(error: ValidationError) -> Any:
    """What the schema demanded."""
    return error.validator_value


def _is_literal(error: ValidationError) -> bool:
    """Whether there will be a complaint about the value: pydantic then has none on its type."""
    return isinstance(error.schema, Mapping) and "enum" in error.schema


def _union_items(error: ValidationError, loc: list[str | int]) -> Iterator[Item]:
    """Every branch's complaints; the branch is named where there are several."""
    branches: list[Schema] = _limit(error)
    several = len(_without_null(branches)) > 1
    for inner in error.context or []:
        branch = branches[int(inner.schema_path[0])]
        if branch == NULL:
            continue
        place = [*loc, _branch_name(branch)] if several else loc
        yield from _items(inner, place)


def _branch_name(branch: Schema) -> str:
    if "$ref" in branch:
        return str(branch["$ref"]).removeprefix(REF)
    if "enum" in branch:
        values = ",".join(map(repr, branch["enum"]))
        return f"literal[{values}]"
    return str(branch.get("type"))


Description = tuple[str, str, Mapping[str, Json] | None]

# By what was wanted: pydantic's type of the error, and the words for what was wanted.
TYPE_ERRORS = {
    "string": ("string_type", "string"),
    "integer": ("int_type", "integer"),
    "number": ("float_type", "number"),
    "boolean": ("bool_type", "boolean"),
    "array": ("list_type", "list"),
    "object": ("model_attributes_type", "dictionary or object to extract fields from"),
}
# The same where a text came that cannot be converted.
PARSING_ERRORS = {
    "integer": ("int_parsing", "integer, unable to parse string as an integer"),
    "number": ("float_parsing", "number, unable to parse string as a number"),
    "boolean": ("bool_parsing", "boolean, unable to interpret input"),
}
FRACTION_ERROR = ("int_from_float", "integer, got a number with a fractional part")


def _type_description(wanted: str, given: Json) -> Description:
    kind, words = TYPE_ERRORS[wanted]
    if isinstance(given, str):
        kind, words = PARSING_ERRORS.get(wanted, (kind, words))
    elif wanted == "integer" and isinstance(given, float):
        kind, words = FRACTION_ERROR
    return kind, f"Input should be a valid {words}", None


def _enum_description(values: list[Json], given: Json) -> Description:
    *most, last = map(repr, values)
    expected = last
    if most:
        expected = f"{', '.join(most)} or {last}"
    return "literal_error", f"Input should be {expected}", {"expected": expected}


def _bound(kind: str, phrase: str, key: str) -> Callable[[Json, Json], Description]:
    def describe(limit: Json, given: Json) -> Description:
        return kind, f"Input should be {phrase} {limit}", {key: limit}

    return describe


def _length(kind: str, phrase: str, key: str) -> Callable[[Json, Json], Description]:
    def describe(limit: Json, given: Json) -> Description:
        characters = "character" if limit == 1 else "characters"
        return kind, f"String should have at {phrase} {limit} {characters}", {key: limit}

    return describe


DESCRIPTIONS: Mapping[str, Callable[[Any, Json], Description]] = {
    "type": _type_description,
    "enum": _enum_description,
    "minimum": _bound("greater_than_equal", "greater than or equal to", "ge"),
    "maximum": _bound("less_than_equal", "less than or equal to", "le"),
    "exclusiveMinimum": _bound("greater_than", "greater than", "gt"),
    "minLength": _length("string_too_short", "least", "min_length"),
    "maxLength": _length("string_too_long", "most", "max_length"),
}
