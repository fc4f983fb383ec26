"""The protocol of ViaBTC's exchange server for WebSocket clients, over the same hub.

Pure are `words` (the wire), `names`, `shapes` (published bodies made into that protocol's), `depth`
and `methods`. `board` keeps what was published and the views that clients hold; `session` answers
requests; `dialect` puts all of it together. Imported only where `RANGO_VIABTC=on`.
"""
