"""Parameters of views that change nothing, or everything."""

from models.views.augmentation import ViewParams

WHOLE = ViewParams(area=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0)  # leaves a square image as it is
FULL = ViewParams(
    area=(0.2, 1.0), rotation=20.0, jitter=0.8, strengths=(0.8, 0.8, 0.8, 0.2), grey=0.2, blur=0.5, solarize=0.2,
    quarter_turn=0.3, sobel=0.1, noise=0.3, cutout=0.3,
)  # fmt: skip


def view_params(**changes: object) -> ViewParams:
    return ViewParams(**(vars(WHOLE) | changes))
