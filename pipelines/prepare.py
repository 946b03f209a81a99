"""Stage prepare: data/raw/<dataset> → data/prepared."""

from data.decode import Preprocess
from data.prepare import prepare
from pipelines import config, stage


def main() -> None:
    params = config.load()
    p = params.prepare
    prepare(
        stage.RAW / params.dataset,
        stage.PREPARED,
        name=params.dataset,
        preprocess=Preprocess(p.size, p.filter),
        val=p.val,
        test=p.test,
        max_bad_fraction=p.max_bad_fraction,
        labels=p.labels,
        seed=params.seed,
    )


if __name__ == "__main__":
    stage.run("prepare", main)
