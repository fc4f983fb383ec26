"""Who may connect and who may see what: keys, tokens, roles and origins.

Everything here is pure: text and the time come in as arguments, a value or an error goes out.
The handshake asks ``origin`` and ``tokens`` before it answers 101, the hub asks ``rbac`` when a
client subscribes to a prefixed stream, and start-up loads the key through ``keys``.
"""
