"""Draws what pre-training runs logged to MLflow: losses, and what validation saw, over steps.

Example:
    python bench/curves.py --uri sqlite:///outputs/mlflow.db --runs all,mlm-only --output docs/images/made.png
"""

import argparse
from collections.abc import Iterator

from matplotlib.axes import Axes
from mlflow import MlflowClient

from protclip.data.charts import new_figure, plain

PANELS = {
    "GC": ("train/loss/gc", "valid/loss/gc"),
    "BSR, with and without biotext": ("train/loss/bsr", "valid/loss/bsr", "valid/loss/bsr_without_text"),
    "MLM": ("train/loss/mlm", "valid/loss/mlm"),
    "PDA": ("train/loss/pda", "valid/loss/pda"),
    "cosine of validation pairs": ("valid/matched_cosine", "valid/mismatched_cosine"),
    "masked-residue accuracy": ("valid/mlm_accuracy",),
}
"""Metrics by panel; where runs are compared, each has its own colour and each metric its own line."""
LINES = ("-", "--", ":")


def series(client: MlflowClient, run_id: str, metric: str) -> tuple[list[int], list[float]]:
    """Steps and values, the last value of each step."""
    values = {m.step: m.value for m in client.get_metric_history(run_id, metric)}
    return sorted(values), [values[step] for step in sorted(values)]


def finished(client: MlflowClient, experiment: str, names: list[str]) -> Iterator[tuple[str, str]]:
    """Name and id of the newest finished run of each name."""
    found = client.get_experiment_by_name(experiment)
    for name in names:
        where = f"attributes.run_name = '{name}' and attributes.status = 'FINISHED'"
        runs = client.search_runs([found.experiment_id], where, max_results=1) if found else []
        if not runs:
            raise SystemExit(f"no finished run {name!r} in experiment {experiment!r}; check --uri and --runs")
        yield name, runs[0].info.run_id


def draw(axes: Axes, client: MlflowClient, runs: list[tuple[str, str]], title: str) -> None:
    """One panel."""
    plain(axes, title)
    for number, (name, run_id) in enumerate(runs):
        for line, metric in zip(LINES, PANELS[title], strict=False):
            steps, values = series(client, run_id, metric)
            if steps:
                label = f"{name}: {metric}"
                axes.plot(steps, values, linestyle=line, color=f"C{number}", linewidth=1.2, label=label)
    if title == "PDA":
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.legend(fontsize=6, frameon=False)


def main() -> None:
    """Parses the command line and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--uri", required=True, help="MLflow tracking URI")
    parser.add_argument("--experiment", default="protclip", help="MLflow experiment")
    parser.add_argument("--runs", required=True, help="names of finished runs, comma-separated")
    parser.add_argument("--output", required=True, help="PNG to write")
    given = parser.parse_args()
    client = MlflowClient(given.uri)
    runs = list(finished(client, given.experiment, given.runs.split(",")))
    figure = new_figure(f"Pre-training: {given.runs}", 6)
    for axes, title in zip(figure.subplots(2, 3).flat, PANELS, strict=True):
        draw(axes, client, runs, title)
    figure.savefig(given.output, dpi=100)


if __name__ == "__main__":
    main()
