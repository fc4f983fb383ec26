"""The protocol of ViaBTC's exchange server for WebSocket clients, over the same hub.

Pure are `words` (the wire), `names`, `methods` (what they take), `shapes` (published bodies made
into that protocol's), `depth`, `feeds`, `userfeeds` and `views`. `board` keeps what was published
and the views that clients hold, `painter` draws those of books; `session` answers requests, by
`queries` from the board or by `backend` from others; `dialect` puts all of it together. Imported
only where ``RANGO_VIABTC=on``.
"""
