import pytest

from protclip.page import html_facts, html_list, html_page, html_table, markdown_table, percent


def test_html_holds_text_that_looks_like_markup() -> None:
    page = html_page(
        "a < b", [html_table(("<h>",), [("<c>",)]), html_facts({"<k>": "<v>"}), html_list(["<i>"])]
    )
    for letter in "hckvi":
        assert f"&lt;{letter}&gt;" in page
        assert f"<{letter}>" not in page
    assert page.count("a &lt; b") == 2
    assert page.count("<section>") == page.count("</section>") == 3


def test_markdown_table_escapes_what_divides_cells() -> None:
    assert markdown_table(("a", "b"), [("1|2", "3")]) == ["| a | b |", "|---|---|", "| 1\\|2 | 3 |"]


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 7, "0.00%"), (1, 10**6, "< 0.01%"), (1, 10**4, "0.01%"), (1, 1, "100.00%"), (0, 0, "–")],
)
def test_percent_is_zero_only_of_nothing(part: int, whole: int, text: str) -> None:
    assert percent(part, whole) == text
