"""The commands of `foundry`, their options and their help. What a command does is imported when it runs."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.command_line import choices, module, project
from serving.host.command import command

app = typer.Typer(
    help="From a folder of unlabelled images to a served encoder.",
    epilog="First time here? Run: foundry doctor, then: foundry run",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# How the name of a recipe and those of studies are checked and completed.
RECIPE: dict[str, Any] = {"metavar": "NAME", "callback": choices.recipe, "autocompletion": choices.complete_recipe}
STUDY: dict[str, Any] = {"metavar": "NAME…", "callback": choices.studies, "autocompletion": choices.complete_study}


def start(arguments: Sequence[str]) -> int:
    """Do what the command line says, and return the exit code. A wrong argument is one sentence and 2."""
    project.hand_over(arguments)
    try:
        return app(args=list(arguments) or ["--help"], prog_name="foundry", standalone_mode=False) or 0
    except typer.TyperException as error:
        said = error.format_message()
        said = said if said.endswith((".", "?")) else f"{said}."
        context = getattr(error, "ctx", None)
        print(f"{said} For help: {context.command_path if context else 'foundry'} --help", file=sys.stderr)
        return int(getattr(error, "exit_code", 2))


@app.command("run", epilog="Example: foundry run ~/photos --recipe photos")
def run_pipeline(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", help="Your images. Without it: the data set that params.yaml names."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="The recipe that becomes params.yaml. For a FOLDER: photos.", **RECIPE)
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to call the data set. Without it: the folder's name.")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="The methods to pretrain, separated by commas.",
            callback=choices.methods,
            autocompletion=choices.complete_methods,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value of params.yaml, such as seeds=3. Repeatable."),
    ] = None,
) -> None:
    """Run the pipeline on a folder of images.

    It pretrains encoders, evaluates them, registers them and checks the endpoint. Finished stages are skipped.
    After a stop or a crash, run the same command again: training resumes.
    """
    module.become("pipelines.flow", context)


@app.command(epilog="Example: foundry estimate --recipe imagenet-vit-base --gpus 8")
def estimate(
    context: typer.Context,
    recipe: Annotated[
        str | None, typer.Option(help="The recipe to estimate. Without it: params.yaml.", **RECIPE)
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="How many GPUs; 0: this machine's CPU, measured.")
    ] = None,
    gpu: Annotated[str | None, typer.Option(metavar="NAME", help="The kind of GPU, such as A100 or H100.")] = None,
    teraflops: Annotated[
        float | None, typer.Option(metavar="X", help="The dense bf16 peak of a GPU that is not known, in TFLOP/s.")
    ] = None,
    utilisation: Annotated[
        float | None, typer.Option(metavar="SHARE", help="The share of the peak that training reaches, such as 0.35.")
    ] = None,
    images: Annotated[int | None, typer.Option(min=1, metavar="N", help="How many images to train on.")] = None,
) -> None:
    """Estimate time, memory and disk of a run."""
    module.become("pipelines.estimate", context, positional=("recipe",))


@app.command(epilog="Example: foundry recipes imagenet-vit-base")
def recipes(
    name: Annotated[str | None, typer.Argument(help="Show everything about this recipe.", **RECIPE)] = None,
) -> None:
    """List the recipes and what they need."""
    from pipelines.command_line import recipes as page  # noqa: PLC0415

    with command():
        page.show(name)


@app.command(epilog="Example: foundry status")
def status() -> None:
    """Show what is here and what is running.

    Lists the data set, the stages that are finished or changed, the champion, the endpoint and the disk use.
    """
    from pipelines.command_line import status as page  # noqa: PLC0415

    with command():
        project.enter()
        page.show()


@app.command(epilog="Example: foundry study M1 --dataset photos")
def study(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(help="Studies, such as S1. Without a name: list them.", **STUDY)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Run every study.")] = False,
    scale: Annotated[
        str | None, typer.Option(metavar="NAME", help="quick, small or gpu. Without it: small.", callback=choices.scale)
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Your own images, those of data/raw/NAME, instead of a scale.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, metavar="N", help="Training runs per level.")] = None,
) -> None:
    """Test the findings of the papers.

    Each claim gets a verdict: HOLDS, DOES NOT HOLD or UNDERPOWERED. The results are in studies/report.html.
    After a stop, run the same command again: it skips finished runs.
    """
    module.become("pipelines.studies", context)


@app.command(epilog="Example: foundry report --print-path")
def report(
    print_path: Annotated[bool, typer.Option("--print-path", help="Print where the report is; open nothing.")] = False,
) -> None:
    """Open the report in your browser.

    Without a browser, the command prints where the report is.
    """
    from pipelines.command_line import report_page  # noqa: PLC0415

    with command():
        project.enter()
        report_page.show(print_path)


@app.command(epilog="Example: foundry ui")
def ui(context: typer.Context) -> None:
    """Show MLflow and Prefect as web pages.

    MLflow is at http://127.0.0.1:5000, Prefect at http://127.0.0.1:4200. Ctrl-C stops both.
    """
    module.become("pipelines.orchestration.ui", context)


@app.command(epilog="Example: foundry promote")
def promote(context: typer.Context) -> None:
    """Choose the champion again.

    The choice uses the stored scores. The section promote of params.yaml says how to choose.
    """
    module.become("pipelines.promote", context)


@app.command(epilog="Example: foundry serve")
def serve(
    context: typer.Context,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the running endpoint.")] = False,
) -> None:
    """Serve the promoted encoders until Ctrl-C.

    The endpoint is at http://127.0.0.1:8080. The command prints a request to try.
    """
    module.become("serving.server", context)


@app.command(epilog="Example: foundry embed ~/photos --out vectors.parquet")
def embed(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The images to embed.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The table to write, a .parquet file.")],
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="A name in artifacts/promoted.json. Without it: the champion.")
    ] = None,
    endpoint: Annotated[
        bool, typer.Option("--endpoint", help="Ask the running endpoint instead of computing here.")
    ] = False,
) -> None:
    """Write the embeddings of images to a table.

    After a stop, run the same command again: it keeps the images that are finished.
    """
    module.become("serving.embed", context)


@app.command(epilog="Example: foundry deploy --rollback")
def deploy(
    context: typer.Context,
    rollback: Annotated[bool, typer.Option("--rollback", help="Serve the versions before the last change.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Say what is served; change nothing.")] = False,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Make new tokens. The old tokens stop working immediately.")
    ] = False,
    run: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The folder of the running endpoint.")] = None,
    promoted: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What to serve. Without it: artifacts/promoted.json.")
    ] = None,
) -> None:
    """Update the running endpoint.

    It then serves what is promoted. No request is lost, and a version that fails its check is not served.
    """
    module.become("serving.deploy", context)


@app.command(epilog="Example: foundry doctor")
def doctor() -> None:
    """Check this machine for problems.

    Each problem comes with its cure. The exit code is 1 when there is a fault; a warning is not a fault.
    """
    from pipelines.command_line.doctor import checkup  # noqa: PLC0415

    with command():
        project.enter()
        raise typer.Exit(checkup.show())


@app.command(epilog="Example: foundry clean")
def clean() -> None:
    """Remove generated files; your images stay.

    DVC's cache and MLflow's store stay, too. The next run takes finished stages from the cache.
    """
    from pipelines.command_line import cleaning  # noqa: PLC0415

    with command():
        project.enter()
        cleaning.clean()
