"""Every check, a line for each, and the exit code."""

from collections.abc import Callable, Mapping

from pipelines.command_line import screen
from pipelines.command_line.doctor import gpu, installation, machine, ports, stores
from pipelines.command_line.doctor.finding import Finding, fault

CHECKS: Mapping[str, Callable[[], Finding]] = {
    "Python": installation.python,
    "Packages": installation.packages,
    "Java": installation.java,
    "Project": installation.folder,
    "Disk": machine.disk,
    "Memory": machine.memory,
    "GPU": gpu.gpu,
    "Endpoint": ports.endpoint,
    "Pages": ports.pages,
    "DVC": stores.dvc,
    "MLflow": stores.mlflow,
    "Prefect": stores.prefect,
}
COLOURS = {"ok": "green", "warning": "yellow", "fault": "red"}


def show() -> int:
    """Do every check and print its line as soon as it is known. Returns the exit code: 1 when there is a fault."""
    found = []
    for name, check in CHECKS.items():
        found.append(finding := examine(check))
        screen.marked(f"{finding.level:<7}", COLOURS[finding.level], line(name, finding))
    count = {level: sum(each.level == level for each in found) for level in COLOURS}
    if len(found) == count["ok"]:
        print("\nEverything is in order.")
    else:
        print(f"\n{counted(count['fault'], 'fault')}, {counted(count['warning'], 'warning')}.")
    return 1 if count["fault"] else 0


def examine(check: Callable[[], Finding]) -> Finding:
    """What the check finds. One that crashes is a fault of its own, and the others go on."""
    try:
        return check()
    except Exception as error:
        name = f"{check.__module__.rpartition('.')[2]}.{check.__name__}"
        return fault(
            f"The check {name} failed: {type(error).__name__}: {' '.join(str(error).split())}",
            "Run make setup again. If this stays, please report it with this line.",
        )


def line(name: str, finding: Finding) -> str:
    """`Java      What is wrong.`, and what to do in a line below."""
    return f"  {name:<8}  {finding.what}" + (f"\n{'':<19}→ {finding.cure}" if finding.cure else "")


def counted(count: int, what: str) -> str:
    """`1 fault`, `2 faults`."""
    return f"{count} {what}{'' if count == 1 else 's'}"
