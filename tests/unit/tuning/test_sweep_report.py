"""What people look at after a sweep."""

import json
import math
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from protclip.data.picture import render
from protclip.tuning.candidate import Outcome
from protclip.tuning.sweep_axes import dimensions, objective
from protclip.tuning.sweep_charts import draw_curves, draw_history, draw_importance, draw_pareto
from protclip.tuning.sweep_maps import draw_contour, draw_parallel, draw_slices
from protclip.tuning.sweep_report import (
    Provenance,
    files,
    log_table,
    ranked,
    summary_markdown,
    table,
    table_columns,
    to_html,
    to_json,
    to_markdown,
)
from protclip.tuning.tried import Results, Tried

R10 = "valid/t2p_r10"
SPACE = {
    "loss.bsr": FloatDistribution(0.1, 1.0),
    "optim.lr": FloatDistribution(1e-6, 1e-3, log=True),
    "mask.corruption": CategoricalDistribution(["shared", "separate"]),
    "sampling.exponents.confidence": IntDistribution(-4, 0),
    "loss.pda.enabled": CategoricalDistribution([True, False]),
}
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
FAILURE = "out of <memory> | on\nworker 3"
PROVENANCE = Provenance(
    created="2026-11-23T05:00:00+00:00",
    git_sha=None,
    config="conf/sweeps/loss.yaml",
    store="postgresql://me:***@host/db",
    commands={3: "protclip pretrain --config best.yaml run.name=again"},
)


class Made:
    """Collects trials."""

    def __init__(self, objectives, space=SPACE):
        directions = list(objectives.values())
        self.study = optuna.create_study(directions=directions)
        self.objectives, self.space, self.tried = objectives, space, []

    def add(self, values, params, state="complete", curve=(), best=(), **outcome):
        number = len(self.tried)
        told = list(values) if state == "complete" else None
        self.study.add_trial(
            create_trial(
                state=STATES[state],
                values=told,
                params=params,
                distributions={key: self.space[key] for key in params},
                intermediate_values=dict(curve),
            )
        )
        metrics = dict(zip(self.objectives, values, strict=False))
        came = Outcome(f"trial-{number}", state, metrics=metrics, best=dict(best), **outcome)
        self.tried.append(
            Tried(number, params, told and tuple(told), came, datetime(2026, 11, 5, tzinfo=UTC))
        )

    def results(self, best=(), importance=None):
        return Results(
            "loss", self.objectives, self.tried, [self.tried[i] for i in best], importance or {}, self.study
        )


def one_objective():
    made = Made({R10: "maximize"})
    shared = {"mask.corruption": "shared"}
    made.add([0.25], {"loss.bsr": 0.2, "optim.lr": 1e-5} | shared, curve={100: 0.2, 200: 0.25}, step=200)
    made.add([0.0625], {"loss.bsr": 0.9, "optim.lr": 1e-6} | shared, "pruned", {100: 0.0625}, step=100)
    made.add([], {"loss.bsr": 0.7, "optim.lr": 1e-3} | shared, "failed", error=FAILURE)
    made.add(
        [0.123456],
        {
            "loss.bsr": 0.4,
            "optim.lr": 1e-4,
            "mask.corruption": "separate",
            "sampling.exponents.confidence": -3,
        },
        curve={100: 0.3, 200: math.nan, 300: 0.123456},
        best={R10: (0.3, 100)},
        step=300,
        run_id="abc",
        checkpoint="s3://bucket/loss/runs/trial-3/step-300",
    )
    made.add([0.05], {"loss.bsr": 0.5, "optim.lr": 2e-5, "loss.pda.enabled": False} | shared, step=300)
    return made


@pytest.fixture
def results():
    return one_objective().results(best=[3], importance={R10: {"optim.lr": 0.7, "loss.bsr": 0.3}})


