"""Stages work in any environment, or say in one sentence what it lacks: locale, user, proxies, disks, memory."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from serving.host.process import LONGEST, bypass_proxies
from serving.host.runtime import Runtime, settings
from serving.torchserve import ready
from serving.torchserve.ports import free
from tests.pipelines.small_project import Project, environment

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
PROXIES = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"), "http://127.0.0.1:9")
STAGES = ("prepare", "pretrain", "probe", "finetune", "baseline", "register", "export", "promote", "report")


def run(project: Project, *arguments: str, **changed: str) -> "subprocess.CompletedProcess[str]":
    """`python …` in the project, with an environment that differs in this."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=project.root, env=environment() | changed, capture_output=True, text=True,
                          check=False, timeout=300)  # fmt: skip


def stage(work: str, before: str = "") -> tuple[str, str]:
    """A stage that does this, a Python program in one line; before: what comes ahead of it."""
    program = f"{before or 'pass'}; from pipelines.project import stage; stage.run('probe@x', lambda: exec({work!a}))"
    return "-c", program


def mounted(project: Project, mounts: str, *arguments: str, **changed: str) -> "subprocess.CompletedProcess[str]":
    """`python …` in the project, where these shell commands have mounted something that nobody else sees."""
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a file system")
    script = f'{mounts} && cd "$PWD" && exec "$@"'
    command = [unshare, "--mount", "sh", "-c", script, "sh", sys.executable, *arguments]
    return subprocess.run(command, cwd=project.root, env=environment() | changed, capture_output=True, text=True,
                          check=False, timeout=300)  # fmt: skip


@pytest.mark.parametrize("content", [None, "# Größe\n".encode("latin-1")], ids=["missing", "latin-1"])
def test_a_bad_params_file_is_one_sentence_from_every_stage(project: Project, content: bytes | None) -> None:
    path = project.root / "params.yaml"
    path.unlink() if content is None else path.write_bytes(content)
    program = (
        "import runpy, sys, warnings; warnings.simplefilter('ignore')\n"
        f"for stage in {STAGES}:\n"
        "    item = {'prepare': [], 'promote': [], 'report': [], 'baseline': ['supervised']}.get(stage, ['simclr'])\n"
        "    sys.argv = [stage, *item]\n"
        "    try: runpy.run_module(f'pipelines.{stage}', run_name='__main__')\n"
        "    except SystemExit as end: print(end.code)"
    )
    done = run(project, "-c", program)
    sentence = "params.yaml is missing" if content is None else "params.yaml is not UTF-8: line 1"
    lines = done.stderr.splitlines()
    assert [line.split(": ")[0].split("@")[0] for line in lines] == list(STAGES)
    assert all(sentence in line for line in lines), lines
    assert done.stdout.split() == ["1"] * len(STAGES)


def test_what_an_ascii_terminal_lacks_is_replaced(project: Project) -> None:
    done = run(project, *stage("import sys; print('86 ± 2'); print('größer', file=sys.stderr)"), **ASCII)
    assert (done.returncode, done.stdout, done.stderr) == (0, "86 ? 2\n", "gr??er\n")


def test_an_ascii_locale_knows_folders_with_accents(project: Project) -> None:
    """SQLite, and with it MLflow's store, takes names in UTF-8 only."""
    accented = Project(project.root.rename(project.root.with_name("größer")))
    work = "import mlflow; mlflow.set_tracking_uri('sqlite:///mlflow.db'); print(mlflow.get_experiment('0').name)"
    done = run(accented, *stage(f"import pathlib; pathlib.Path('ü').mkdir(); {work}"), **ASCII)
    assert (done.returncode, done.stdout) == (0, "Default\n"), done.stderr
    assert (accented.root / "ü").is_dir()


