"""The OpenAPI 3.1 document, made from the table of routes, the protocols' fields and the queries' own readers."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from dispatcher import __version__
from dispatcher.ground.apikey import Scope
from dispatcher.ground.fields import Field, bearer_token, schema_of
from dispatcher.ground.policy import Reason, Status
from dispatcher.protocols import PROTOCOLS
from dispatcher.rows import FIELDS
from dispatcher.store.replays import State
from dispatcher.web.deliveries import FILTERS, RESOLUTION
from dispatcher.web.events import JSON, NDJSON
from dispatcher.web.problem import MEDIA_TYPE, Kind
from dispatcher.web.replays import LIST, REQUEST

Json = dict[str, Any]


class Way(Protocol):
    """A route, as far as its description goes."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def scope(self) -> Scope: ...


_EVERY = (Kind.NO_KEY, Kind.FORBIDDEN, Kind.RATE, Kind.BUSY, Kind.BROKEN, Kind.AWAY)
_BODY = (Kind.TIMEOUT, Kind.TOO_LARGE, Kind.MEDIA)
_JSON_BODY = (*_BODY, Kind.MALFORMED, Kind.INVALID)


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


# By operation: what it does, what comes in (media types, schema), what goes out (status → words, schema), what fails.
_ABOUT: Mapping[
    str, tuple[str, tuple[Sequence[str], Json | None] | None, Mapping[int, tuple[str, Json]], Sequence[Kind]]
] = {
    "enqueue": (
        "Accept one event; answered when it is on disk.",
        (JSON, _ref("Event")),
        {202: ("Accepted.", _ref("Receipt")), 200: ("The same was accepted before.", _ref("Receipt"))},
        (*_JSON_BODY, Kind.CONFLICT),
    ),
    "enqueueBatch": (
        "Accept events, one JSON object a line. Good lines are kept, bad ones named; answered when they are on disk.",
        # No schema: OpenAPI has none for lines. Each is as the body of /v1/events.
        (NDJSON, None),
        {200: ("What became of the lines.", _ref("Counts"))},
        _BODY,
    ),
    "listDeliveries": (
        "The wallet-flow log, newest first. `since` and `until` bound the acceptance, for `status=dead` the end.",
        None,
        {200: ("A page; `next` leads to the one behind it.", _ref("Page"))},
        (Kind.INVALID,),
    ),
    "showDelivery": (
        "One delivery with its event, every attempt, and what was done by hand.",
        None,
        {200: ("The delivery.", _ref("Whole"))},
        (Kind.NOT_FOUND,),
    ),
    "replayDelivery": (
        "Send a dead or resolved delivery again, with the whole schedule; appends attempts, changes no record.",
        None,
        {200: ("It is due.", _ref("Receipt"))},
        (Kind.NOT_FOUND, Kind.NOT_NOW),
    ),
    "resolveDelivery": (
        "Close a dead delivery by hand.",
        (JSON, _ref("Resolution")),
        {200: ("It is resolved.", _ref("Receipt"))},
        (*_JSON_BODY, Kind.NOT_FOUND, Kind.NOT_NOW),
    ),
    "makeReplay": (
        "Replay dead letters in bulk, at a pace: by keys, or by filters with `since`, which bounds the time of death.",
        (JSON, _ref("NewReplay")),
        {201: ("It is made.", _ref("Replay")), 200: ("The dry run: what it would come by.", _ref("Counted"))},
        (*_JSON_BODY, Kind.NOT_NOW),
    ),
    "listReplays": (
        "Bulk replays, the newest first.",
        None,
        {200: ("With their progress.", _ref("Replays"))},
        (Kind.INVALID,),
    ),
    "showReplay": (
        "One bulk replay.",
        None,
        {200: ("With its progress.", _ref("Replay"))},
        (Kind.NOT_FOUND,),
    ),
    **{
        f"{verb}Replay": (
            told,
            None,
            {200: ("It is.", _ref("Replay"))},
            (Kind.NOT_FOUND, Kind.NOT_NOW),
        )
        for verb, told in (
            ("pause", "Take nothing more until it is resumed."),
            ("resume", "Go on where it was, at its pace."),
            ("cancel", "Take nothing more, for good."),
        )
    },
}
# The queries of those that have one.
_QUERIES = {"listDeliveries": FILTERS, "listReplays": LIST}


