"""What makes a test score worthless: test images that trained, toys that trained, viewpoints that are not new."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from capsbench.dataset.loading import Split
from capsbench.dataset.parts import seen
from capsbench.dataset.protocol import Part, Protocol
from capsbench.dataset.smallnorb import Factors

_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Findings:
    """What a guard has to say, in words: what a protocol forbids, and what it allows but a reader must know."""

    violations: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def examine(protocol: Protocol, splits: Mapping[Part, Split]) -> Findings:
    """Look for everything that a protocol forbids of its images.

    Args:
        protocol: whose parts `splits` are.
        splits: what was loaded, `train` among them.
    """
    identical = dict(_identical(protocol, splits))
    tests = [part for part in splits if part != "train"]
    violations = (
        *(said for said, allowed in identical.items() if not allowed),
        *(said for part, split in splits.items() for said in _unseen(protocol, part, split)),
        *(said for part in tests for said in _shared(protocol, part, splits["train"], splits[part])),
    )
    return Findings(violations, tuple(said for said, allowed in identical.items() if allowed))


def identical_images(train: NDArray[np.uint8], test: NDArray[np.uint8]) -> int:
    """Count the test images that are byte for byte some training image; linear in time, 16 bytes an image in memory."""
    if train.shape[1:] != test.shape[1:]:
        return 0
    digests = set(_digests(train))
    return sum(digest in digests for digest in _digests(test))


def _identical(protocol: Protocol, splits: Mapping[Part, Split]) -> Iterator[tuple[str, bool]]:
    """What is said of each part with training images in it, and whether so many are allowed."""
    digests = set(_digests(splits["train"].images))
    for part, split in splits.items():
        if part == "train":
            continue
        same = sum(digest in digests for digest in _digests(split.images))
        if same:
            allowed = f"{protocol.name} allows {protocol.identical_images:,}"
            said = f"{same:,} {part} images are identical to training images, and {allowed}"
            yield said, same <= protocol.identical_images


def _digests(images: NDArray[np.uint8]) -> Iterator[bytes]:
    for start in range(0, len(images), _CHUNK):
        for image in np.ascontiguousarray(images[start : start + _CHUNK]):
            yield blake2b(image.data, digest_size=16).digest()


def _unseen(protocol: Protocol, part: Part, split: Split) -> Iterator[str]:
    """Viewpoints in a part that its protocol does not put there."""
    if split.factors is None:
        return
    strange = int((~seen(protocol.view(part), split.factors)).sum())
    if strange:
        yield f"{strange:,} {part} images are seen from viewpoints that {protocol.name} does not put there"


def _shared(protocol: Protocol, part: Part, train: Split, test: Split) -> Iterator[str]:
    """Toys, and values of the novel factor, on both sides."""
    if train.factors is None or test.factors is None:
        return
    toys = _toys(train) & _toys(test)
    if toys:
        category, instance = min(toys)
        yield (
            f"{len(toys)} toys are in the training and in the {part} images, the first is instance {instance} of "
            f"category {category}"
        )
    if protocol.novel is not None and part == "test":
        both = np.intersect1d(_factor(train.factors, protocol.novel), _factor(test.factors, protocol.novel))
        if len(both):
            values = ", ".join(map(str, both))
            yield f"the {protocol.novel} is to be new in the test images, but both sides have {values} degrees"


def _toys(split: Split) -> set[tuple[int, int]]:
    assert split.factors is not None  # noqa: S101 - the caller has looked
    pairs = np.unique(np.stack([split.labels, split.factors.instance], 1), axis=0)
    return {(int(category), int(instance)) for category, instance in pairs}


def _factor(factors: Factors, name: str) -> NDArray[np.int64]:
    return factors.azimuth_degrees if name == "azimuth" else factors.elevation_degrees
