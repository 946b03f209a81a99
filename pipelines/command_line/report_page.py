"""`foundry report`: the report of the last run, in the browser where there is one."""

import os
import sys
import webbrowser
from pathlib import Path

PAGE = Path("artifacts/report.html")
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")  # without any of them Linux has nowhere to show a page


def show(print_path: bool) -> None:
    """Open the page, or print where it is."""
    if not PAGE.is_file():
        sys.exit(f"There is no report yet: {PAGE.resolve()} is missing. Run `foundry run` to make it.")
    page = PAGE.resolve()
    can_show = sys.platform != "linux" or any(os.environ.get(name) for name in DISPLAYS)
    if print_path or not can_show or not webbrowser.open(page.as_uri()):
        print(page)