def document(ways: Sequence[Way]) -> Json:
    """The whole document."""
    paths: Json = {}
    for way in ways:
        paths.setdefault(way.path, {})[way.method.lower()] = _operation(way)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dispatcher",
            "version": __version__,
            "description": "Tells each operator what happened in a spin, until it has said yes.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "apiKey": {"type": "http", "scheme": "bearer", "description": "A key made by `dispatcher keys create`."}
            },
            "schemas": _schemas(),
            "headers": _HEADERS,
        },
    }


def _operation(way: Way) -> Json:
    told, body, answers, kinds = _ABOUT[way.name]
    described: Json = {
        "operationId": way.name,
        "summary": told,
        "description": f"Takes a key with the scope `{way.scope}`.",
        "security": [{"apiKey": []}],
        "parameters": _parameters(way),
        "responses": {
            **{str(status): _answer(words, "application/json", schema) for status, (words, schema) in answers.items()},
            **_problems({*_EVERY, *kinds}),
        },
    }
    if body is not None:
        types, schema = body
        content: Json = {} if schema is None else {"schema": schema}
        described["requestBody"] = {"required": True, "content": dict.fromkeys(types, content)}
    return described


def _parameters(way: Way) -> list[Json]:
    own = _QUERIES.get(way.name, ())
    queries = [{"name": name, "in": "query", "required": must, "schema": schema_of(read)} for name, read, must in own]
    number = {"type": "integer", "minimum": 1, "maximum": 10**18 - 1}
    in_path = [{"name": "id", "in": "path", "required": True, "schema": number}] if "{id}" in way.path else []
    return in_path + queries


def _answer(words: str, media_type: str, schema: Json, *headers: str) -> Json:
    named = {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *headers)}
    return {"description": words, "headers": named, "content": {media_type: {"schema": schema}}}


_HEADERS: Json = {
    "X-Request-Id": {"description": "Names the request in the log.", "required": True, "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds.", "required": True, "schema": {"type": "string", "pattern": "^[0-9]+$"}},
    "WWW-Authenticate": {"required": True, "schema": {"type": "string"}},
}
_WITH: Mapping[int, tuple[str, ...]] = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}


def _problems(kinds: set[Kind]) -> Json:
    by_status: dict[int, list[str]] = {}
    for kind in sorted(kinds, key=lambda one: (int(one.status), one.slug)):
        by_status.setdefault(int(kind.status), []).append(f"`{kind.slug}`: {kind.title}.")
    return {
        str(status): _answer(" ".join(told), MEDIA_TYPE, _ref("Problem"), *_WITH.get(status, ()))
        for status, told in by_status.items()
    }


def _object(properties: Mapping[str, Any], required: Sequence[str] | None = None, *, open_: bool = False) -> Json:
    named = list(properties) if required is None else list(required)
    return {"type": "object", "properties": dict(properties), "required": named, "additionalProperties": open_}


def _event(name: str, fields: Sequence[Field]) -> Json:
    """An event of a type: its envelope, and its fields as their readers describe themselves."""
    properties = {
        "operator": {"type": "string", "description": "A configured operator."},
        "type": {"const": name},
        **{field.name: schema_of(field.read) for field in fields},
        "token": {**schema_of(bearer_token), "description": "The player's, where the operator's `auth` is per_event."},
    }
    return _object(properties, ["operator", "type", *(field.name for field in fields if field.required)])


def _texts(*names: str) -> Json:
    return {name: {"type": ["string", "null"]} for name in names}


_INTEGER: Json = {"type": "integer"}
_BOOLEAN: Json = {"type": "boolean"}
_TEXT: Json = {"type": "string"}
_TIME: Json = {"type": ["string", "null"], "format": "date-time"}


