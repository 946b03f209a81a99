"""Stage prepare: data/raw/<dataset> → data/prepared.

Every worker process imports this module again. To keep that fast, imports that need torch are inside the function.
"""

from data.decoding.decode import Preprocess
from data.prepare import prepare


def main() -> None:
    from pipelines.project import config, stage  # noqa: PLC0415

    params = config.load()
    p = params.prepare
    prepare(
        stage.RAW / params.dataset,
        stage.PREPARED,
        name=params.dataset,
        preprocess=Preprocess(p.size, p.filter, range=None if p.range == "auto" else p.range),
        val=p.val,
        test=p.test,
        max_bad_fraction=p.max_bad_fraction,
        labels=p.labels,
        seed=params.seed,
    )


if __name__ == "__main__":
    from pipelines.project import stage

    stage.enter("prepare", main, __doc__)
