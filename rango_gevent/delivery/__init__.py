"""Sockets of clients: who may come in, reading, writing, fan-out and liveness.

Knows the hub and the wire protocol; does not know the broker.

`registry` holds all clients. Each has a `session` (who it is, what it is answered; `login` and
`resuming` are parts of it), which knows no socket, and a `connection` with its `inbound` half and
its outbound one, `sender` over an `outbox`. `dispatcher` hands out events: by `bundle`, in an
`encoding`, through an `outlet`. `heartbeat` and `token_watch` say when somebody's time is over,
`admission` who may still come, `arrivals` who waits for an event to come back by.
"""
