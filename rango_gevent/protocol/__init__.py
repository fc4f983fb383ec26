"""The wire contract as pure functions: bytes and values in, bytes and values out.

No gevent, no kombu, no socket, no clock, no environment: everything here can be
called from a test, a client or a server alike.
"""
