"""Those who are asked by network whose a token is: a service that knows tokens, a list of keys.

What is here may wait. It runs in the greenlet of the client who wants to know, or in one of its
own, never in one that others depend on; and how many wait, for how long, is bounded.
"""
