"""Some images of an array, without a copy of them."""

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Chosen:
    """Images by their places in an array; each is read when it is asked for.

    Attributes:
        images: uint8 [m, h, w, c], perhaps a view of a memory map.
        places: int64 [n], of each image in `images`.
    """

    images: NDArray[np.uint8]
    places: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, h, w, c)."""
        return (len(self.places), *self.images.shape[1:])

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """Of the images."""
        return self.images.dtype

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, which: NDArray[np.int64] | slice) -> NDArray[np.uint8]:
        """A copy of some of the images."""
        taken: NDArray[np.uint8] = self.images[self.places[which]]
        return taken


def choose(images: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The images at some places, as something that stands in for an array where images are taken and counted."""
    given: object = images
    chosen = Chosen(given.images, given.places[places]) if isinstance(given, Chosen) else Chosen(images, places)
    return cast("NDArray[np.uint8]", chosen)
