"""Golden images: a server must give the embeddings for them that torch gave after training.

`golden.npz`, in every archive: `images` uint8 (N, 3, S, S), `embeddings` float32 (N, D), and `tolerance`, the
difference that is allowed, as a share of the largest entry of `embeddings`.
"""

import io
import zipfile
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving import ServingError
from serving.client import Client, ImageError
from serving.rollout import admission

FEWEST = 2


class Golden:
    """The golden images of one archive."""

    def __init__(self, images: NDArray[np.uint8], embeddings: NDArray[np.float32], tolerance: float) -> None:
        self.images, self.embeddings, self.tolerance = images, embeddings, tolerance

    @classmethod
    def read(cls, mar: Path) -> Self:
        """From an admitted archive. Raises ServingError when they are not what the pipeline writes."""
        try:
            with zipfile.ZipFile(mar) as archive, archive.open(admission.GOLDEN) as file:
                arrays = np.load(io.BytesIO(file.read()), allow_pickle=False)
                images, embeddings = arrays["images"], arrays["embeddings"]
                tolerance = float(arrays["tolerance"])
        except (zipfile.BadZipFile, OSError, ValueError, KeyError, TypeError) as error:
            raise ServingError(f"Its golden images cannot be read ({error}).") from error
        n = len(images)
        if images.dtype != np.uint8 or images.ndim != 4 or embeddings.shape[:1] != (n,) or n < FEWEST:
            raise ServingError(
                f"Its golden images do not fit: {images.dtype} {images.shape} for embeddings {embeddings.shape}."
            )
        return cls(images, embeddings.astype(np.float32), tolerance)

    def compare(self, client: Client, name: str, first: int | None = None) -> float:
        """Ask the server for all, or the first few. Returns the largest difference, as a share of the largest entry.

        Raises ServingError when it is above the tolerance, or when an image is not answered.
        """
        client.session.headers["x-probe"] = "golden"  # so that drift does not count it
        answers = []
        for answer in client.embed_many(name, map(_png, self.images[:first])):
            if isinstance(answer, ImageError):
                raise answer
            answers.append(answer)
        theirs = np.stack(answers)
        if theirs.shape[1:] != self.embeddings.shape[1:]:
            raise ServingError(f"Its embeddings have {theirs.shape[1]} numbers instead of {self.embeddings.shape[1]}.")
        difference = float(np.abs(theirs - self.embeddings[:first]).max() / np.abs(self.embeddings).max())
        if not difference <= self.tolerance:  # also when it is not a number
            raise ServingError(
                f"Its answers to the golden images differ from those of training by {difference:.1e} of the largest "
                f"entry. Allowed: {self.tolerance:.0e}."
            )
        return difference


def _png(image: NDArray[np.uint8]) -> bytes:
    """(3, S, S) → a PNG of the model's own size, which the decoder returns unchanged."""
    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()
