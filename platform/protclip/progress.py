"""Progress bars on stderr."""

import sys
from typing import Any

from tqdm import tqdm

LINE_EVERY_S = 15.0


def progress(description: str, unit: str, total: int | None = None, **options: Any) -> tqdm:
    """A bar that is alive on a terminal, and in a log a line every few seconds.

    Args:
        description: What is done.
        unit: What is counted, with a blank before words.
        total: How many there are, if that is known.
        options: Further ones of tqdm.
    """
    interval = 0.1 if sys.stderr.isatty() else LINE_EVERY_S
    return tqdm(
        desc=description,
        unit=unit,
        total=total,
        mininterval=interval,
        dynamic_ncols=True,
        file=sys.stderr,
        **options,
    )
