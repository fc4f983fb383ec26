"""Numbers of errors, for clients that speak the subprotocol ``rango.v1``.

The hundreds tell the kind: 10xx the message, 11xx the rate, 12xx authentication, 13xx permission,
14xx coming back by a position.
"""

from __future__ import annotations

SUBPROTOCOL = "rango.v1"

NOT_JSON = 1001
NO_SUCH_EVENT = 1002
NO_STREAMS = 1003
BAD_NAME = 1004
TOO_MANY_STREAMS = 1005
RATE = 1101
ROLE = 1301
NO_UID = 1302
NOT_RECOVERED = 1401

OF_TOKENS = {
    "malformed": 1201,
    "signature": 1202,
    "expired": 1203,
    "not yet valid": 1204,
    "issuer": 1205,
    "audience": 1206,
    "no uid": 1207,
    "revoked": 1208,
    "unavailable": 1209,
}
"""Why a token was refused, in the words that a client is told, and the number of each."""
