"""Studies from their files to their results: make the cells, have them run, decide the claims, write the report."""

import sys
import time
from collections.abc import Sequence

from pipelines.orchestration.run import display
from pipelines.orchestration.stage_process import StageProcess
from pipelines.orchestration.warm.python import WarmPython
from pipelines.registry import mlflow_store, provenance
from pipelines.studies import cell, children, finding, page, result, study, workspace
from pipelines.studies.cell import Cells
from pipelines.studies.result import Result
from pipelines.studies.study import Scale, Study

SCALE = "small"  # unless another is asked for


def run(python: WarmPython, names: Sequence[str], scale: str | None, dataset: str | None, began: float) -> None:
    """The whole of it. names: of studies; none: all. Ends the process with the sentences of what failed."""
    wanted = {name: study.load(name) for name in names or study.names()}
    scales = {name: scale_for(of, scale, dataset) for name, of in wanted.items()}
    cells = {name: cell.cells(name, of, scales[name], dataset) for name, of in wanted.items()}
    fault = trained(list(cells.values()), python, began)
    kind = dataset or scale or SCALE
    for name, of in wanted.items():
        found = measured(name, of, scales[name], cells[name], kind)
        found.write()
        children.record(found, cells[name])
        print("\n".join(said(found)), end="\n\n")
    page.write()
    print(f"The report: {page.PAGE}. {time.monotonic() - began:.0f} s in all.")
    if fault:
        sys.exit(fault)


def scale_for(of: Study, scale: str | None, dataset: str | None) -> Scale:
    """The scale that is asked for, or that of the user's own images."""
    if dataset is None:
        return study.scale_of(of, scale or SCALE)
    return study.own_scale(of, cell.base_params(None, dataset)["promote"]["labels"])


def trained(several: Sequence[Cells], python: WarmPython, began: float) -> str | None:
    """Run what is not finished, as a Prefect flow. Returns the sentences of what failed."""
    mlflow_store.connect()  # made once, before several cells speak to it
    from pipelines.orchestration import prefect_server, prefect_study  # noqa: PLC0415 - they import Prefect

    every = cell.together(several)
    images = {each.images.folder: each.images for each in every}
    jobs = []
    for folder, shared in images.items():
        workspace.make_images(shared)
        jobs.append(prefect_study.Job(str(shared), folder, ("prepare",)))
    titles = {each.folder: each.title for each in every}
    for each in every:
        workspace.make(each)
        needs = [titles[source.parents[3]] for source in each.starts_from]
        upstream = (str(each.images), *needs)
        jobs.append(prefect_study.Job(each.title, each.folder, each.targets, upstream))
    prefect_server.start()
    with display([job.name for job in jobs]) as shown:
        shown.began = began
        shown.expect({job.name: 1.0 for job in jobs})  # the time left, as if all took the same time
        state = prefect_study.studies(prefect_study.Run(jobs, shown, StageProcess(python, shown)), return_state=True)
    return None if state.is_completed() else str(state.message)


def measured(name: str, of: Study, scale: Scale, cells: Cells, kind: str) -> Result:
    """What the cells found. kind: of the run: a scale, or the user's data set."""
    figures = result.figures(of, scale, cells)
    first = next(iter(figures), of.metrics[0])
    found = finding.findings(of, first, figures)
    option = f"--scale {kind}" if kind in study.SCALES else f"--dataset {kind}"
    return Result(
        name=name,
        scale=kind,
        dataset=next(iter(cells.values())).images.dataset,
        seeds=scale.seeds,
        command=f"foundry study {name} {option}",
        commit=provenance.git_commit(),
        machine=result.machine(),
        seconds=result.seconds(cells),
        answer=finding.answer(of, first, figures.get(first, {})),
        figures={metric: {level: list(f.values) for level, f in levels.items()} for metric, levels in figures.items()},
        claims=tuple(map(result.judged, found)),
        curves=result.curves(of, scale, cells),
        pictures=result.pictures(cells),
    )


def said(found: Result) -> list[str]:
    """What a study found, as lines for the terminal."""
    lines = [f"{found.name}: {found.answer}"]
    for claim in found.claims:
        lines.append(f"  {claim.verdict}: {claim.claim}")
        for part in claim.parts:
            gain = (part.low + part.high) / 2
            lines.append(
                f"    {claim.better} {part.ours:.1f}, {part.worse} {part.theirs:.1f}; in favour of the claim "
                f"{gain:+.1f} (95 % interval {part.low:+.1f} to {part.high:+.1f}), smallest that matters {claim.by:g}"
            )
        if claim.needed:
            lines.append(f"    {claim.needed}")
    return lines
