"""The torment: attacks on the real gateway, each with bounds on what others may notice of it."""
