"""How a batch is shared among replicas, so that together they compute what one device does with the whole of it.

A loss is a mean over images. So with n_r of the n images at replica r,

    loss = sum_r (n_r / n) loss_r    and    gradient = sum_r (n_r / n) gradient_r,

also where n does not divide by the number of replicas. Dropout masks are drawn for the whole batch and cut as it is.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shard:
    """One replica's images of a batch.

    Attributes:
        images: which.
        weight: its share of the batch, n_r / n; 0 for a replica that there is no image for. It is given the first one,
            because mean and gradient of no image are not defined, and what it makes of that counts for nothing.
    """

    images: slice
    weight: float

    @property
    def counted(self) -> int:
        """How many of its images count."""
        return self.images.stop - self.images.start if self.weight else 0


def shards(count: int, replicas: int) -> tuple[Shard, ...]:
    """A batch of `count` images in order, in `replicas` pieces whose sizes differ by one at most, larger ones first."""
    size, larger = divmod(count, replicas)
    found, start = [], 0
    for replica in range(replicas):
        stop = start + size + (replica < larger)
        found.append(Shard(slice(start, stop), (stop - start) / count) if stop > start else Shard(slice(0, 1), 0.0))
        start = stop
    return tuple(found)
