"""Published bodies: what passes as JSON, beside the fast check on the hot path of the hub.

Nothing here changes a body or keeps what is decoded of it.
"""

from __future__ import annotations

import msgspec

check_json = msgspec.json.Decoder(msgspec.Raw).decode


def has_lone_surrogates_only(body: bytes) -> bool:
    """Tell whether a body that `check_json` refused is JSON all the same.

    That check wants escaped surrogates in pairs. JSON does not (RFC 8259 section 8.2), and
    Rango lets such a body pass.
    """
    # Any \udxxx becomes \u0xxx: as long, as valid, and never a surrogate. That holds behind
    # another backslash too, where it is no escape: then it is plain text before and after.
    harmless = body.replace(b"\\ud", b"\\u0").replace(b"\\uD", b"\\u0")
    if harmless == body:
        return False
    try:
        check_json(harmless)
        body.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
