"""Make a running server serve what is promoted, or what it served before; harmless when done twice."""

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
    """Serve every model of the `promoted.json` at `path`: all of them, or, when one fails, what was served before.

    `runtime` is the running server's folder. Each archive is checked, registered beside what answers, asked for
    its golden images, and only then made the default. The versions that answered before stay, for `rollback`; older
    ones go. `deadline` is in seconds, for one worker's start. Raises ServingError, which names the model.

    `partly`: serve those that pass, and return why the others fail; ServingError when none passes.
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
    """Serve what was served before the last change; twice leads back. Raises ServingError when there is nothing."""
    runtime = runtime or Runtime()
    with _alone(runtime):
        known = served_file.read(runtime)
        if not known.before:
            raise ServingError(f"The server in {runtime.folder} served nothing before; there is no way back.")
        _switch(Management(runtime), Served(known.before, known.now), deadline)


def restore(runtime: Runtime, deadline: float = 90) -> list[str]:
    """After the front end was started anew: serve exactly what was served. Returns why, where that failed."""
    with _alone(runtime):
        known = served_file.read(runtime)
        bring = partial(_bring, Management(runtime), deadline=deadline)
        # The defaults first: TorchServe makes a name's first version its default, and the others can wait.
        results = [*_each(bring, known.now), *_each(bring, known.before)]
        return [str(each) for each in results if isinstance(each, ServingError)]


@contextmanager
def _alone(runtime: Runtime) -> Iterator[None]:
    runtime.address("management")  # is there a server?
    with (runtime.folder / "deploy.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _admit(management: Management, model: Model) -> Version:
    store = management.runtime.models
    label = model.version
    file = admit(model, label, store).name
    standing = management.versions(model.name).get(label)
    if standing and standing["modelUrl"] != file:
        # A label can stand there once only, and what answers under it must not go before its successor answers.
        label = f"{model.version}-{model.sha256[:8]}"
        file = admit(model, label, store).name
    return Version(label, model.method, file)


def _switch(management: Management, wanted: Served, deadline: float, partly: bool = False) -> list[ServingError]:
    """Bring up what is wanted, and when all of it answers rightly switch the defaults, then tidy up.

    `partly`: what fails is left out and returned, as long as something answers.
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
    """Do it for all, and give an error in its place."""

    def safely(name: str, version: Version) -> str | ServingError:
        try:
            return step(name, version)
        except ServingError as error:
            return error

    # Two at a time: a worker's start is a second of imports on one core, then mostly waiting.
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(safely, table.keys(), table.values()))


def _bring(management: Management, name: str, version: Version, deadline: float) -> str:
    """Have a version on the server that answers its golden images rightly. Raises ServingError."""
    runtime = management.runtime
    begin = time.monotonic()
    try:
        known = version.version in management.versions(name)
        if not known:
            mar = runtime.models / version.file
            if not mar.is_file() or f"{sha256(mar)}.mar" != version.file:
                raise ServingError(f"{mar} is missing or has changed")
            management.register(name, version.file)
        management.wait(name, version.version, deadline)
        golden = Golden.read(runtime.models / version.file)
        golden.compare(Client.of(runtime), f"{name}/{version.version}")
    except ServingError as error:
        raise ServingError(f"{name} cannot be served: {str(error).rstrip('.')}; see {runtime.log}.") from error
    about = f"{name}: version {version.version} ({version.method})"
    return f"{about} was served already" if known else f"{about} serves after {time.monotonic() - begin:.1f} s"


def _tidy(management: Management, name: str, wanted: Served) -> None:
    """Take away the versions of a name that are not wanted, the default last."""
    keep = {version.version for named, version in wanted.all() if named == name}
    default, standing = management.default(name), management.versions(name)
    for version in sorted(standing.keys() - keep, key=lambda each: each == default):
        if ready(standing[version]):
            # Requests that wait for a version are never answered once it is gone. It answers in order: when it
            # has answered once more, those before are done.
            with suppress(ServingError):
                golden = Golden.read(management.runtime.models / standing[version]["modelUrl"])
                golden.compare(Client.of(management.runtime), f"{name}/{version}")
        with suppress(ServingError):  # the server keeps a default that is not alone
            management.remove(name, version)


def status(runtime: Runtime, path: Path) -> str:
    """A line for every name: what answers, what stands beside it for a rollback, what is promoted."""
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
            line += f"; before: version {before.version}"
        if listed.get(name) != default:
            line += f"; promoted: {f'version {listed[name]}' if name in listed else 'nothing'}"
        lines.append(line)
    lines += [f"{name}: not served; promoted: version {version}" for name, version in listed.items() if name not in on]
    return "\n".join(lines) or "Nothing is served."


def main() -> None:
    """One word at most; status 1 and one sentence when the server goes on as before."""
    parser = Parser(prog="python -m serving.deploy", description=__doc__)
    word = parser.add_mutually_exclusive_group()
    word.add_argument("--rollback", action="store_true", help="serve what was served before the last change")
    word.add_argument("--status", action="store_true", help="say what is served, and end")
    word.add_argument("--rotate", action="store_true", help="new tokens; the old ones are worth nothing at once")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="folder of the running server")
    parser.add_argument("--promoted", type=Path, default=PROMOTED, metavar="FILE", help="what is promoted")
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
            print(
                f"The tokens are new, in {runtime.keys}; the old ones are refused. The API key stays until a restart."
            )
        else:
            deploy(given.promoted, runtime)


if __name__ == "__main__":
    main()
