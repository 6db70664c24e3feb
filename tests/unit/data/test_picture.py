from pathlib import Path

import matplotlib.image

from protclip.data.manifest import StratumCount
from protclip.data.picture import draw, render


def test_render_holds_every_cell_in_both_forms() -> None:
    text, markdown = render("Title", ("C", "entries"), [("1", "2,000"), ("5", "0")])
    assert "Title" in text
    assert markdown.startswith("# Title\n\n| C | entries |\n")
    for form in (text, markdown):
        assert all(cell in form for cell in ("2,000", "5"))
    assert len([line for line in markdown.splitlines() if line.startswith("|")]) == 4


def test_draw_makes_a_panel_for_each_part(tmp_path: Path) -> None:
    full = [
        StratumCount(confidence=c, coverage=r, reviewed=c, unreviewed=10**c)
        for c in range(1, 6)
        for r in (1, 4)
    ]
    widths = []
    for panels in ([("one", full)], [("before", full), ("after", [])]):
        draw("Title", panels, tmp_path / "x.png")
        image = matplotlib.image.imread(tmp_path / "x.png")
        assert image[..., :3].std() > 0.05
        widths.append(image.shape[1])
    assert widths[1] > 1.5 * widths[0]
