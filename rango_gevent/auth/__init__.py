"""Who may connect and who may see what: keys, tokens, roles and origins.

Pure: text and the time come in as arguments, a value or an error goes out. The handshake and the
sessions ask ``authenticator``, which asks ``tokens`` and ``revocation``; the handshake asks
``origin`` before it answers 101, the hub asks ``rbac`` when a client subscribes to a prefixed
stream, and start-up loads keys through ``keys``.
"""
