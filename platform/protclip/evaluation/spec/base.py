"""What every benchmark file states, whatever its kind, and where its official files come from."""

from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field

from protclip.config.base import Config, Count, Share

Positive = Annotated[float, Field(gt=0)]


class SourceFile(Config):
    """One official file."""

    path: str = Field(description="where it lies under raw; download puts it there")
    url: str | None = Field(
        default=None, description="official address; null where no program can fetch it (see notes)"
    )
    size: Count | None = Field(default=None, description="bytes; null: not published")
    md5: str | None = Field(default=None, pattern="^[0-9a-f]{32}$", description="published checksum")
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$", description="published checksum")


class DataSection(Config):
    """Where the official data comes from; each format of `raw` adds its own keys."""

    format: str = Field(description="a key of evaluation.raw.FORMATS")
    files: dict[str, SourceFile] = Field(description="official files by the role that the format gives them")
    expected: dict[str, int] = Field(
        default={}, description="published counts, by name as in the manifest of the prepared data"
    )


DataT = TypeVar("DataT", bound=Config)


class Benchmark(Config, Generic[DataT]):
    """What every benchmark states."""

    name: str = Field(pattern=r"^[a-z0-9_]+$", description="the file's name without .yaml")
    title: str = Field(description="one line for people")
    group: str = Field(description="heading under which reports list it")
    kind: str = Field(description="a key of evaluation.registry.KINDS")
    metric: str = Field(description="the primary metric, by which epochs are selected and models compared")
    higher_is_better: bool = Field(default=True, description="whether more of the primary metric is better")
    data: DataT
    baselines: tuple[str, ...] = Field(
        default=(), description="what the model is held against: names of the kind, and untouched"
    )
    published: dict[str, dict[str, float]] = Field(
        default={}, description="published values: metric, then model, then the value in our unit"
    )
    tolerance: Share = Field(
        default=0.02, description="difference of the primary metric to a published value that counts as equal"
    )
    notes: str = Field(default="", description="what a reader must know to judge the numbers")
    citation: str = Field(description="where task and data come from")
    licence: str = Field(description="licence of the data")

    def __reduce__(self) -> tuple[Any, ...]:
        """What pickling needs: a class of a generic one and a data section is found by no name."""
        made_of = type(self).__pydantic_generic_metadata__
        origin = made_of["origin"] or type(self)
        return _restored, (origin, made_of["args"], self.model_dump())


def _restored(origin: Any, args: tuple[type, ...], values: dict[str, Any]) -> Benchmark[Any]:
    """A benchmark from a pickle."""
    return (origin[args] if args else origin).model_validate(values)
