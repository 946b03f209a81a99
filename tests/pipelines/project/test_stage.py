"""A stage ends with its parent, works alone, and fails with one sentence."""

import os
import subprocess
import sys

from pipelines.project.stage import FLOW
from tests.pipelines.small_project import Project

WAITS = "print('ready', flush=True); signal.pause()"
CHILD = f"import signal; from pipelines.project import stage; stage.run('probe@x', lambda: exec({WAITS!r}))"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"
HOLDS = "print('ready', flush=True); sys.stdin.readline(); print('first', flush=True)"
SECONDS = 60


def popen(project: Project, program: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=project.root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_stage_dies_when_its_parent_is_killed(project: Project) -> None:
    parent = popen(project, PARENT)
    assert parent.stdout
    assert parent.stdout.readline() == "ready\n"
    parent.kill()
    parent.communicate(timeout=SECONDS)  # the pipe ends only when the stage, which has it too, is gone


def test_a_stage_whose_flow_died_while_it_started_does_nothing(project: Project) -> None:
    (flow := project.start("-c", "")).communicate()
    for pid, printed in ((flow.pid, ""), (os.getpid(), "done\n")):
        program = f"import os; os.environ['{FLOW}'] = '{pid}'; from pipelines.project import stage; "
        done = project.run("-c", program + "stage.run('x', lambda: print('done'))")
        assert (done.returncode, done.stdout, done.stderr) == (int(not printed), printed, "")


def test_a_second_one_of_the_same_name_waits_aloud(project: Project) -> None:
    stage = "import sys; from pipelines.project import stage; stage.run('probe@x', lambda: exec({!r}))"
    first = popen(project, stage.format(HOLDS))
    assert first.stdin
    assert first.stdout
    assert first.stdout.readline() == "ready\n"
    second = popen(project, stage.format("print('second')"))
    assert second.stderr
    assert second.stderr.readline() == "Another process is running probe@x; waiting for it to finish.\n"
    assert second.poll() is None
    first.stdin.write("\n")
    first.stdin.flush()
    assert first.stdout.readline() == "first\n"
    assert second.communicate(timeout=SECONDS)[0] == "second\n"
    assert second.returncode == 0
    first.communicate(timeout=SECONDS)


def test_what_people_can_mend_is_one_sentence(project: Project) -> None:
    (project.root / "params.yaml").write_text("dataset: [\n")
    done = project.run("-m", "pipelines.prepare")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("prepare: The file params.yaml is not YAML: ")
