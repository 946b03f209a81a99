"""Studies from their files to their results: make the cells, have them run, decide the claims, write the report."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.estimation.durations import spoken
from pipelines.orchestration import stop
from pipelines.orchestration.run import display
from pipelines.orchestration.stage_process import StageProcess
from pipelines.orchestration.warm.python import WarmPython
from pipelines.project.parse import refused
from pipelines.project.stage import StageError
from pipelines.registry import mlflow_store, provenance
from pipelines.studies import cell, children, finding, page, result, study, tables, workspace
from pipelines.studies.cell import Cells
from pipelines.studies.result import Result
from pipelines.studies.study import Scale, Study

SCALE = "small"  # unless another is asked for


def run(
    python: WarmPython,
    names: Sequence[str],
    scale: str | None,
    dataset: str | None,
    seeds: int | None,
    began: float,
) -> None:
    """The whole of it. names: of studies; none: all. Ends the process with the sentences of what failed."""
    wanted = {name: study.load(name) for name in names or study.names()}
    scales = {name: scale_for(of, scale, dataset) for name, of in wanted.items()}
    if seeds:
        scales = {name: replace(of, seeds=seeds) for name, of in scales.items()}
    cells = {name: cell.cells(name, of, scales[name], dataset) for name, of in wanted.items()}
    if dataset in study.SCALES:
        raise refused("--dataset", dataset, f"another name than those of the scales, {', '.join(study.SCALES)}")
    done, fault = trained(list(cells.values()), python, began)
    if stop.STOPPING.is_set():
        sys.exit("The studies were stopped. Run the same command again to continue.")
    finished = {name: {k: each for k, each in of.items() if each.folder in done} for name, of in cells.items()}
    results = {
        n: measured(n, of, scales[n], finished[n], dataset, scale or SCALE) for n, of in wanted.items() if finished[n]
    }
    for found in results.values():
        found.write()
        print("\n".join(told(found, wanted[found.name])), end="\n\n")
    page.write()
    for name, found in results.items():
        children.record(found, finished[name])
    print(f"The report: {page.PAGE}. {spoken(time.monotonic() - began)} in all.")
    if fault:
        sys.exit(fault)


def scale_for(of: Study, scale: str | None, dataset: str | None) -> Scale:
    """The scale that is asked for, or that of the user's own images."""
    if dataset is None:
        return study.scale_of(of, scale or SCALE)
    return study.own_scale(of, cell.base_params(None, dataset)["promote"]["labels"])


def trained(several: Sequence[Cells], python: WarmPython, began: float) -> tuple[set[Path], str | None]:
    """Run what is not finished, as a Prefect flow. Returns the folders of what is done, and what failed."""
    mlflow_store.connect()  # made once, before several cells speak to it
    from pipelines.orchestration import prefect_server, prefect_study  # noqa: PLC0415 - they import Prefect

    jobs, lacking = [], []
    names: dict[Path, str] = {}  # folder → what its job is called
    every = cell.together(several)
    for place, shared in enumerate({each.images.folder: each.images for each in every}.values(), 1):
        try:
            workspace.make_images(shared)
        except StageError as sentence:  # only its own cells are not run
            lacking.append(str(sentence))
            continue
        names[shared.folder] = f"images {place} ({shared})"
        jobs.append(prefect_study.Job(names[shared.folder], shared.folder, ("prepare",)))
    for each in every:
        needs = [each.images.folder, *(source.parents[3] for source in each.starts_from)]
        if all(folder in names for folder in needs):
            workspace.make(each)
            names[each.folder] = each.title
            upstream = tuple(names[folder] for folder in needs)
            jobs.append(prefect_study.Job(each.title, each.folder, each.targets, upstream))
    prefect_server.start()
    with display([job.name for job in jobs]) as shown:
        shown.began = began
        shown.expect({job.name: 1.0 for job in jobs})  # the time left, as if all took the same time
        flow = prefect_study.Run(jobs, shown, StageProcess(python, shown))
        state = prefect_study.studies(flow, return_state=True)
    faults = [*lacking, *([] if state.is_completed() else [str(state.message)])]
    return flow.done, "\n".join(faults) or None


def measured(name: str, of: Study, scale: Scale, cells: Cells, own: str | None, size: str) -> Result:
    """What the cells found. own: the user's data set, if any; size: the name of the scale."""
    figures = result.figures(of, scale, cells)
    found = finding.findings(of, own or size, figures)
    usual = of.scales[size].seeds if not own and size in of.scales else study.OWN_SEEDS
    more = [f"--seeds {scale.seeds}"] if scale.seeds != usual else []
    judged = [each for (level, _), each in cells.items() if not of.levels[level].source]
    return Result(
        name=name,
        scale=own or size,
        dataset=(judged or list(cells.values()))[0].images.dataset,
        seeds=scale.seeds,
        command=" ".join(["foundry study", name, f"--dataset {own}" if own else f"--scale {size}", *more]),
        commit=provenance.git_commit(),
        machine=result.machine(),
        seconds=result.seconds(cells),
        answer=finding.answer(of, figures, found),
        figures={metric: {level: list(f.values) for level, f in levels.items()} for metric, levels in figures.items()},
        claims=tuple(map(result.judged, found)),
        curves=result.curves(of, scale, cells),
        pictures=result.pictures(of, cells),
    )


def told(found: Result, of: Study) -> list[str]:
    """What a study found, as lines for the terminal."""
    lines = [f"{found.name}: {found.answer}"]
    for row in tables.claims(found.name, of, found):
        lines.append(f"  {row.verdict}: {row.claim}")
        for part in row.parts:
            lines.append(
                f"    {part.better} {part.ours}, {part.worse} {part.theirs}: {part.difference} ({part.interval}); "
                f"smallest difference that matters: {row.smallest}"
            )
        if row.needed:
            lines.append(f"    {row.needed}")
    return lines
