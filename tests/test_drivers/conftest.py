"""How hypothesis looks for examples. `--hypothesis-profile=search` looks for more, and for others in each run;
`--hypothesis-seed` repeats one. No profile leaves a trace in the checkout."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Nothing here may depend on how fast the machine is.
_each = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow], print_blob=False)

settings.register_profile("fixed", _each, derandomize=True, max_examples=100, stateful_step_count=30)
settings.register_profile("search", _each, derandomize=False, max_examples=2000, stateful_step_count=50)
settings.load_profile("fixed")