def test_an_ascii_locale_reads_and_writes_the_same_files(project: Project) -> None:
    (project.root / "params.yaml").write_bytes("# Größe ± 2\n".encode() + (project.root / "params.yaml").read_bytes())
    done = run(project, "-m", "pipelines.prepare", **ASCII)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize(
    ("given", "all_hosts"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "a.org"}, "a.org,127.0.0.1,localhost,::1"),
        ({"no_proxy": "::1, b.org"}, "::1,b.org,127.0.0.1,localhost"),
        ({"NO_PROXY": "*", "no_proxy": "*"}, "*"),
    ],
)
def test_hosts_that_go_around_the_proxy_are_kept_and_ours_added(given: dict[str, str], all_hosts: str) -> None:
    for _ in range(2):
        bypass_proxies(given)
        assert given == {"NO_PROXY": all_hosts, "no_proxy": all_hosts}


def test_a_stage_reaches_servers_of_this_machine_behind_a_proxy(project: Project) -> None:
    address = settings(free())["ready_address"]
    work = f"import urllib.request, requests, httpx; a = {address + '/metrics'!r}; print(urllib.request.urlopen(a)"
    work += ".read(), requests.get(a).content, httpx.get(a).content)"
    with ready.serve(address, dict, lambda: b"found"):
        done = run(project, *stage(work), **PROXIES)
    assert done.stdout == "b'found' b'found' b'found'\n", done.stderr


def test_the_flow_that_watches_for_drift_works_behind_a_proxy(project: Project) -> None:
    """Prefect's own server and ours are both on this machine."""
    runtime = Runtime(project.root / "serving" / "run")
    runtime.folder.mkdir()
    ports = free()
    runtime.config.write_text(ports, encoding="utf-8")
    runtime.keys.write_text("{}", encoding="utf-8")
    metrics = b'# TYPE encoder_drift gauge\nencoder_drift{model="digits-encoder",version="1"} 0.5\n'
    with ready.serve(settings(ports)["ready_address"], dict, lambda: metrics):
        done = run(project, "-m", "pipelines.drift", **PROXIES)
    assert (done.returncode, done.stdout) == (0, "digits-encoder version 1: drift 0.50 (allowed: up to 1)\n"), (
        done.stderr
    )


def test_a_user_without_a_name_has_one_for_the_tools(project: Project) -> None:
    """As in `docker run --user 12345`: the password file does not know the user, and there is no home."""
    if os.getuid():
        pytest.skip("only root can become another user")
    for folder in (project.root, *project.root.parents[:3]):
        os.chmod(folder, 0o755)
    (project.root / ".scratch").mkdir()
    os.chown(project.root / ".scratch", 12345, 12345)
    names = ("USER", "LOGNAME", "LNAME", "USERNAME", "HOME")
    # What is imported is imported as root: the interpreter may be where nobody else can read.
    before = "import os, torch._inductor.runtime.cache_dir_utils as t, mlflow.tracking.context.default_context as m"
    before += "; from pipelines.project import stage"
    before += f"; [os.environ.pop(name, None) for name in {names}]; os.setuid(12345)"
    work = (
        "import getpass, pathlib; print(getpass.getuser(), m._get_user(), t.default_cache_dir(), pathlib.Path.home())"
    )
    done = run(project, *stage(work, before))
    assert done.stdout == "uid-12345 uid-12345 /tmp/torchinductor_uid-12345 /tmp\n", done.stderr


def test_a_checkout_of_another_user_is_one_sentence(project: Project) -> None:
    if os.getuid():
        pytest.skip("only root can become another user")
    for folder in (project.root, *project.root.parents[:3]):
        os.chmod(folder, 0o755)
    done = run(project, *stage("print('done')", "import os; from pipelines.project import stage; os.setuid(12345)"))
    sentence = "probe@x: The path .scratch is denied to user 12345. Change its permissions, or use another folder.\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence)


READ_ONLY = 'mount --bind "$PWD" "$PWD" && mount -o remount,ro,bind "$PWD"'


