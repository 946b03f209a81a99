"""Make a running server serve what is promoted, or what it served before. It is safe to run it twice."""

import fcntl
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from serving import ServingError
from serving.client import Client
from serving.host import promoted
from serving.host.command import Parser, command
from serving.host.promoted import Model
from serving.host.runtime import Runtime
from serving.rollout import served_file
from serving.rollout.admission import admit, sha256
from serving.rollout.golden_images import Golden
from serving.rollout.served_file import Served, Table, Version
from serving.torchserve.management import Management, ready

PROMOTED = Path("artifacts/promoted.json")
Step = Callable[[str, Version], str]


def deploy(path: Path, runtime: Runtime | None = None, deadline: float = 90, partly: bool = False) -> list[str]:
    """Serve every model of the `promoted.json` at `path`. When one fails, the server keeps what it served before.

    `runtime`: the running server's folder. Each archive is checked, registered beside the present version, asked for
    its golden images, and only then made the default. The previous versions stay for `rollback`; older ones are
    removed. `deadline`: seconds for the start of one worker. Raises ServingError, which names the model.

    `partly`: serve the models that pass, and return why the others fail. Raises ServingError when none passes.
    """
    runtime = runtime or Runtime()
    models = promoted.read(path).models
    with _alone(runtime):
        management, known = Management(runtime), served_file.read(runtime)
        target: Table = {}
        faults: list[ServingError] = []
        for model in models:
            try:
                target[model.name] = _admit(management, model)
            except ServingError as error:
                faults.append(error)
        if faults and not (partly and target):
            raise faults[0]
        before = known.before if target == known.now else known.now
        faults += _switch(management, Served(target, before), deadline, partly)
        return [str(fault) for fault in faults]


def rollback(runtime: Runtime | None = None, deadline: float = 90) -> None:
    """Serve the versions from before the last change; a second call undoes the first. Raises ServingError."""
    runtime = runtime or Runtime()
    with _alone(runtime):
        known = served_file.read(runtime)
        if not known.before:
            raise ServingError(f"The server in {runtime.folder} has no previous versions, so it cannot roll back.")
        _switch(Management(runtime), Served(known.before, known.now), deadline)


def restore(runtime: Runtime, deadline: float = 90) -> list[str]:
    """Serve the same versions again after the front end was restarted. Returns the reasons for failures."""
    with _alone(runtime):
        known = served_file.read(runtime)
        bring = partial(_bring, Management(runtime), deadline=deadline)
        # The defaults first, because TorchServe makes the first version of a name its default.
        results = [*_each(bring, known.now), *_each(bring, known.before)]
        return [str(each) for each in results if isinstance(each, ServingError)]


@contextmanager
def _alone(runtime: Runtime) -> Iterator[None]:
    runtime.address("management")  # raises ServingError when no server runs
    with (runtime.folder / "deploy.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _admit(management: Management, model: Model) -> Version:
    store = management.runtime.models
    label = model.version
    file = admit(model, label, store).name
    standing = management.versions(model.name).get(label)
    if standing and standing["modelUrl"] != file:
        # A label can be used once only, and its version must stay until the new version answers.
        label = f"{model.version}-{model.sha256[:8]}"
        file = admit(model, label, store).name
    return Version(label, model.method, file)


def _switch(management: Management, wanted: Served, deadline: float, partly: bool = False) -> list[ServingError]:
    """Start the wanted versions. When all answer correctly, switch the defaults, then remove old versions.

    `partly`: versions that fail are left out and returned, as long as one answers.
    """
    runtime = management.runtime
    results = _each(partial(_bring, management, deadline=deadline), wanted.now)
    failed = [each for each in results if isinstance(each, ServingError)]
    if failed and not (partly and len(failed) < len(results)):
        for name in wanted.now:
            _tidy(management, name, served_file.read(runtime))
        raise failed[0]
    sound = zip(wanted.now.items(), results, strict=True)
    wanted = Served({name: v for (name, v), each in sound if not isinstance(each, ServingError)}, wanted.before)
    for name, version in wanted.now.items():
        management.make_default(name, version.version)
    served_file.write(runtime, wanted)
    for line in results:
        if not isinstance(line, ServingError):
            print(line, file=sys.stderr, flush=True)
    for name in management.names():
        _tidy(management, name, wanted)
    files = {version.file for _, version in wanted.all()}
    for path in runtime.models.iterdir():
        if path.name not in files:
            path.unlink()
    return failed


def _each(step: Step, table: Table) -> list[str | ServingError]:
    """Do the step for all names; an error stands in the place of its result."""

    def safely(name: str, version: Version) -> str | ServingError:
        try:
            return step(name, version)
        except ServingError as error:
            return error

    # Two at a time: a worker's start is a second of imports on one core, then mostly waiting.
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(safely, table.keys(), table.values()))


