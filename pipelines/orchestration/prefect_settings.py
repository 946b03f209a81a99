"""Prefect's settings for this project. Import it before Prefect, which reads the environment at import."""

import os
from pathlib import Path

from serving.host.process import settle

ROOT = Path.cwd()
SETTINGS = {
    "PREFECT_HOME": str(ROOT / ".prefect"),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the flow prints its own lines; all are in Prefect's page
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # a busy machine is slow to start it
    "DO_NOT_TRACK": "1",
}
settle()  # a proxy, a user without a name, an unusable TMPDIR: before Prefect reads the environment, at import
for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)
