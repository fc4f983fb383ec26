"""Sockets of clients: who may come in, reading, writing, fan-out and liveness.

Knows the hub and the wire protocol; does not know the broker.
"""
