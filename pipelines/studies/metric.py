"""What the figures of a study are called, and their units."""

from pipelines.evaluation.scores import ALL

HOW = {"linear": "linear probe", "knn": "kNN", "finetune": "fine-tuning"}
COSTS = {
    "seconds": ("time of training", "s"),
    "memory": ("memory", "MiB"),
    "gflops": ("operations", "GFLOPs per image"),
}
KNOWN = {
    "accuracy": ("top-1 accuracy", "%"),
    **COSTS,
    "signal:memory": ("memory", "MiB"),
    "retrieval": ("second views found", "%"),
    "signal:teacher_entropy": ("entropy of the teacher's output", "of the largest possible"),
    "signal:mean_teacher_entropy": ("entropy of the teacher's mean output", "of the largest possible"),
    "measured:reconstruction.loss": ("loss over that of the mean image", ""),
    "measured:histogram.found": ("views found by their histogram alone", "%"),
    "measured:outline.iou": ("overlap of attention and object (IoU)", "%"),
}


def named(metric: str) -> str:
    """`linear probe, 5 labels per class`."""
    if metric in KNOWN:
        return KNOWN[metric][0]
    how, _, labels = metric.partition("_")
    if how not in HOW:
        return metric.partition(":")[2].replace("_", " ") or metric
    return f"{HOW[how]}, " + ("all labels" if labels == ALL else f"{labels} label{'s' * (labels != '1')} per class")


def kind(metric: str) -> str:
    """`linear` of `linear_5`; of another metric the metric itself."""
    how = metric.partition("_")[0]
    return how if how in HOW else metric


def lower(metric: str) -> bool:
    """Whether a smaller figure is the better one."""
    return metric in (*COSTS, "signal:memory") or metric.startswith(("measured:reconstruction", "measured:histogram"))


def unit(metric: str) -> str:
    """`%`, `s` or nothing."""
    if metric in KNOWN:
        return KNOWN[metric][1]
    return "%" if metric.partition("_")[0] in HOW else ""