def _delivery() -> Json:
    told: Json = {name: {"type": "string", "description": "Decimal."} for name in FIELDS}
    told |= dict.fromkeys(("operator", "type", "key", "uid"), _TEXT)
    told |= dict.fromkeys(("due_at", "accepted_at", "finished_at"), _TIME)
    told |= {"id": _INTEGER, "attempts": _INTEGER, "ambiguous": _BOOLEAN, "parked": _BOOLEAN}
    told |= {"status": {"enum": list(Status)}, "reason": {"enum": [*Reason, None]}}
    amounts = {name for protocol in PROTOCOLS.values() for name in protocol.amounts}
    return _object(told, [name for name in told if name not in amounts])


def _attempt() -> Json:
    told = {
        **dict.fromkeys(("n",), _INTEGER),
        **{name: {"type": ["integer", "null"]} for name in ("duration_ms", "http_status", "key_version")},
        **_texts("code", "response", "detail"),
        "trigger": _TEXT,
        "started_at": _TIME,
        "reason": {"enum": [*Reason, None]},
        "ambiguous": _BOOLEAN,
        "superseded": _BOOLEAN,
    }
    return _object(told)


def _replays() -> Json:
    refusal = _object({"operator": _TEXT, **_texts("type"), "key": _TEXT, "why": _TEXT})
    told: Json = {"id": _INTEGER, "state": {"enum": list(State)}, "driven": _BOOLEAN, "actor": _TEXT, "note": _TEXT}
    told |= {**_texts("operator"), "filter": {"type": "object"}}
    told |= dict.fromkeys(("pace", "total", "taken", "refused", "left"), _INTEGER)
    told |= {"rate": {"type": ["number", "null"]}}
    told |= dict.fromkeys(("ends_at", "created_at", "updated_at", "finished_at"), _TIME)
    told |= {"refusals": {"type": "array", "items": refusal}}
    new = {field.name: schema_of(field.read) for field in REQUEST}
    return {
        "NewReplay": _object(new, [field.name for field in REQUEST if field.required]),
        "Replay": _object(told),
        "Replays": _object({"replays": {"type": "array", "items": _ref("Replay")}}),
        "Counted": _object(dict.fromkeys(("total", "refused"), _INTEGER)),
    }


def _schemas() -> Json:
    types = {name: _event(name, protocol.fields) for name, protocol in PROTOCOLS.items()}
    delivery = _delivery()
    action = _object({"at": _TIME, "verb": _TEXT, "actor": _TEXT, **_texts("note")})
    whole = delivery["properties"] | {
        "event": {"type": "object"},
        "attempts": {"type": "array", "items": _attempt()},
        "actions": {"type": "array", "items": action},
    }
    refusal = _object({"line": _INTEGER, "reason": _TEXT})
    counts = dict.fromkeys(("accepted", "duplicate", "conflict", "invalid"), _INTEGER)
    fault = _object({"field": _TEXT, "fault": _TEXT, "mend": _TEXT})
    problem = {"type": _TEXT, "title": _TEXT, "status": _INTEGER, "detail": _TEXT, "mend": _TEXT, "instance": _TEXT}
    return {
        "Event": {"oneOf": [_ref(name) for name in types]},
        **types,
        "Receipt": _object({"id": _INTEGER, "status": {"enum": list(Status)}}),
        "Counts": _object({**counts, "refused": {"type": "array", "items": refusal}}),
        "Delivery": delivery,
        "Page": _object({"deliveries": {"type": "array", "items": _ref("Delivery")}, **_texts("next")}),
        "Whole": _object(whole, [*dict.fromkeys([*delivery["required"], "event", "attempts", "actions"])]),
        "Resolution": _object({field.name: schema_of(field.read) for field in RESOLUTION}),
        **_replays(),
        # Open: a batch that was cut short brings its counts along.
        "Problem": _object(problem | {"faults": {"type": "array", "items": fault}}, list(problem), open_=True),
    }
