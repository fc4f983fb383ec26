"""The way in: from an accepted socket to a client of the gateway, or to an HTTP answer.

`exchange` reads one request a connection and answers it, `handshake` decides once who may come
in, `handler` hands the socket over. No room below knows HTTP.
"""
