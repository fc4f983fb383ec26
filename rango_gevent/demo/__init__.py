"""The demo room: a simulated exchange, and what shows it off.

Everything below is pure (seed and time in, events out) and imports go downwards only:
``exchange`` → ``users``, ``crowd``, ``charts`` → ``market`` → ``book``, ``orders``, ``tape`` →
``instruments``. Whatever reads a clock or serves a page is IO and sits above them.
"""
