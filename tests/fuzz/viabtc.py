"""Any bytes to /viabtc are a request whose params are checked, or answered with one error.

Nothing else is raised; every reply that follows is JSON with the request's id; what a strict parser
reads as a request is read so here, and the views that it asks for are within their bounds.
"""

from __future__ import annotations

import json
import math
from typing import Any, Callable

from rango_gevent.viabtc import methods, views, words
from rango_gevent.viabtc.methods import DepthForms
from rango_gevent.viabtc.names import Names
from rango_gevent.viabtc.words import Request, Wrong
from tests.fuzz.common import payload

_NAMES = Names()
_FORMS = DepthForms()
_SPECS: dict[str, Callable[[list[Any], Names, str], list[views.Spec]]] = {
    **{family: methods.markets(family) for family in ("price", "state", "today", "deals", "order")},
    "asset": methods.assets,
    "kline": methods.klines,
    "depth": methods.depths(_FORMS),
}
_QUERIES: dict[str, Callable[[list[Any]], Any]] = {
    "kline.query": lambda params: methods.kline_query(params, _NAMES),
    "price.query": lambda params: methods.one_market(params, _NAMES),
    "today.query": lambda params: methods.one_market(params, _NAMES),
    "state.query": lambda params: methods.state_query(params, _NAMES),
    "deals.query": lambda params: methods.deals_query(params, _NAMES),
    "depth.query": lambda params: methods.depth_query(params, _NAMES, _FORMS),
    "server.auth": methods.auth,
    "server.sign": methods.sign,
}
_BITS = 1 << 63


def check(data: bytes) -> None:
    """Read a message as it comes from a connection, then what its method takes."""
    expected = _strictly(data)
    try:
        request = words.parse(data)
    except Wrong as wrong:
        assert expected is None
        _check_error(wrong, wrong.id)
        return
    assert expected is None or expected == request
    assert -_BITS <= request.id < _BITS
    said = json.loads(payload(words.success(request.id)))
    assert said == {"error": None, "result": {"status": "success"}, "id": request.id}
    try:
        _read(request)
    except Wrong as wrong:
        _check_error(wrong, request.id)


def _read(request: Request) -> None:
    """Read the params, as the session does for a method that it knows."""
    method, params = request.method, request.params
    family, _, verb = method.partition(".")
    if verb == "subscribe" and family in _SPECS:
        for spec in _SPECS[family](params, _NAMES, "ID1"):
            _check_view(spec)
    elif method in methods.USER_QUERIES:
        asked = methods.user_query(method, params, _NAMES)
        assert json.dumps(asked)
    elif method in _QUERIES:
        assert _QUERIES[method](params)


def _check_view(spec: views.Spec) -> None:
    assert 0 < len(spec.of) < 16
    assert spec.of.isprintable()
    assert "." not in spec.of
    assert ":" not in spec.of
    assert len(spec.address) < 80
    assert 0 <= spec.levels <= 2 * max(_FORMS.limits)
    assert json.loads(payload(words.push("depth.update", [True, {}, spec.of])))["id"] is None


def _check_error(wrong: Wrong, id: int | None) -> None:
    said = json.loads(payload(words.error(wrong.fault, id)))
    assert said["result"] is None
    assert said["id"] == id
    assert said["error"]["code"] in (1, 4)


def _strictly(data: bytes) -> Request | None:
    """Read a request by another parser; None for anything else."""
    try:
        said = json.loads(data.decode(), parse_constant=_refuse, parse_float=_finite)
        id, method, params = said["id"], said["method"], said["params"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    whole = type(id) is int and -_BITS <= id < _BITS
    if not whole or not isinstance(method, str) or not isinstance(params, list):
        return None
    try:
        data.decode().encode("utf-8")
        json.dumps(said, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except UnicodeError:
        return None
    return Request(id, method, params)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(text)  # more than a double holds is refused
    return number


def _refuse(constant: str) -> None:
    raise ValueError(constant)  # NaN and the like are no JSON


SEEDS = (
    b'{"id":1,"method":"server.ping","params":[]}',
    b'{"id":1,"method":"depth.subscribe","params":["BTCUSD",5,"0","ETHUSD",20,"0.1"]}',
    b'{"id":2,"method":"kline.subscribe","params":["BTCUSD",60,"BTCUSD",300]}',
    b'{"id":3,"method":"deals.subscribe","params":["BTCBCH","A"]}',
    b'{"id":4,"method":"asset.subscribe","params":["BTC"]}',
    b'{"id":5,"method":"kline.query","params":["BTCBCH",1492358400,1492444800,3600]}',
    b'{"id":6,"method":"state.query","params":["BTCBCH",86400]}',
    b'{"id":7,"method":"deals.query","params":["BTCBCH",10000,0]}',
    b'{"id":8,"method":"depth.query","params":["BTCBCH",101,"0.00000001"]}',
    b'{"id":9,"method":"order.history","params":["BTCBCH",0,0,0,101,2]}',
    b'{"id":10,"method":"asset.history","params":["BTC","trade",0,0,0,10]}',
    b'{"id":11,"method":"server.auth","params":["token","web"]}',
    b'{"id":12,"method":"server.sign","params":["id","signature",1492358400123]}',
    b'{"id":-9223372036854775808,"method":"today.query","params":["A"]}',
    b'{"id":9223372036854775808,"method":"today.query","params":["A"]}',
    b'{"id":5,"method":"kline.query","params":["BTCBCH",1e40058400,1,3600]}',
    b'{"id":1.0,"method":"x","params":[]}',
    b'{"id":true,"method":"x","params":[]}',
    b'{"id":1,"id":2,"method":"\\ud800","params":[NaN]}',
    b'{"id":1,"method":"server.sign","params":["\\u00e9","x\\r\\n",-1]}',
    b'{"id":1,"method":"price.subscribe","params":[[[[[[]]]]]]}',
    b"[]",
    b"\xff",
)
WORDS = (
    b'"id":', b'"method":', b'"params":', b'"depth.subscribe"', b'"kline.query"', b"[]", b"{}",
    b"null", b"true", b"1e400", b"-0", b'"0.1"', b"86400", b"2592000", b"\\u", b"\\ud83d\\ude00",
    b'"order.query"', b'"BTCUSD"', b"9223372036854775807",
)  # fmt: skip
