"""Settings of the test tools: hypothesis runs the same examples every time, without deadlines.

What fails here may be einkorn's fault, so its frames are shown.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
os.environ.setdefault("EINKORN_TRACEBACK", "full")
settings.load_profile("repeatable")
