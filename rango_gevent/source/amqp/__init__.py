"""RabbitMQ by AMQP 0-9-1, without a log or with one.

Without: `pump` reads a worker's own queue by `decoder`; `topology` and `declare` are what is asked
of the broker, `binder` keeps the queue bound to what clients hold. With RANGO_LOG=stream: `log` is
the source, `reader` reads the stream queue, `chain` gives positions, `standby` decides between it
and a spare queue.
"""
