"""The bytes of a snapshot, and the checks of those that arrive.

Owns the format and its version. A snapshot is JSON, with the bytes of all its parts behind it. It is made of named tuples, whose
annotations say what is valid; whatever else arrives is a `BadMessage`.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from struct import Struct
from types import NoneType, UnionType
from typing import Any

from engineio_wsgi.errors import BadMessage
from engineio_wsgi.session.movable import SessionSnapshot

__all__ = ["FORMAT", "decode", "encode"]

#: the version of the format. It changes with each change of a snapshot's fields; workers of other versions get no sessions
FORMAT = 1
#: version, bytes of the JSON
_PREFIX = Struct("!BI")
#: what stands in the JSON for bytes: their number
_BYTES = "bytes"

#: turns a value of JSON into what an annotation says, whatever that is
Reader = Callable[[Any], Any]


def encode(snapshot: SessionSnapshot) -> bytes:
    """The bytes of a snapshot."""
    parts: list[bytes] = []

    def keep(value: object) -> dict[str, int]:
        assert isinstance(value, bytes)
        parts.append(value)
        return {_BYTES: len(value)}

    text = json.dumps(snapshot, default=keep, separators=(",", ":")).encode()
    return b"".join([_PREFIX.pack(FORMAT, len(text)), text, *parts])


def decode(data: bytes) -> SessionSnapshot:
    """The snapshot in these bytes.

    Raises:
        BadMessage: they are none, or one of another version.
    """
    if len(data) < _PREFIX.size:
        raise BadMessage("no snapshot of a session")
    version, size = _PREFIX.unpack_from(data)
    if version != FORMAT:
        raise BadMessage(f"a session in the format {version}, and this worker reads {FORMAT}")
    begin = _PREFIX.size + size
    end = begin

    def take(pairs: dict[str, object]) -> object:
        """The bytes that such an object stands for; they come in the order of the objects."""
        nonlocal end
        length = pairs.get(_BYTES)
        if len(pairs) != 1 or type(length) is not int or length < 0:
            return pairs
        end += length
        return data[end - length:end]

    try:
        snapshot: SessionSnapshot = _reader_of(SessionSnapshot)(json.loads(data[_PREFIX.size:begin], object_hook=take))
        if end != len(data):
            raise ValueError("it is longer or shorter than it says")
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"a session that is not valid: {error}") from error
    return snapshot


@cache
def _reader_of(annotation: Any) -> Reader:  # the parts of a type are of any kind
    """What reads a value of this type, and raises ``ValueError`` for any other."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is UnionType:
        return _first_of([_reader_of(each) for each in arguments], annotation)
    if origin is tuple:
        return _array_of(_reader_of(arguments[0]))
    if origin is dict:
        return _object_of(_reader_of(arguments[1]))
    if annotation in _SIMPLE:
        return _exactly(annotation)
    hints = typing.get_type_hints(annotation)
    return _record_of(annotation, [_reader_of(hint) for hint in hints.values()])


_SIMPLE = (str, bytes, bool, int, float, NoneType)


def _exactly(kind: type) -> Reader:
    def read(value: object) -> object:
        if type(value) is kind:
            return value
        if kind is float and type(value) is int:
            return float(value)
        raise ValueError(f"expected {kind.__name__}, got {type(value).__name__}")

    return read


def _first_of(readers: list[Reader], annotation: object) -> Reader:
    def read(value: object) -> object:
        for reader in readers:
            with suppress(ValueError):
                return reader(value)
        raise ValueError(f"expected {annotation}, got {type(value).__name__}")

    return read


def _array_of(reader: Reader) -> Reader:
    def read(value: object) -> object:
        return tuple(map(reader, _checked(value, list)))

    return read


def _object_of(reader: Reader) -> Reader:
    def read(value: object) -> object:
        return {key: reader(each) for key, each in _checked(value, dict).items()}

    return read


def _record_of(kind: Callable[..., object], readers: list[Reader]) -> Reader:
    def read(value: object) -> object:
        values = _checked(value, list)
        if len(values) != len(readers):
            raise ValueError(f"expected {len(readers)} fields, got {len(values)}")
        return kind(*[reader(each) for reader, each in zip(readers, values, strict=True)])

    return read


def _checked(value: Any, kind: type) -> Any:  # what the JSON holds
    if type(value) is not kind:
        raise ValueError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value