@pytest.fixture
def front():
    """Two objectives: trials 0 and 2 are not dominated."""
    made = Made({R10: "maximize", "valid/loss/mlm": "minimize"})
    for lr, values in ((1e-6, (0.1, 2.0)), (1e-5, (0.05, 2.5)), (1e-3, (0.4, 3.0)), (1e-4, (0.3, 3.5))):
        made.add(values, {"loss.bsr": 0.5, "optim.lr": lr})
    return made.results(best=[2, 0])


def test_ranking_puts_the_best_first_then_other_complete_then_pruned_then_failed(results, front):
    # Trial 0 has a better last value than the one that is called best: the sweep decides, not the table.
    assert [t.number for t in ranked(results)] == [3, 0, 4, 1, 2]
    assert [t.number for t in ranked(front)] == [2, 0, 3, 1]


def test_log_table_names_dimensions_shortly_and_brackets_what_ended_early(results):
    headings, rows = log_table(results)
    assert headings == [
        "Trial", "State", f"{R10} ↑", "Step", "optim.lr", "loss.bsr", "mask.corruption",
        "exponents.confidence", "pda.enabled",
    ]  # fmt: skip
    assert rows[0] == ["3", "complete", "0.1235", "300", "0.0001", "0.4", "separate", "-3", "–"]
    assert rows[2][-1] == "false"
    assert rows[3][1:4] == ["pruned", "(0.0625)", "100"]
    assert rows[4][1:4] == ["failed", "–", "0"]


def test_log_table_leaves_out_what_a_log_has_no_room_for():
    space = {f"some.long.section.key_number_{i:02}": FloatDistribution(0, 1) for i in range(20)}
    made = Made({"valid/loss/total": "minimize"}, space)
    for i in range(25):
        made.add([1 - i / 50], dict.fromkeys(space, 0.5))
    most = "some.long.section.key_number_13"
    headings, rows = log_table(made.results(best=[24], importance={"valid/loss/total": {most: 1.0}}))
    assert headings[4] == "section.key_number_13"
    left_out = 20 - (len(headings) - 5)
    assert headings[-1] == f"+{left_out}"
    assert [row[0] for row in rows] == [str(i) for i in range(24, 4, -1)]
    text, _ = render("t", headings, rows)
    assert "…" not in text


def test_keys_with_equal_ends_are_told_apart():
    space = {key: FloatDistribution(0, 1) for key in ("a.x.rate", "b.x.rate", "c.y.rate")}
    made = Made({R10: "maximize"}, space)
    made.add([0.5], dict.fromkeys(space, 0.5))
    assert log_table(made.results(best=[0]))[0][-3:] == ["a.x.rate", "b.x.rate", "y.rate"]


def test_table_has_values_as_they_are_and_none_where_there_is_none(results):
    rows = [dict(zip(table_columns(results), row, strict=True)) for row in table(results)]
    assert rows[0][R10] == 0.123456
    assert (rows[0][f"best {R10}"], rows[0]["checkpoint"]) == (0.3, "s3://bucket/loss/runs/trial-3/step-300")
    assert rows[0]["loss.pda.enabled"] is None
    assert rows[2]["loss.pda.enabled"] == "false"
    assert (rows[4]["trial"], rows[4][R10], rows[4]["error"]) == (2, None, FAILURE)
    json.dumps(rows, allow_nan=False)


def test_json_holds_everything_with_null_for_undefined(results):
    stored = json.loads(json.dumps(to_json(results, PROVENANCE), allow_nan=False))
    assert (stored["name"], stored["objectives"], stored["best"]) == ("loss", {R10: "maximize"}, [3])
    assert stored["importance"] == results.importance
    assert stored["provenance"]["store"] == "postgresql://me:***@host/db"
    space = {
        key: optuna.distributions.json_to_distribution(json.dumps(d)) for key, d in stored["space"].items()
    }
    assert space == SPACE
    for trial, tried in zip(stored["trials"], results.tried, strict=True):
        assert (trial["number"], trial["params"]) == (tried.number, tried.params)
        assert trial["values"] == (None if tried.values is None else list(tried.values))
        assert (trial["state"], trial["step"]) == (tried.outcome.state, tried.outcome.step)
    assert stored["trials"][3]["curve"] == {"100": 0.3, "200": None, "300": 0.123456}
    assert stored["trials"][3]["best"] == {R10: [0.3, 100]}
    assert stored["trials"][2]["error"] == FAILURE
    assert stored["trials"][0]["started"] == "2026-11-05T00:00:00+00:00"


