"""Settings for the whole suite."""

from __future__ import annotations

from hypothesis import settings

# Other work on a shared machine must not fail a property; slowness is tested where it matters.
settings.register_profile("pgenrm", deadline=None)
settings.load_profile("pgenrm")
