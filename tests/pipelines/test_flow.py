"""The flow's view of DVC's graph, what it says before it starts, and how it stops."""

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from typing import Any

import psutil
import pytest

from pipelines.orchestration import dvc_graph
from pipelines.project import stage
from tests.pipelines.conftest import write_digits
from tests.pipelines.small_project import METHODS, Project, environment, make

READ = ("-m", "pipelines.orchestration.dvc_graph")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which nothing has run."""
    return make(tmp_path_factory.mktemp("fresh"))


def test_the_nodes_are_those_of_dvc_dag_each_after_what_it_waits_for(fresh: Project) -> None:
    nodes = dvc_graph.parsed(fresh.run(*READ).stdout.splitlines()[-1])
    dot = fresh.dvc("dag", "report", "--dot").stdout
    edges = set(re.findall(r'^"?([^"\s]+)"? -> "?([^"\s;]+)"?;?$', dot, re.MULTILINE))
    assert {(up, node.address) for node in nodes for up in node.upstream} == edges
    order = [node.address for node in nodes]
    assert set(order) == {end for edge in edges for end in edge}
    assert all(order.index(up) < order.index(address) for up, address in edges)
    assert [node.name for node in nodes] == [address.rsplit(":", 1)[-1] for address in order]
    assert [node.name for node in nodes if node.unchanged] == ["settings"]  # brought up to date by reading


def test_the_interpreter_of_the_flow_runs_the_stages_whatever_is_first_on_the_path(fresh: Project) -> None:
    (fresh.root / "artifacts/settings.yaml").unlink()
    bare = environment() | {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, *READ], cwd=fresh.root, env=bare, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (fresh.root / "artifacts/settings.yaml").is_file()


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_ctrl_c_is_for_the_flow_not_for_its_stages_whatever_shell_starts_them(fresh: Project, shell: str) -> None:
    """A stage that imports would end in a traceback. DVC starts it through $SHELL, and dash unblocks every signal."""
    graph = (fresh.root / "dvc.yaml").read_text()
    hears = "stages:\n  hears:\n    cmd: grep SigIgn /proc/self/status >> heard\n    always_changed: true\n"
    (fresh.root / "dvc.yaml").write_text(graph.replace("stages:\n", hears, 1))
    program = (
        f"import os; os.environ['SHELL'] = {shell!r}\n"
        "from pipelines.orchestration.stage_process import environment\n"
        "from pipelines.orchestration.warm.python import WarmPython\n"
        "dvc = ('pipelines.orchestration.dvc_process', 'repro', '--single-item', 'hears')\n"
        "child = WarmPython(environment()).start(*dvc)\n"
        "print(*child.lines(), child.wait())"
    )
    done = fresh.run("-c", program)
    (fresh.root / "dvc.yaml").write_text(graph)
    heard = (fresh.root / "heard").read_text()
    (fresh.root / "heard").unlink()
    (ignored,) = re.findall(r"^SigIgn:\s*(\w+)$", heard, re.MULTILINE)
    assert int(ignored, 16) >> signal.SIGINT - 1 & 1, done.stdout + done.stderr


def test_ctrl_c_while_a_child_is_started_is_not_lost(fresh: Project) -> None:
    """Whichever thread of the flow takes the signal."""
    program = (
        "import os, signal, threading; from pipelines.orchestration import stop; stop.install()\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "with stop.deaf_children(): os.kill(os.getpid(), signal.SIGINT)\n"
        "print('lost')"
    )
    done = fresh.run("-c", program)
    assert (done.returncode, done.stdout) == (130, "")


def test_a_record_of_locks_that_a_killed_dvc_left_half_written_stops_nothing(fresh: Project) -> None:
    record = fresh.root / ".dvc" / "tmp" / "rwlock"
    record.parent.mkdir(exist_ok=True)
    for command in (READ, ("-m", "pipelines.orchestration.dvc_process", "status")):
        record.write_text('{"write": {}, "read": {"a": [{"pid"')
        done = fresh.run(*command)
        assert done.returncode == 0, done.stderr


def test_a_dvc_that_is_asked_to_end_ends_its_stage_first_and_then_in_order(project: Project) -> None:
    """Before, half a dvc.lock could be left."""
    project.set({"pretrain.checkpoint_minutes": 0.0, "simclr.epochs": 10_000})
    assert project.dvc("repro", "--single-item", "settings").returncode == 0
    dvc = project.start("-m", "pipelines.orchestration.dvc_process", "repro", "--single-item", "pretrain@simclr")
    assert dvc.stdout
    assert dvc.stderr
    for line in dvc.stderr:
        if re.match(r"pretrain@simclr [\d,]+/[\d,]+ images · ", line):
            break
    dvc.terminate()
    _, printed = dvc.communicate(timeout=60)
    assert re.search(
        r"^pretrain@simclr: Stopped at step \d+\. Run the same command to resume\.$", printed, re.MULTILINE
    )
    assert "ERROR: failed to reproduce 'pretrain@simclr'" in printed  # DVC had the last word
    assert dvc.returncode == 255
    assert json.loads((project.root / ".dvc" / "tmp" / "rwlock").read_text()) == {}


def test_a_broken_graph_is_one_sentence(fresh: Project) -> None:
    good = (fresh.root / "dvc.yaml").read_text()
    try:
        (fresh.root / "dvc.yaml").write_text(good.replace("stages:", "stage:"))
        done = fresh.flow()
    finally:
        (fresh.root / "dvc.yaml").write_text(good)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "dvc.yaml" in done.stderr


def test_a_data_set_that_is_not_here_is_one_sentence(fresh: Project) -> None:
    fresh.set({"dataset": "nowhere", "download": []})
    done = fresh.flow()
    fresh.set({"dataset": "digits", "download": ["digits"]})
    assert done.returncode == 1
    assert done.stderr.startswith(
        "The folder data/raw/nowhere is missing. Name a folder: python -m pipelines.flow FOLDER. "
    )
    assert done.stderr.count("\n") == 1


def test_a_record_without_its_folder_names_the_commands(fresh: Project) -> None:
    fresh.set({"dataset": "photos", "download": []})
    record = fresh.root / "data" / "raw" / "photos.dvc"
    record.write_text("outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  hash: md5\n  path: photos\n")
    done = fresh.flow()
    record.unlink()
    fresh.set({"dataset": "digits", "download": ["digits"]})
    assert done.returncode == 1
    assert "Run: dvc checkout data/raw/photos, or dvc pull data/raw/photos.dvc." in done.stderr


def test_a_stage_of_the_users_may_make_the_images(fresh: Project) -> None:
    graph = (fresh.root / "dvc.yaml").read_text()
    collect = "stages:\n  collect:\n    cmd: mkdir -p data/raw/mine\n    outs: [data/raw/mine]\n"
    (fresh.root / "dvc.yaml").write_text(graph.replace("stages:\n", collect, 1))
    fresh.set({"dataset": "mine", "download": []})
    program = "from pipelines.orchestration import dvc_graph, run; "
    done = fresh.run("-c", program + "run.check_images('mine', dvc_graph.read())")
    (fresh.root / "dvc.yaml").write_text(graph)
    fresh.set({"dataset": "digits", "download": ["digits"]})
    assert done.returncode == 0, done.stderr


def test_a_second_flow_waits_for_the_first(project: Project) -> None:
    project.set({"dataset": "nowhere", "download": []})
    with contextlib.chdir(project.root), stage.locked("flow"):
        second = project.start("-m", "pipelines.flow")
        assert second.stderr is not None
        assert second.stderr.readline().startswith("Another process is running flow; ")
    _, printed = second.communicate(timeout=120)
    assert printed.startswith("The folder data/raw/nowhere is missing.")


def training(project: Project) -> "subprocess.Popen[str]":
    """A flow, when a method trains."""
    logs = [project.root / ".scratch" / "logs" / f"pretrain@{method}.log" for method in METHODS]
    for log in logs:
        log.unlink(missing_ok=True)
    process = project.start("-m", "pipelines.flow")
    command = ["tail", "-q", "-F", *map(str, logs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as tail:
        assert tail.stdout is not None
        for line in tail.stdout:
            if re.match(r"pretrain@\w+ [\d,]+/[\d,]+ images · ", line):
                break
        tail.kill()
    return process


def test_a_flow_that_is_killed_or_stopped_leaves_nothing_that_runs(project: Project) -> None:
    """SIGKILL, then SIGTERM to the one process that was started, as docker stop, systemd and SLURM do, then Ctrl-C."""
    write_digits(project.root / "data" / "raw" / "mine", 120, labelled=True)
    project.set({"dataset": "mine", "download": [], **{f"{m}.epochs": 10_000 for m in METHODS}})
    killed = training(project)
    killed.kill()
    killed.wait()
    for pipe in (killed.stdout, killed.stderr):  # which the server that is left still holds: they never end
        assert pipe is not None
        pipe.close()
    left = psutil.Process(int((project.root / ".scratch" / "prefect-server.pid").read_text()))
    states = "select state_name from flow_run order by created"
    assert rows(project, ".prefect/prefect.db", states) == [("Running",)]
    for count, number in enumerate((signal.SIGTERM, signal.SIGINT), 1):
        process = training(project)
        assert not left.is_running()
        stages = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        printed, errors = process.communicate(timeout=90)
        assert process.returncode == 128 + number, printed + errors
        assert ("Ended the Prefect server that a killed flow had left." in errors) == (count == 1)
        assert re.search(r" pretrain@\w+ +stopped in \d+ s · [Ss]topped at step \d+", printed)
        assert errors.endswith("Stopped. Run the same command again to continue.\n")
        assert "Traceback" not in printed + errors
        assert list((project.root / ".scratch" / "pretrain").glob("*/step-*"))
        assert not psutil.wait_procs(stages, timeout=30)[1]
        assert rows(project, ".prefect/prefect.db", states) == [("Crashed",)] * (1 + count)
        ended = "select count(*) from task_run where state_name in ('Running', 'Pending', 'Scheduled')"
        first = " and flow_run_id = (select id from flow_run order by created limit 1)"
        assert rows(project, ".prefect/prefect.db", ended + first) == [(0,)]
        assert ("Running",) not in rows(project, ".prefect/prefect.db", "select state_name from task_run")
        assert {("KILLED",)} >= set(rows(project, "mlflow.db", "select status from runs"))


def test_a_prefect_server_that_does_not_answer_is_one_sentence(project: Project) -> None:
    project.set({"download": []})
    address = "import os; os.environ['PREFECT_API_URL'] = 'http://127.0.0.1:9/api'"
    done = project.run("-c", f"{address}\nfrom pipelines import flow; flow.main()")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "Prefect's server does not answer: PREFECT_API_URL is http://127.0.0.1:9/api (ConnectError). Start it, correct "
        "the address, or unset it."
    )
    assert "Traceback" not in done.stderr


def rows(project: Project, file: str, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(project.root / file) as database:
        return database.execute(query).fetchall()
