"""A protocol: which images of a data set train and which test, how they are prepared, and what must never be shared.

A suite names protocols. A number is comparable with another one only under the same protocol, so all of it is data,
hashed into every case.
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from capsbench.dataset import catalog
from capsbench.dataset.affine import Affine
from capsbench.dataset.loading import Eyes
from capsbench.dataset.transform import Shape, Transform, output_shape
from capsbench.errors import BadInput

Part = Literal["train", "test", "familiar"]
Degrees = Annotated[int, Field(ge=0, lt=360)]
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Which images of a split are used, and how evaluation sees them; everything where nothing is said.

    Attributes:
        azimuths_degrees: only these.
        elevations_degrees: only these.
        affine: evaluation shows each image under one such map.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    azimuths_degrees: tuple[Degrees, ...] = ()
    elevations_degrees: tuple[Degrees, ...] = ()
    affine: Affine | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How a data set is used.

    Attributes:
        name: as a suite names it.
        description: what is asked of a network.
        citation: who defined it, and what we had to fill in.
        data: the data set, by its name in the catalogue.
        eyes: of stereo pairs, both as two channels (`pair`), the `left` one, or `each` as an image of its own.
        transform: how images are prepared; training augments, evaluation does not.
        train: of the training split.
        test: of the test split; what `accuracy` is measured on.
        familiar: of the test split too, seen as training was. Networks are compared on `test` where they are equally
            good here (Hinton et al. 2018, section 5.1).
        novel: the factor that must share no value between `train` and `test`.
        identical_images: test images that may be, byte for byte, training images; more stop the case.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,59}$")]
    description: str
    citation: str = ""
    data: str
    eyes: Eyes = "pair"
    transform: Transform = Transform()
    train: View = View()
    test: View = View()
    familiar: View | None = None
    novel: Literal["azimuth", "elevation"] | None = None
    identical_images: Annotated[int, Field(ge=0)] = 0

    def view(self, part: Part) -> View:
        """What is used for a part.

        Raises:
            BadInput: the protocol has no `familiar` part.
        """
        found = {"train": self.train, "test": self.test, "familiar": self.familiar}[part]
        if found is None:
            raise BadInput(f"protocol {self.name} has no {part} part")
        return found

    def parts(self) -> tuple[Part, ...]:
        """Its parts, `train` first."""
        return ("train", "test") if self.familiar is None else ("train", "test", "familiar")

    def transform_of(self, part: Part) -> Transform:
        """How images of a part are prepared, its affine maps included."""
        return replace(self.transform, affine=self.view(part).affine or self.transform.affine)

    def full_image_shape(self) -> Shape:
        """(height, width, channels) of an image before the transform."""
        height, width, channels = catalog.info(self.data).image_shape
        return height, width, channels if self.eyes == "pair" else 1

    def image_shape(self) -> Shape:
        """(height, width, channels) of a prepared image.

        Raises:
            BadInput: the transform cannot be done on images of this size.
        """
        return output_shape(self.transform, self.full_image_shape())


@dataclass(frozen=True, slots=True, kw_only=True)
class DataUse:
    """A protocol and how much of it a case uses: the first images of each split; None for all that is there."""

    protocol: Protocol
    train_limit: int | None = None
    test_limit: int | None = None

    @property
    def name(self) -> str:
        """The protocol's."""
        return self.protocol.name

    def limit(self, part: Part) -> int | None:
        """Images of a part that are used."""
        return self.train_limit if part == "train" else self.test_limit


def check_protocol(protocol: Protocol, source: str) -> None:
    """Refuse a protocol that contradicts itself or its data set.

    Raises:
        BadInput: at `source`.
    """
    about = catalog.info(protocol.data)
    for part in protocol.parts():
        view = protocol.view(part)
        if (view.azimuths_degrees or view.elevations_degrees) and about.image_shape[2] != 2:
            raise BadInput(f"{protocol.data} has no viewpoints to choose from", f"{source}:{part}")
    if protocol.novel is not None and set(_values(protocol.train, protocol.novel)) & set(
        _values(protocol.test, protocol.novel)
    ):
        raise BadInput(f"train and test share values of the novel factor {protocol.novel}", source)
    try:
        protocol.image_shape()
    except BadInput as error:
        raise BadInput(str(error), source) from None


def _values(view: View, factor: str) -> tuple[int, ...]:
    return view.azimuths_degrees if factor == "azimuth" else view.elevations_degrees
