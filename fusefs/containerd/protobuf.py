"""Protocol Buffers for frozen dataclasses: what a field's number is stands in its annotation.

::

    @dataclass(frozen=True)
    class Mount:
        type: Annotated[str, 1] = ""
        options: Annotated[tuple[str, ...], 4] = ()

Text, bytes, numbers, enumerations, messages (``Info | None``), tuples of those, and maps of text to
text or to messages. Written as proto3 does it: what equals its default is left out, unknown fields
are passed over. The encoding is https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import enum
import functools
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol, TypeVar, get_args, get_origin, get_type_hints

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MASK = (1 << 64) - 1
_LONGEST_VARINT = 10
"""Bytes."""


class BadMessage(ValueError):
    """Bytes that are not the message they should be."""


class Message(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


M = TypeVar("M", bound=Message)

_Write = Callable[[Any], bytes]
_Read = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a value is written and read."""

    wire: int
    write: _Write
    read: _Read


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    number: int
    kind: _Kind
    repeated: bool
    is_map: bool


def encode(message: Message) -> bytes:
    """Return *message* as bytes."""
    parts = []
    for field in _fields(type(message)).values():
        value = getattr(message, field.name)
        if not value:
            continue
        if field.is_map:
            values: Any = value.items()
        else:
            values = value if field.repeated else (value,)
        key = _varint(field.number << 3 | field.kind.wire)
        for one in values:
            data = field.kind.write(one)
            parts += [key, _varint(len(data)), data] if field.kind.wire == _LENGTH else [key, data]
    return b"".join(parts)


def decode(kind: type[M], data: bytes) -> M:
    """Read a message of *kind*; raises BadMessage."""
    known, found = _fields(kind), dict[str, Any]()
    for number, wire, value in _raw(data):
        field = known.get(number)
        if field is None:
            continue
        if wire != field.kind.wire:
            raise BadMessage(f"{kind.__name__}: field {number} has wire type {wire}")
        try:
            read = field.kind.read(value)
        except UnicodeDecodeError as exc:
            raise BadMessage(f"{kind.__name__}: field {number} is no text") from exc
        if field.is_map:
            found.setdefault(field.name, {}).update([read])
        elif field.repeated:
            found.setdefault(field.name, []).append(read)
        else:
            found[field.name] = read
    lists = {name: tuple(value) for name, value in found.items() if isinstance(value, list)}
    return kind(**found | lists)


def _raw(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Yield field numbers, wire types and values."""
    at, end = 0, len(data)
    while at < end:
        key, at = _read_varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _read_varint(data, at)
            yield number, wire, value
            continue
        if wire == _LENGTH:
            size, at = _read_varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise BadMessage(f"field {number} has wire type {wire}")
        if size > end - at:
            raise BadMessage(f"field {number} ends behind the message")
        yield number, wire, data[at : at + size]
        at += size


@functools.cache
def _fields(kind: type[Message]) -> Mapping[int, _Field]:
    """Return the fields of *kind* by number."""
    fields = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if get_origin(hint) is Annotated:
            bare, number = get_args(hint)
            field = _field(name, number, bare)
            fields[number] = field
    return fields


def _field(name: str, number: int, hint: Any) -> _Field:
    arguments = get_args(hint)
    if get_origin(hint) is tuple:
        return _Field(name, number, _kind(arguments[0]), repeated=True, is_map=False)
    if get_origin(hint) is Mapping:
        return _Field(name, number, _entry(arguments[1]), repeated=True, is_map=True)
    if isinstance(hint, types.UnionType):
        hint = next(one for one in arguments if one is not types.NoneType)
    return _Field(name, number, _kind(hint), repeated=False, is_map=False)


def _kind(hint: Any) -> _Kind:
    if hint is str:
        return _Kind(_LENGTH, lambda text: text.encode(), lambda data: bytes(data).decode())
    if hint is bytes:
        return _Kind(_LENGTH, bytes, bytes)
    if issubclass(hint, bool):
        return _Kind(_VARINT, _varint, bool)
    if issubclass(hint, enum.IntEnum):
        return _Kind(_VARINT, _varint, functools.partial(_member, hint))
    if hint is int:
        return _Kind(_VARINT, _varint, _signed)
    return _Kind(_LENGTH, encode, functools.partial(decode, hint))


def _member(kind: type[enum.IntEnum], value: int) -> enum.IntEnum:
    try:
        return kind(value)
    except ValueError as exc:
        raise BadMessage(f"{value} is no {kind.__name__}") from exc


def _entry(hint: Any) -> _Kind:
    """Return the kind of a map's entries: messages with a key and a value."""
    text, inner = _kind(str), _kind(hint)

    def write(entry: tuple[str, Any]) -> bytes:
        parts = []
        for number, kind, part in ((1, text, entry[0]), (2, inner, entry[1])):
            data = kind.write(part)
            parts += [_varint(number << 3 | _LENGTH), _varint(len(data)), data]
        return b"".join(parts)

    def read(data: bytes) -> tuple[str, Any]:
        found: dict[int, Any] = {1: "", 2: inner.read(b"")}
        for number, wire, value in _raw(data):
            if wire == _LENGTH and number in found:
                found[number] = (text if number == 1 else inner).read(value)
        return found[1], found[2]

    return _Kind(_LENGTH, write, read)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _varint(value: int) -> bytes:
    value &= _MASK
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for count, byte in enumerate(data[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value & _MASK, at + count + 1
    raise BadMessage("a number has no end")
