"""An Event is a fact that happened; a Message is one on its way, as every broker carries it: a CloudEvent.

    class RoomHeld(Event, topic="reservations.room-held", version=1):
        room: str
        nights: int = 1

Readers are tolerant: fields they do not know are left out, fields with defaults may be missing. What they cannot read
any more gets a new `version`; an older message is then lifted by the event's own `upcast`, version by version.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

import msgspec
from msgspec import Struct

from .errors import DeclarationError

_TOPIC = re.compile(r"[a-z][a-z0-9]*([.-][a-z0-9]+)*")
_TYPE = re.compile(r"(.+)\.v([0-9]{1,6})")
LONGEST_TOPIC = 200  # characters; AMQP allows 255 bytes for a name, and queues are called after topics
LONGEST_KEY = 255  # characters


class _EventType(type(Struct)):  # type: ignore[misc]
    """Takes `topic` and `version` where a class is made; every event is frozen and made with keywords."""

    def __new__(
        mcs,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        topic: str | None = None,
        version: int | None = None,
        **kwargs: Any,
    ) -> Any:
        if bases == (Struct,):  # Event itself
            return super().__new__(mcs, name, bases, namespace, frozen=True, kw_only=True)
        cls = super().__new__(mcs, name, bases, namespace, **{**kwargs, "frozen": True, "kw_only": True})
        base: Any = next((each for each in bases if getattr(each, "topic", "")), None)
        topic = topic if topic is not None else getattr(base, "topic", None)
        version = version if version is not None else getattr(base, "version", 1)
        if not isinstance(topic, str) or not _TOPIC.fullmatch(topic) or len(topic) > LONGEST_TOPIC:
            raise DeclarationError(
                f'{name}: an event has a topic like "reservations.room-held": '
                f'`class {name}(Event, topic="..."): ...`; got {topic!r}.'
            )
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise DeclarationError(f"{name}: version is a number from 1; got {version!r}.")
        for field in ("topic", "version"):
            if field in cls.__struct_fields__:
                raise DeclarationError(f"{name}: an event's '{field}' is its class's; call the field otherwise.")
        cls.topic, cls.version = topic, version
        return cls


class Event(Struct, metaclass=_EventType):
    """A fact, published by the transaction that made it true. Subclasses are frozen and made with keywords."""

    topic: ClassVar[str] = ""
    version: ClassVar[int] = 1

    @classmethod
    def upcast(cls, version: int, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields of a message of `version` as those of the next one; called until they are this class's.

        Raises Undeliverable when nothing says how.
        """
        raise Undeliverable(
            f"A {cls.topic} of version {version} came, and {cls.__name__} is version {cls.version}: give it a "
            "classmethod `upcast(cls, version, fields)` that returns the fields as the next version has them."
        )


class Undeliverable(ValueError):
    """Raised when a message cannot be read as the event that is subscribed to; repeating it cannot help."""


class Message(Struct, frozen=True):
    """An event on its way. `data` is its JSON; the rest is said beside it."""

    id: str  # the same in every copy
    topic: str
    version: int
    key: str  # those of one key are delivered in the order they were committed; "": in no order
    source: str  # the service that published it
    time: float  # seconds since 1970, when
    data: msgspec.Raw
    traceparent: str = ""
    tracestate: str = ""
    request_id: str = ""
    tenant: str = ""
    subject: str = ""  # on whose behalf

    @property
    def type(self) -> str:
        """What CloudEvents calls it: topic and major version."""
        return f"{self.topic}.v{self.version}"

    def encoded(self) -> bytes:
        """As a CloudEvent in JSON (structured mode): https://github.com/cloudevents/spec, version 1.0.

        `partitionkey`, `traceparent` and `tracestate` are its documented extensions.
        """
        said = {
            "partitionkey": self.key,
            "traceparent": self.traceparent,
            "tracestate": self.tracestate,
            "requestid": self.request_id,
            "tenant": self.tenant,
            "onbehalfof": self.subject,
        }
        return msgspec.json.encode(
            {
                "specversion": "1.0",
                "id": self.id,
                "type": self.type,
                "source": self.source,
                "time": datetime.fromtimestamp(self.time, UTC),
                "datacontenttype": "application/json",
                **{name: value for name, value in said.items() if value},
                "data": self.data,
            }
        )

    @classmethod
    def decoded(cls, body: bytes) -> Self:
        """The Message that a CloudEvent stands for, ours or another's; raises Undeliverable for what is none."""
        try:
            said = _decode(body)
            match = _TYPE.fullmatch(said.type)
            topic, version = (match[1], int(match[2])) if match else (said.type, 1)
            return cls(
                said.id,
                topic,
                version,
                said.partitionkey,
                said.source,
                said.time.timestamp() if said.time is not None else 0.0,
                said.data.copy() if said.data != msgspec.Raw() else msgspec.Raw(b"null"),
                said.traceparent,
                said.tracestate,
                said.requestid,
                said.tenant,
                said.onbehalfof,
            )
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise Undeliverable(f"Expected a CloudEvent 1.0 in JSON, got {body[:80]!r}...: {error}.") from error

    def event(self, types: Sequence[builtins.type[Event]]) -> Event:
        """The event, as that one of `types` which has its topic; raises Undeliverable."""
        cls = next((each for each in types if each.topic == self.topic), None)
        if cls is None:
            raise Undeliverable(f"Nothing here reads {self.topic}; {', '.join(each.topic for each in types)} would be.")
        if self.version > cls.version:
            raise Undeliverable(
                f"A {self.topic} of version {self.version} came, and {cls.__name__} is version {cls.version}: deploy "
                "the newer class here first, then its publisher."
            )
        try:
            if self.version == cls.version:
                return msgspec.json.decode(self.data, type=cls)
            fields = msgspec.json.decode(self.data, type=dict[str, Any])
            for version in range(self.version, cls.version):
                fields = cls.upcast(version, fields)
            return msgspec.convert(fields, cls)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise Undeliverable(f"A {self.type} cannot be read as {cls.__name__}: {error}.") from error


class _CloudEvent(Struct):
    """What we read of one; other attributes are ignored."""

    id: str
    type: str
    source: str
    specversion: str
    time: datetime | None = None
    data: msgspec.Raw = msgspec.Raw()
    partitionkey: str = ""
    traceparent: str = ""
    tracestate: str = ""
    requestid: str = ""
    tenant: str = ""
    onbehalfof: str = ""


_decode = msgspec.json.Decoder(_CloudEvent).decode
