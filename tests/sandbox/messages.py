"""The binary messages of fal's WebSockets."""

from __future__ import annotations

import msgpack  # type: ignore[import-untyped]

from sandbox.answers import Json


def pack(message: Json) -> bytes:
    packed: bytes = msgpack.packb(message)
    return packed


def unpack(content: bytes) -> Json:
    """The message, or None where there is none in it."""
    try:
        return msgpack.unpackb(content)
    except ValueError:
        return None