def test_summary_tells_counts_best_importance_and_a_failure(results):
    text = summary_markdown(results)
    assert text.startswith("5 trials: 3 complete, 1 pruned, 1 failed.\n")
    assert "| 3 | complete | 0.1235 | 300 |" in text
    assert f"Importance for {R10}: optim.lr 70%, loss.bsr 30%." in text
    assert "First of 1 failed: Trial 2 (trial-2): out of <memory> | on worker 3" in text


def test_markdown_tells_how_the_best_is_trained_again_and_why_pictures_are_missing(results):
    text = to_markdown(results, PROVENANCE, ["history"], {"contour": "No trial is complete."})
    best = text[text.index("## Trial 3") : text.index("## All trials")]
    assert f"- {R10}: 0.1235 at step 300; its best was 0.3 at step 100" in best
    assert "- Train it again: protclip pretrain --config best.yaml run.name=again" in best
    assert "out of <memory> \\| on worker 3" in text
    assert "![Objective by trial](history.png)" in text
    assert "- Map of the two most important dimensions: No trial is complete." in text
    assert "- Optuna store: postgresql://me:***@host/db" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines[3:]}) == 1


class Page(HTMLParser):
    """Checks that elements are closed in order; takes down the rows of tables."""

    def __init__(self):
        super().__init__()
        self.open, self.rows = [], []

    def handle_starttag(self, tag, attrs):
        self.rows += [[]] * (tag == "tr")
        self.rows[-1:] = [[*row, ""] if tag in {"td", "th"} else row for row in self.rows[-1:]]
        self.open += [tag] * (tag != "meta")

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def test_files_are_a_page_markdown_json_and_pictures(results):
    made = files(results, PROVENANCE)
    pictures = {"history.png", "contour.png", "parallel.png", "importance.png", "slices.png", "curves.png"}
    assert made.keys() == {"sweep.html", "sweep.md", "sweep.json"} | pictures
    assert all(made[name].startswith(b"\x89PNG") for name in pictures)
    assert json.loads(made["sweep.json"]) == json.loads(json.dumps(to_json(results, PROVENANCE)))
    text = made["sweep.html"].decode()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert [row[0] for row in page.rows] == ["Trial", "3", "0", "4", "1", "2"]
    assert page.rows[-1][-1] == "out of <memory> | on worker 3"
    assert text.count("<svg") == len(pictures)
    assert not re.search(r"""(src|href)=["'](?!#|data:)|url\((?!#)|@import""", text)


def test_page_leaves_out_columns_that_nothing_is_in(front):
    page = Page()
    page.feed(to_html(front, PROVENANCE, {}, {}))
    dotted = [cell.replace("\u200b", "") for cell in page.rows[0]]
    assert dotted == ["Trial", "State", f"{R10} ↑", "valid/loss/mlm ↓", "Step", "loss.bsr", "optim.lr"]


@pytest.mark.parametrize("tried", [0, 2])
def test_sweep_without_a_complete_trial_has_a_report_without_pictures(tried):
    made = Made({R10: "maximize"})
    for _ in range(tried):
        made.add([], {"loss.bsr": 0.5}, "failed", error="no space left on device")
    report = files(made.results(), PROVENANCE)
    assert report.keys() == {"sweep.html", "sweep.md", "sweep.json"}
    text = report["sweep.md"].decode()
    assert ("2 trials: 2 failed." if tried else "No trial has ended.") in text
    assert text.count("No trial is complete.") == 3
    assert text.count("no space left on device") == (3 if tried else 0)


