"""What the conformance suites talk to: an echo server on the gateway's own delivery layer."""
