"""docs/asyncapi.yaml as tests use it: which of its messages is a text that went over the wire."""

from __future__ import annotations

import functools
import json
from typing import Any, Iterator

import yaml
from jsonschema import Draft7Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7
from support import ROOT

PATH = ROOT / "docs" / "asyncapi.yaml"
SCHEMA = ROOT / "tests/js/node_modules/@asyncapi/specs/schemas/3.0.0.json"  # AsyncAPI's own
_HERE = "urn:asyncapi"

PUBLIC, PRIVATE, VIABTC, ADMIN = "public", "private", "viabtc", "admin"
CLIENT = "client"
SERVER = "server"


@functools.cache
def document() -> Any:
    """Return the document."""
    return yaml.safe_load(PATH.read_text())


def found(reference: str) -> Any:
    """Return what a reference names; one that names nothing is a KeyError."""
    node = document()
    for word in reference[2:].split("/"):
        node = node[word]
    return found(node["$ref"]) if isinstance(node, dict) and "$ref" in node else node


def references(node: Any) -> Iterator[str]:
    """Find every reference below a node."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for each in node.values():
            yield from references(each)
    elif isinstance(node, list):
        for each in node:
            yield from references(each)


@functools.cache
def senders(channel: str = PUBLIC) -> dict[str, set[str]]:
    """Return the names of the messages that each end sends on a channel, by its operations."""
    names: dict[str, set[str]] = {CLIENT: set(), SERVER: set()}
    for operation in operations(channel).values():
        own = [each["$ref"] for each in operation["messages"]]
        replies = [each["$ref"] for each in operation.get("reply", {}).get("messages", ())]
        names[CLIENT if operation["action"] == "receive" else SERVER].update(own)
        names[SERVER].update(replies)
    return {sender: {ref.rpartition("/")[2] for ref in refs} for sender, refs in names.items()}


def operations(channel: str) -> dict[str, Any]:
    """Return the operations of a channel, by name."""
    of = {"$ref": f"#/channels/{channel}"}
    return {name: op for name, op in document()["operations"].items() if op["channel"] == of}


def names_of(channel: str) -> set[str]:
    """Return the names of a channel's messages."""
    return set(document()["channels"][channel]["messages"])


def is_message(text: str, name: str) -> bool:
    """Tell whether a text is a message of the document."""
    return _validator(name).is_valid(payload_of(text))


@functools.cache
def _validator(name: str) -> Draft7Validator:
    resource = Resource.from_contents(document(), default_specification=DRAFT7)
    registry = Registry().with_resource(_HERE, resource)
    schema = {"$ref": f"{_HERE}#/components/messages/{name}/payload"}
    return Draft7Validator(schema, registry=registry)


def payload_of(text: str) -> Any:
    """Read a message: JSON, or else plain text, whose blanks around it do not matter."""
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()


def kinds(text: str, sender: str, channel: str = PUBLIC) -> list[str]:
    """Return the names of all messages of one end that a text is; one, if all is well."""
    payload = payload_of(text)
    return sorted(name for name in senders(channel)[sender] if _validator(name).is_valid(payload))
