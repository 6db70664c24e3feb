"""The same metrics for one set of units and for many resamplings of it.

Metrics here take how often each of N units counts, integers (R, N), and give R values: a bootstrap is one
call, and sorts once.
"""

from collections.abc import Callable

import numpy as np


def measure(resampled: Callable[[np.ndarray], dict[str, np.ndarray]], size: int) -> dict[str, float]:
    """Metrics when each of `size` units counts once, of what gives them for counts (R, N)."""
    return {name: float(values[0]) for name, values in resampled(np.ones((1, size), np.int64)).items()}