def test_sweep_of_one_trial_has_the_pictures_that_one_allows():
    made = Made({R10: "maximize"})
    made.add([0.5], {"loss.bsr": 0.5})
    report = files(made.results(best=[0]), PROVENANCE)
    assert {name for name in report if name.endswith(".png")} == {"history.png", "slices.png"}
    text = report["sweep.md"].decode()
    assert "- Parallel coordinates: Two complete trials are needed; there is one." in text
    assert "A map needs two dimensions of numbers; the sweep has loss.bsr." in text


def test_history_has_every_trial_and_the_best_so_far(results):
    (axis,) = draw_history(results).axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert drawn["complete"] == [[0, 0.25], [3, 0.123456], [4, 0.05]]
    assert drawn["pruned"] == [[1, 0.0625]]
    assert drawn["failed"] == [[2, 0.05]]
    assert drawn["best so far"] == [[0, 0.25], [3, 0.25], [4, 0.25], [4, 0.25]]


def test_history_says_that_diverged_trials_are_cut_off():
    made = Made({"valid/loss/total": "minimize"})
    for value in (2.0, 2.1, 2.2, 1e6):
        made.add([value], {"loss.bsr": 0.5})
    (axis,) = draw_history(made.results(best=[0])).axes
    assert axis.get_title(loc="left") == "worse values are shown at the end of the axis"
    assert axis.get_ylim()[1] < 5
    assert max(axis.lines[0].get_ydata()) < axis.get_ylim()[1]


