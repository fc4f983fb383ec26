"""Where events come from: kinds of source under one supervisor.

A source connects and hands messages to one callable; it knows nothing of clients, of when to
try again, or of readiness. `kinds` chooses one by the broker's URL.
"""
