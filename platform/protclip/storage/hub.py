"""Models of the Hugging Face hub as local folders, in the hub library's own cache of this node."""

import logging
from pathlib import Path

from protclip.errors import DataError
from protclip.storage.failures import first_line

log = logging.getLogger(__name__)

SMALL = ("*.json", "*.txt")


def hub_directory(name: str, *, weights: bool = True) -> Path:
    """The folder of a hub model's configuration, tokenizer and, if asked, weights (safetensors, else `.bin`).

    Fetched once per node; when the hub cannot be reached, or HF_HUB_OFFLINE is set, what is there already
    is used. `HF_HOME`, `HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_ETAG_TIMEOUT` (seconds it is waited for, 10)
    mean what they always do.

    Raises:
        DataError: The hub has no such model for this user, or cannot be reached and it is not here.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    patterns: list[str] = [*SMALL]
    reason: Exception | None = None
    if constants.HF_HUB_OFFLINE:
        reason = ConnectionError("HF_HUB_OFFLINE is set")
    else:
        try:
            # Alone among the library's requests this one takes a limit; without it a silent network hangs.
            found = HfApi().model_info(name, timeout=constants.HF_HUB_ETAG_TIMEOUT)
            if weights:
                names = [file.rfilename for file in found.siblings or ()]
                safe = any(name.endswith(".safetensors") for name in names)
                patterns.append("*.safetensors" if safe else "*.bin")
        except Exception as error:
            # The HTTP client of the library has errors of its own.
            if not isinstance(error, OSError) and not type(error).__module__.startswith("httpx"):
                raise
            reason = error
            log.debug("%s: %s", name, error)
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=reason is not None))
    except OSError as error:
        raise DataError(
            f"{name}: not in the cache of this node, and not to be had from the Hugging Face hub "
            f"({first_line(reason or error)})"
        ) from error
