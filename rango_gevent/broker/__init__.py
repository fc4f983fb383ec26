"""The AMQP side: topology, the supervised consumer, a publisher.

Knows kombu and nothing of clients: what it consumes goes to one callable.
"""
