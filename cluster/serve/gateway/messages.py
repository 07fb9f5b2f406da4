"""The messages and calls of the protocol, made from inference.proto when this module is imported.

Code that protoc generates is bound to the protobuf version that it was generated for, and registers its messages for
the whole process, where those of another client of the same protocol have the same names. These are in a pool of their
own, and any version of protobuf reads them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

PROTO: Final = Path(__file__).with_name("inference.proto")
_STATEMENT: Final = re.compile(
    r"(?P<block>message|oneof|service) (?P<of>\w+) {"
    r"|(?P<end>})"
    r"|rpc (?P<rpc>\w+)\((?P<takes>\w+)\) returns \((?P<gives>\w+)\) {}"
    r"|(?P<repeated>repeated )?(?:map<string, (?P<value>\w+)>|(?P<type>\w+)) (?P<field>\w+) = (?P<number>\d+);"
)
_SCALARS: Final = ("bool", "bytes", "double", "float", "int32", "int64", "string", "uint32", "uint64")


def describe_file(text: str) -> FileDescriptorProto:
    """Return the description of a .proto file: one package; messages, maps from strings, oneofs and unary calls.

    >>> file = describe_file('package p; message M { repeated bytes data = 3; }')
    >>> field = file.message_type[0].field[0]
    >>> file.package, field.name, field.number, field.label == field.LABEL_REPEATED
    ('p', 'data', 3, True)
    """
    text = re.sub(r"//.*", "", text)
    file = FileDescriptorProto(name=PROTO.name, package=re.findall(r"package (\w+);", text)[0], syntax="proto3")
    scopes: list[Any] = [file]
    for found in _STATEMENT.finditer(text):
        within = scopes[-1]
        if found["block"]:
            scopes.append(_open_block(within, found["block"], found["of"]))
        elif found["end"]:
            scopes.pop()
        elif found["rpc"]:
            within.method.add(name=found["rpc"], input_type=found["takes"], output_type=found["gives"])
        else:
            _add_field(scopes, found)
    return file


def _open_block(within: Any, kind: str, name: str) -> Any:
    if kind == "service":
        return within.service.add(name=name)
    if kind == "oneof":
        return within.oneof_decl.add(name=name)
    return (within.message_type if isinstance(within, FileDescriptorProto) else within.nested_type).add(name=name)


def _add_field(scopes: list[Any], found: re.Match[str]) -> None:
    """Add a field to the innermost message; one of a oneof knows its place among the oneofs."""
    is_message = isinstance(scopes[-1], DescriptorProto)
    message: DescriptorProto = scopes[-1] if is_message else scopes[-2]
    kind = found["type"]
    if found["value"]:
        kind = "".join(word.capitalize() for word in found["field"].split("_")) + "Entry"
        entry = message.nested_type.add(name=kind, options={"map_entry": True})
        _describe(entry.field.add(name="key", number=1), "string", is_repeated=False)
        _describe(entry.field.add(name="value", number=2), found["value"], is_repeated=False)
    field = message.field.add(name=found["field"], number=int(found["number"]))
    _describe(field, kind, is_repeated=bool(found["repeated"] or found["value"]))
    if not is_message:
        field.oneof_index = len(message.oneof_decl) - 1


def _describe(field: FieldDescriptorProto, kind: str, is_repeated: bool) -> None:
    field.label = field.LABEL_REPEATED if is_repeated else field.LABEL_OPTIONAL
    if kind in _SCALARS:
        field.type = getattr(field, f"TYPE_{kind.upper()}")
    else:  # the pool looks for the name from the inside out, as protoc does
        field.type, field.type_name = field.TYPE_MESSAGE, kind


_FILE: Final = describe_file(PROTO.read_text(encoding="utf-8"))
_POOL: Final = descriptor_pool.DescriptorPool()
_POOL.Add(_FILE)

SERVICE: Final = f"{_FILE.package}.{_FILE.service[0].name}"
"""The full name of the protocol's service."""


def _find(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_FILE.package}.{name}"))


REQUESTS: Final[dict[str, Any]] = {call.name: _find(call.input_type) for call in _FILE.service[0].method}
"""The class of the message that each call takes."""
RESPONSES: Final[dict[str, Any]] = {call.name: _find(call.output_type) for call in _FILE.service[0].method}
"""The class of the message that each call gives."""
