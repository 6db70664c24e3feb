"""Pictures show the numbers."""

import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from made_results import failed, kind, result, spec
from protclip.evaluation import registry
from protclip.evaluation.charts import draw_groups, draw_overview, png, svg
from protclip.evaluation.results import summarise


def hits(share, num=40):
    return np.arange(num) < share * num


@pytest.fixture(autouse=True)
def _hits(monkeypatch):
    monkeypatch.setitem(registry.KINDS, "hits", kind())


def row(name, share, group="g", published=(), untouched=None, **keys):
    runs = [result(name, hits(share))]
    if untouched is not None:
        runs.append(result(name, hits(untouched), model="untouched"))
    values = {"share": dict(published)} if published else {}
    return summarise(spec(name, group=group, published=values, **keys), runs)[0]


def test_overview_draws_value_interval_baselines_and_published():
    shown = row("x", 0.6, untouched=0.4, published={"ProtCLIP": 0.7, "GearNet": 0.1})
    axis = draw_overview("t", [shown]).axes[0]
    (bar,) = axis.patches
    assert bar.get_width() == pytest.approx(0.6)
    lines = {line.get_label(): list(line.get_xdata()) for line in axis.lines}
    assert lines["95 % interval"] == pytest.approx(list(shown.primary.interval))
    assert lines["encoder before pre-training"] == pytest.approx([0.4])
    (tick,) = axis.collections
    assert tick.get_label() == "ProtCLIP, published"
    assert tick.get_segments()[0][:, 0] == pytest.approx([0.7, 0.7])


def test_overview_writes_what_has_no_place_on_the_axis():
    ranks = row("ranks", 0.6, metric="rank", higher_is_better=False)
    lost = summarise(spec("lost"), [failed(result("lost", [1]), "gone")])[0]
    figure = draw_overview("t", [ranks, lost])
    axis = figure.axes[0]
    assert len(axis.patches) == 0
    texts = [text.get_text() for text in axis.texts]
    assert any(text.startswith("40.000  [") for text in texts)
    assert "failed" in texts
    assert [label.get_text() for label in axis.get_yticklabels()] == ["ranks  ·  rank ↓", "lost  ·  share"]


def test_overview_reaches_below_zero():
    axis = draw_overview("t", summarise(spec("x"), [result("x", [-0.5, -0.2, -0.3])])).axes[0]
    assert axis.get_xlim()[0] < -0.4


def test_groups_shows_means_and_others_only_where_they_have_all():
    rows = [
        row("a", 0.2, "A", {"ProtCLIP": 0.5}),
        row("b", 0.6, "A", {"ProtCLIP": 0.7}),
        row("c", 0.5, "B", {"ProtCLIP": 0.9}, untouched=0.1),
        row("d", 0.7, "B"),
        row("e", 0.9, "C", untouched=0.3),
        row("ranks", 0.9, "D", metric="rank", higher_is_better=False),
    ]
    axis = draw_groups("t", rows).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["A", "B", "C"]
    lines = {line.get_label(): list(line.get_ydata()) for line in axis.lines}
    nan = np.nan
    expected = {
        "this checkpoint": [0.4, 0.6, 0.9, 0.4],
        "before pre-training": [nan, nan, 0.3, nan],
        "ProtCLIP, published": [0.6, nan, nan, 0.6],
    }
    assert lines.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(lines[name], values)


def test_groups_counts_a_benchmark_once_by_its_best_protocol():
    runs = [result("a", hits(0.2)), result("a", hits(0.8), protocol="finetune")]
    rows = [*summarise(spec("a", group="A"), runs), row("b", 0.5, "B"), row("c", 0.5, "C")]
    assert draw_groups("t", rows).axes[0].lines[0].get_ydata()[0] == pytest.approx(0.8)


def test_groups_needs_three():
    assert draw_groups("t", [row("a", 0.5, "A"), row("b", 0.5, "B")]) is None


def test_svg_takes_the_colours_of_the_page_and_is_the_same_every_time():
    shown = [row("x", 0.5)]
    first, second = svg(draw_overview("<t>", shown)), svg(draw_overview("<t>", shown))
    assert first == second
    root = ElementTree.fromstring(first)
    assert root.tag.endswith("svg")
    assert "var(--ink)" in first
    assert "#1c2330" not in first
    assert "<dc:" not in first
    assert re.findall(r'href="([^#"]+)', first) == []
    assert "<t>" in "".join(root.itertext())


def test_png_is_an_opaque_picture():
    image = Image.open(io.BytesIO(png(draw_overview("t", [row("x", 0.6)]))))
    pixels = np.asarray(image.convert("RGBA"))
    assert pixels.shape[1] > 1000
    assert (pixels[..., 3] == 255).all()
    assert len(np.unique(pixels.reshape(-1, 4), axis=0)) > 10
