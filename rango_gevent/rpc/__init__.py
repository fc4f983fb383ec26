"""Asking others a question and waiting for the answer: over AMQP, by HTTP, behind a cache.

Nothing here knows what is asked about. Imported only by what was switched on and needs it.
"""
