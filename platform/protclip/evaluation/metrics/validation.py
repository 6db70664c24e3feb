"""Which way the metrics of a training's validation are better."""


def lower_is_better(metric: str) -> bool:
    """Whether a validation metric is better when it is smaller.

    Args:
        metric: Its name, with or without `valid/`.
    """
    return "loss" in metric or "rank" in metric or metric.endswith(("seconds", "mismatched_cosine"))
