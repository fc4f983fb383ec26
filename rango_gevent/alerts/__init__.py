"""Alerts: CRITICAL lines of the log, and recoveries, sent to people by sinks with URLs.

Nothing of it runs in the gateway's loop but counting: `handler` hands lines through a socket to
one process of its own, `courier`, which gathers, counts and says when; each message is delivered
to each sink by a short-lived process, `deliver`, that can hang or crash as it likes. Workers
under one parent share its courier, so that an incident of all of them is one message.
"""
