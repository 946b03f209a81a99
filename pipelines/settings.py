"""Stage settings: params.yaml → artifacts/settings.yaml, every number that each stage reads, defaults included.

DVC compares each stage's section of that file. So a default that changes in the code makes exactly those stages
stale that read it.
"""

from dataclasses import asdict
from typing import Any

import yaml

from models.methods import BASELINES
from pipelines.project import config, stage
from pipelines.project.config import Config

# Settings that do not change a result: how the work is divided, saved and logged.
NO_RESULT = {"processes", "sharded", "log_every", "checkpoint_minutes", "recompute"}
HOW = ("precision", "compile")  # keys of `pretrain` that training with labels reads too


class Whole(yaml.SafeDumper):
    """Writes values that several stages share in full each time, without YAML aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def main() -> None:
    text = yaml.dump(of_stages(config.load()), Dumper=Whole, sort_keys=False, allow_unicode=True)
    stage.SETTINGS.parent.mkdir(exist_ok=True)
    stage.SETTINGS.write_text(text, encoding="utf-8")


def of_stages(c: Config) -> dict[str, Any]:
    """Stage → the settings that it reads; for stages of methods or baselines, by their names."""
    methods = {name: plain(c.method(name)) for name in c.methods}
    how = {key: getattr(c.pretrain, key) for key in HOW}
    trained = {"dataset": c.dataset, "seed": c.seed, "seeds": c.seeds, "pretrain": plain(c.pretrain)}
    labelled = {"seed": c.seed, "labelled_trainings": c.labelled_trainings, "pretrain": how}
    tuned = labelled | {"finetune": plain(c.finetune), "pseudolabel": plain(c.pseudolabel)}
    scratch = labelled | {"seeds": c.seeds, "baseline": plain(c.baseline), "pretrained": pretrained(c)}
    scratch |= {"finetune": {"steps": c.finetune.steps, "batch_size": c.finetune.batch_size}}
    exported = {"export": plain(c.export), "probe": plain(c.probe)}
    return {
        "prepare": {"dataset": c.dataset, "seed": c.seed} | plain(c.prepare),
        "pretrain": {m: trained | {"method": params} for m, params in methods.items()},
        "probe": {m: {"seed": c.seed, "method": params} | plain(c.probe) for m, params in methods.items()},
        "finetune": dict.fromkeys(methods, tuned),
        "baseline": {name: scratch | {name: plain(c.of_baseline(name))} for name in BASELINES},
        "register": {m: {"dataset": c.dataset} for m in methods},
        "export": dict.fromkeys(methods, exported),
        "promote": {"dataset": c.dataset, "methods": list(methods)} | plain(c.promote),
        "report": {"dataset": c.dataset, "seed": c.seed, "for": c.promote.for_, "methods": methods},
    }


def pretrained(c: Config) -> dict[str, Any]:
    """Method → its backbone, and what decides how many images pretraining shows it: a baseline gets a share of them."""
    found = {}
    for name in c.methods:
        params = c.method(name)
        encoder = {key: value for key, value in asdict(params.encoder).items() if key != "init"}
        found[name] = {"encoder": encoder, "epochs": params.epochs, "batch_size": params.batch_size,
                       "views": params.seen(c.prepare.size)}  # fmt: skip
    return found


def plain(section: Any) -> dict[str, Any]:
    """A section as plain YAML values, without the keys that change no result."""
    return {key.rstrip("_"): value for key, value in asdict(section).items() if key not in NO_RESULT}


if __name__ == "__main__":
    stage.enter("settings", main, __doc__)
