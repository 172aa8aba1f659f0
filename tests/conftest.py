"""Settings of the test tools: hypothesis runs the same examples every time, without deadlines."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")
