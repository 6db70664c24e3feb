"""What can be configured about models that come and go (`protclip import`, `protclip export`)."""

from pydantic import Field

from protclip.config.base import Config, Uri
from protclip.config.schema import TextEncoderConfig


class ExportConfig(Config):
    """A checkpoint as a directory that transformers loads (`protclip export`)."""

    checkpoint: Uri = Field(description="URI of a checkpoint or of a run, whose newest one is used")
    output: Uri = Field(description="URI of the directory to write")
    overwrite: bool = Field(default=False, description="replace an exported model that is already there")


class ImportConfig(Config):
    """A model from elsewhere as a checkpoint (`protclip import`)."""

    checkpoint: Uri = Field(
        description="URI of a directory with the config.json and model.safetensors that ProtCLIP's authors "
        "published, or of an exported model"
    )
    output: Uri = Field(description="URI of the run directory to write its checkpoint to")
    tokenizer: str = Field(
        default=TextEncoderConfig().source,
        description="text tokenizer of the authors' model: a directory or a Hugging Face name",
    )
    pairs: Uri | None = Field(
        default=None, description="pairs that benchmarks use when they are told of no others"
    )
