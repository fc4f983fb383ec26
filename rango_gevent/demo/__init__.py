"""The demo room: a simulated exchange, and what shows it off.

``market.py`` is pure (seed and time in, events out); whatever reads a clock or serves a page is IO.
"""
