"""How Hypothesis runs here: for as long as a busy machine takes."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# an example that takes long, or one that is slow to make, says something of the machine only
settings.register_profile(
    "any machine",
    settings(),  # what holds here otherwise, such as Hypothesis's own ways in CI
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("any machine")