@settings(max_examples=60)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12),
    st.sampled_from(["minimize", "maximize"]),
)
def test_axis_of_an_objective_always_shows_the_better_half(values, direction):
    scale = objective("x", direction, [*values, math.inf, math.nan])
    good_first = sorted(values, reverse=direction == "maximize")
    slack = 1e-9 * max(1, *map(abs, values))
    better = good_first[: (len(values) + 1) // 2]
    assert all(scale.low - slack <= value <= scale.high + slack for value in better)
    assert (
        scale.cut == (not scale.low - slack <= good_first[-1] <= scale.high + slack)
        or scale.low == scale.high
    )
    assert all(0 <= scale.place(value) <= 1 for value in values)


def test_curves_of_pruned_trials_end_early(results):
    (axis,) = draw_curves(results).axes
    ends = {(line.get_label(), line.get_xdata()[-1]) for line in axis.lines}
    assert {end for end in ends if end[0] in ("complete", "pruned")} == {
        ("complete", 200),
        ("pruned", 100),
        ("complete", 300),
    }
    (best,) = (line for line in axis.lines if line.get_label() == "best, trial 3")
    assert best.get_xdata().tolist() == [100, 200, 300]


def test_map_is_of_the_two_most_important_dimensions_of_numbers(results):
    axis = draw_contour(results).axes[0]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("optim.lr", "loss.bsr")
    # The pruned and the failed one are not on it; 1e-4 lies two thirds of the way from 1e-6 to 1e-3.
    points = axis.collections[-1].get_offsets()
    assert np.asarray(points)[1] == pytest.approx([2 / 3, 1 / 3])
    assert len(points) == 3


def test_map_of_trials_on_one_line_has_points_but_no_surface():
    made = Made({R10: "maximize"})
    for i in range(6):
        made.add([i / 10], {"loss.bsr": 0.1 + 0.1 * i, "optim.lr": 1e-5})
    axis = draw_contour(made.results(best=[5])).axes[0]
    assert len(axis.collections) == 1


def test_map_of_a_grid_has_a_surface():
    space = {
        "loss.bsr": CategoricalDistribution([0.1, 0.5, 1.0]),
        "loss.pda.theta": FloatDistribution(0.1, 0.9),
    }
    made = Made({R10: "maximize"}, space)
    for bsr in (0.1, 0.5, 1.0):
        for theta in (0.1, 0.5, 0.9):
            made.add([bsr - theta], {"loss.bsr": bsr, "loss.pda.theta": theta})
    axis = draw_contour(made.results(best=[6])).axes[0]
    assert len(axis.collections) == 2
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0.1", "0.5", "1"]


def test_map_says_when_no_trial_has_both_dimensions():
    made = Made({R10: "maximize"})
    made.add([0.1], {"loss.bsr": 0.1})
    made.add([0.2], {"optim.lr": 1e-5})
    assert (
        draw_contour(made.results(best=[1])) == "No complete trial has both of the most important dimensions."
    )


def test_slices_show_the_trials_that_have_a_dimension(results):
    panels = {axis.get_xlabel(): axis for axis in draw_slices(results).axes if axis.get_visible()}
    points = {key: len(axis.lines[0].get_xdata()) for key, axis in panels.items()}
    once = ("sampling.exponents.confidence", "loss.pda.enabled")
    assert points == dict.fromkeys(("optim.lr", "loss.bsr", "mask.corruption"), 3) | dict.fromkeys(once, 1)
    names = [label.get_text() for label in panels["mask.corruption"].get_xticklabels()]
    assert names == ["shared", "separate"]


def test_parallel_coordinates_have_an_axis_for_each_and_a_place_for_what_is_not_set(results):
    (axis,) = draw_parallel(results).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [f"{R10} ↑", *dimensions(results)]
    lines = [line for line in axis.lines if len(line.get_xdata()) == 6]
    assert len(lines) == 3
    # The worst first, so that good ones lie above it.
    worst = lines[0].get_xdata()
    assert worst[0] == 0
    assert worst[4] == -0.1
    assert any(text.get_text() == "not set" for text in axis.texts)


def test_importance_has_a_bar_for_each_dimension(results):
    (axis,) = draw_importance(results).axes
    assert [bar.get_width() for bar in axis.patches] == [0.7, 0.3]
    assert [text.get_text() for text in axis.texts] == ["70.0%", "30.0%"]


def test_pareto_front_joins_what_is_not_dominated(front):
    (axis,) = draw_pareto(front).axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert drawn["Pareto front"] == [[0.1, 2.0], [0.4, 3.0]]
    assert len(drawn["dominated"]) == 2
    assert [text.get_text() for text in axis.texts] == ["0", "2"]
    assert draw_curves(front) == "The Pareto front of several objectives is not followed during training."


def test_pareto_front_of_three_objectives_is_not_drawn():
    made = Made({"a": "minimize", "b": "minimize", "c": "maximize"})
    made.add([1, 2, 3], {"loss.bsr": 0.5})
    assert draw_pareto(made.results(best=[0])) == "It is drawn for two objectives; the sweep has 3."


def test_names_of_trials_that_lie_together_are_written_together():
    made = Made({R10: "maximize", "valid/loss/mlm": "minimize"})
    for values in ((0.1, 1.0), (0.101, 1.001), (0.9, 5.0)):
        made.add(values, {"loss.bsr": 0.5})
    (axis,) = draw_pareto(made.results(best=[2, 1, 0])).axes
    assert [text.get_text() for text in axis.texts] == ["0, 1", "2"]


def test_dimension_covers_the_bounds_of_all_submissions():
    made = Made({R10: "maximize"}, {"loss.bsr": FloatDistribution(0.1, 1.0)})
    made.add([0.1], {"loss.bsr": 0.2})
    made.space = {"loss.bsr": FloatDistribution(0.5, 2.0)}
    made.add([0.1], {"loss.bsr": 1.5})
    scale = dimensions(made.results(best=[0]))["loss.bsr"]
    assert (scale.low, scale.high) == (0.1, 2.0)


def test_many_names_side_by_side_are_shortened_and_thinned():
    names = [f"facebook/encoder-{i:02}" for i in range(30)]
    made = Made({R10: "maximize"}, {"model.init": CategoricalDistribution(names)})
    made.add([0.1], {"model.init": names[3]})
    scale = dimensions(made.results(best=[0]))["model.init"]
    assert scale.place(names[3]) == pytest.approx(3.5 / 30)
    labels = [label for _, label in scale.ticks(5, 36)]
    assert len(labels) <= 9
    assert sum(map(len, labels)) <= 36