def _bring(management: Management, name: str, version: Version, deadline: float) -> str:
    """Put a version on the server and check its golden images. Raises ServingError."""
    runtime = management.runtime
    begin = time.monotonic()
    try:
        known = version.version in management.versions(name)
        if not known:
            mar = runtime.models / version.file
            if not mar.is_file() or f"{sha256(mar)}.mar" != version.file:
                raise ServingError(f"The archive {mar} is missing or has changed.")
            management.register(name, version.file)
        management.wait(name, version.version, deadline)
        golden = Golden.read(runtime.models / version.file)
        golden.compare(Client.of(runtime), f"{name}/{version.version}")
    except ServingError as error:
        raise ServingError(f"The model {name} cannot be served. {error} The log is {runtime.log}.") from error
    about = f"{name}: version {version.version} ({version.method})"
    return f"{about} is served already." if known else f"{about} is served after {time.monotonic() - begin:.1f} s."


def _tidy(management: Management, name: str, wanted: Served) -> None:
    """Remove the versions of a name that are not wanted, the default last."""
    keep = {version.version for named, version in wanted.all() if named == name}
    default, standing = management.default(name), management.versions(name)
    for version in sorted(standing.keys() - keep, key=lambda each: each == default):
        if ready(standing[version]):
            # Requests that wait for a removed version are never answered. A version answers in order: after one more
            # answer, the earlier requests are done.
            with suppress(ServingError):
                golden = Golden.read(management.runtime.models / standing[version]["modelUrl"])
                golden.compare(Client.of(management.runtime), f"{name}/{version}")
        with suppress(ServingError):  # the server refuses to remove a default while other versions are there
            management.remove(name, version)


def status(runtime: Runtime, path: Path) -> str:
    """One line per name: the version that answers, the one for a rollback, and the promoted one."""
    known, management = served_file.read(runtime), Management(runtime)
    try:
        listed = {model.name: model.version for model in promoted.read(path).models}
    except ServingError:
        listed = {}
    lines = []
    for name in (on := management.names()):
        default = management.default(name)
        found = management.versions(name)
        line = f"{name}: version {default}, {'ready' if default and ready(found[default]) else 'not ready'}"
        if before := known.before.get(name):
            line += f"; previous: version {before.version}"
        if listed.get(name) != default:
            line += f"; promoted: {f'version {listed[name]}' if name in listed else 'nothing'}"
        lines.append(line)
    lines += [f"{name}: not served; promoted: version {version}" for name, version in listed.items() if name not in on]
    return "\n".join(lines) or "Nothing is served."


def main() -> None:
    """The command. Exit status 1: nothing was changed, and a sentence says why."""
    parser = Parser(prog="python -m serving.deploy", description=__doc__)
    word = parser.add_mutually_exclusive_group()
    word.add_argument("--rollback", action="store_true", help="serve the versions from before the last change")
    word.add_argument("--status", action="store_true", help="print what is served, and exit")
    word.add_argument("--rotate", action="store_true", help="make new tokens; the old ones stop working immediately")
    parser.add_argument(
        "--run", type=Path, metavar="FOLDER", help="the folder of the running server (default: serving/run)"
    )
    parser.add_argument(
        "--promoted",
        type=Path,
        default=PROMOTED,
        metavar="FILE",
        help="what to deploy (default: artifacts/promoted.json)",
    )
    given = parser.parse_args()
    runtime = Runtime(given.run) if given.run else Runtime()
    with command():
        if given.rollback:
            rollback(runtime)
        elif given.status:
            print(status(runtime, given.promoted))
        elif given.rotate:
            Management(runtime).rotate("inference")
            Management(runtime).rotate("management")
            print(f"The new tokens are in {runtime.keys}. The old ones stopped working. The API key stays the same.")
        else:
            deploy(given.promoted, runtime)


if __name__ == "__main__":
    main()