@pytest.mark.parametrize("module", ["pipelines.prepare", "serving.server", "serving.app"])
def test_a_read_only_checkout_is_one_sentence(project: Project, module: str) -> None:
    model = {"name": "digits-encoder", "method": "simclr", "version": "1", "archive": "x.mar", "sha256": "0"}
    promoted = {"dataset": "digits", "champion": "simclr", "models": [model]}
    (project.root / "artifacts").mkdir(exist_ok=True)
    (project.root / "artifacts" / "promoted.json").write_text(json.dumps(promoted), encoding="utf-8")
    done = mounted(project, READ_ONLY, "-m", module)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "cannot be written: the file system is read-only. Run from a copy that you may write." in done.stderr


SMALL_DISK = "mkdir -p small && mount -t tmpfs -o size=64k tmpfs small"
WRITERS = {
    "a file": "open('small/x', 'wb').write(bytes(10**6))",
    "a temporary file": "import tempfile; tempfile.NamedTemporaryFile().write(bytes(10**6))",
    "NumPy": "import numpy as np; np.save('small/x.npy', np.zeros(10**6))",
    "torch": "import torch; torch.save(torch.zeros(10**6), 'small/x.pt')",
    "safetensors": "import torch, safetensors.torch as s; s.save_file({'x': torch.zeros(10**6)}, 'small/x.st')",
    "SQLite": "import sqlite3; c = sqlite3.connect('small/x.db'); c.execute('create table t (b)'); "
    "c.execute('insert into t values (zeroblob(1000000))'); c.commit()",
    "matplotlib": "import os, shutil, matplotlib.pyplot as plt; plt.figure().savefig('small/x.png', dpi=2000)",
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_sentence_that_names_folders(project: Project, writer: str) -> None:
    done = mounted(project, SMALL_DISK, *stage(WRITERS[writer]), TMPDIR=str(project.root / "small"))
    last = done.stderr.splitlines()[-1]
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert last.startswith("probe@x: "), last
    assert "he disk is full" in last, last
    assert f"{project.root / 'small'}, for temporary files, has 0 MB" in last
    assert "set TMPDIR to a folder with more space" in last


def test_memory_that_is_not_there_is_one_sentence(project: Project) -> None:
    for work in ("import torch; torch.empty(2**50)", "import numpy as np; np.ones(2**50)"):
        done = run(project, *stage(work))
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert done.stderr.startswith("probe@x: There is not enough memory (")


def test_a_network_that_is_larger_than_the_memory_is_one_sentence(project: Project) -> None:
    project.set({"mae.decoder_dim": 8192, "mae.decoder_depth": 128})  # 412 GB of weights, each number as allowed
    done = run(project, "-m", "pipelines.pretrain", "mae")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith("pretrain@mae: The network of mae needs 1,650 GB of memory, and this machine has ")


def test_a_fault_of_ours_keeps_its_traceback(project: Project) -> None:
    done = run(project, *stage("{}['key']"))
    assert done.stderr.splitlines()[-1] == "KeyError: 'key'"


def test_a_long_path_of_the_temporary_folder_works(project: Project) -> None:
    long = project.root / ("t" * LONGEST)
    long.mkdir()
    done = run(project, "-m", "pipelines.prepare", TMPDIR=str(long))  # its pool of processes has a socket there
    assert done.returncode == 0, done.stderr
    done = run(project, *stage("import tempfile; print(len(tempfile.mkdtemp()))"), TMPDIR=str(long))
    assert int(done.stdout) < LONGEST
    assert [path.name[:3] for path in long.iterdir()] == ["tmp"]  # it is where the user wants it, and nothing is left


def test_a_missing_temporary_folder_is_said_and_another_taken(project: Project) -> None:
    done = run(project, *stage("import os; print(os.environ['TMPDIR'])"), TMPDIR="/nowhere")
    sentence = "TMPDIR is /nowhere, but no file can be written there. Temporary files go to /tmp.\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "/tmp\n", sentence)
