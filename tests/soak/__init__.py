"""The soak: unruly clients, a steady feed, a broker that restarts; then all is counted."""
