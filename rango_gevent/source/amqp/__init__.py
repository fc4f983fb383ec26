"""RabbitMQ by AMQP 0-9-1: connection, topology, decoder, pump."""
