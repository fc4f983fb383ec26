"""Who is subscribed to what, what waits to be sent, and the books.

Rules of this room: no method yields, waits or does I/O, so that every call is one step
that no other greenlet sees half done; and everything it holds has a bound.

`hub` is the door: it holds a `stream` for each name that somebody wants, a `book` for each market
on one `shelf`, the `history` of recent events, counts by `topics`, and `patterns` of names. `body`
looks at what is published, `recovery` is what who comes back is given, `derived` is for dialects.
"""
