"""Who is subscribed to what, what waits to be sent, and the books.

Rules of this room: no method yields, waits or does I/O, so that every call is one step
that no other greenlet sees half done; and everything it holds has a bound.
"""
