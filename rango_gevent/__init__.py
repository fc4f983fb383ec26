"""rango_gevent: a WebSocket gateway on gevent for RabbitMQ topic exchanges."""

__version__ = "0.1.0"
