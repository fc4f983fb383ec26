"""Kafka as a source: all partitions of some topics, read by every gateway for itself.

`poller` waits for messages on a thread of the system, as librdkafka knows nothing of gevent, and
hands them to the loop by batches. `source` connects, says where to begin, and makes routing keys
by `keys`. `words` says what went wrong, and what helps. confluent_kafka is imported in here only,
and this room only when a URL asks for it.
"""
