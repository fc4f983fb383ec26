"""Several gateways behind HAProxy, restarted, killed and stalled under clients that resume."""
