"""A simulated exchange, for the demo and for tests.

Everything below is pure (seed and time in, events out) and imports go downwards only:
``exchange`` → ``users``, ``crowd``, ``charts`` → ``market`` → ``book``, ``orders``, ``tape`` →
``instruments``. What reads a clock and serves it is `rango_gevent.commands.demo`.
"""
