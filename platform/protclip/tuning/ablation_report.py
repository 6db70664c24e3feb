"""An ablation as a page, as Markdown, as JSON, as a table and as pictures."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from protclip.config.keys import show
from protclip.evaluation.charts import png, svg
from protclip.page import difference, html_facts, html_list, html_page, html_table, markdown_table, number
from protclip.tuning.ablation import Effect, Row, Verdict
from protclip.tuning.ablation_charts import draw_effects, draw_series
from protclip.tuning.candidate import Param

MARKS: Mapping[Verdict, str] = {
    "better": "▲", "worse": "▼", "better (one seed)": "△", "worse (one seed)": "▽",
}  # fmt: skip
UNEVEN = 1.05
"""Ratio of the most to the fewest training pairs from which on a reader is told."""
TABLE_COLUMNS = (
    "variant", "metric", "group", "mean", "deviation", "num_seeds", "reference_mean", "difference", "low",
    "high", "seed_error", "unit_error", "p", "corrected_p", "verdict", "why",
)  # fmt: skip
STYLE = """
main { max-width: 80rem } svg { width: 100%; height: auto; display: block; margin-bottom: 1rem }
svg text { font-family: system-ui, sans-serif !important }
h3 { font-size: .95rem; margin: 1.2rem 0 .4rem }
table.effects td:last-child, table.effects th:last-child { text-align: left; white-space: normal }
p { color: var(--dim); font-size: .87rem; margin: 1rem 0 0 }
"""
EFFECT_HEADINGS = (
    "Variant",
    "Seeds",
    "Mean ± sd",
    "Difference [95 % interval]",
    "p",
    "p, corrected",
    "Verdict",
)


@dataclass(frozen=True, slots=True)
class Ablated:
    """What was tried, and what came out.

    Attributes:
        name: The ablation's.
        reference: The variant the others are held against.
        varied: Value of every key in which variants differ, by variant.
        seeds: Training seeds asked for.
        rows: One for each metric.
        incomplete: Why, by candidate, for those that are missing.
        num_pairs: Training pairs by variant; empty where all variants have the same.
        resamples: Bootstrap resamples of the test units.
        level: Significance level.
        created: When, ISO 8601.
        git_sha: Commit of the comparing code, when known.
    """

    name: str
    reference: str
    varied: Mapping[str, Mapping[str, Param]]
    seeds: Sequence[int]
    rows: Sequence[Row]
    incomplete: Mapping[str, str]
    num_pairs: Mapping[str, int]
    resamples: int
    level: float
    created: str
    git_sha: str | None

    @property
    def title(self) -> str:
        """Heading."""
        return f"Ablation {self.name}"

    @property
    def groups(self) -> dict[str, list[Row]]:
        """Rows by group."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(row.group, []).append(row)
        return groups

    @property
    def remarks(self) -> list[str]:
        """What a reader must know."""
        found = [f"{name} is missing: {why}" for name, why in self.incomplete.items()]
        counts = self.num_pairs.values()
        if counts and max(counts) > UNEVEN * min(counts):
            found.append(
                "variants were not trained on equally many pairs, so that how they were drawn is not all "
                "that differs; sample with a target_pairs"
            )
        return found

    @property
    def facts(self) -> dict[str, str]:
        """What was compared with what, for people."""
        return {
            "Reference": self.reference,
            "Training seeds": show(list(self.seeds)),
            "Code": self.git_sha or "unknown commit",
            "Made": self.created,
        }

    @property
    def reading(self) -> str:
        """How to read the tables."""
        return (
            "Differences are the variant's less the reference's, means over the training seeds both have. "
            "Their standard error adds up two sorts of noise: how much the differences vary from seed to "
            f"seed, and how much their mean varies with the test units ({self.resamples:,} paired bootstrap "
            "resamples, fewer where a benchmark is very large). Intervals (95 %) and two-sided p-values are "
            "Student's t with Satterthwaite's degrees of freedom; p is corrected for a variant's number of "
            f"rows (Holm), and a difference is called better (▲) or worse (▼) when the corrected p is at "
            f"most {self.level:g}. With one seed (△ ▽) only the test units count: another training may say "
            "otherwise. Validation metrics have no test units, only seeds."
        )


def files(ablated: Ablated) -> dict[str, bytes]:
    """The ablation in all forms, by file name."""
    effects = draw_effects(ablated.title, ablated.reference, ablated.rows)
    line = draw_series(ablated.title, ablated.reference, ablated.rows, ablated.varied)
    pictures = [effects] if line is None else [line, effects]
    return {
        "ablation.html": to_html(ablated, [svg(picture) for picture in pictures]).encode(),
        "ablation.md": to_markdown(ablated, line is not None).encode(),
        "ablation.json": (json.dumps(to_json(ablated), indent=2, allow_nan=False) + "\n").encode(),
        "ablation.png": png(effects),
        **({} if line is None else {"ablation_series.png": png(line)}),
    }


def overview_headings(ablated: Ablated) -> tuple[str, ...]:
    """Of the table of all variants."""
    pairs = ("Training pairs",) if ablated.num_pairs else ()
    return ("Variant", *pairs, *(f"{row.label}{_arrow(row)}" for row in ablated.rows))


def overview(ablated: Ablated) -> list[tuple[str, ...]]:
    """All variants by all metrics, for `overview_headings`; the reference first."""
    table = []
    for variant in _order(ablated):
        name = f"{variant} (reference)" if variant == ablated.reference else variant
        count = ablated.num_pairs.get(variant)
        pairs = ("–" if count is None else f"{count:,}",) if ablated.num_pairs else ()
        table.append((name, *pairs, *(_spread(row, variant) + _mark(row, variant) for row in ablated.rows)))
    return table


def settings_table(ablated: Ablated) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and rows: what each variant is."""
    keys = list(dict.fromkeys(key for own in ablated.varied.values() for key in own))
    rows = [
        (variant, *(show(ablated.varied[variant].get(key)) for key in keys)) for variant in _order(ablated)
    ]
    return ("Variant", *keys), rows


def effect_rows(ablated: Ablated, row: Row) -> list[tuple[str, ...]]:
    """One metric of all variants, for `EFFECT_HEADINGS`; the reference first."""
    first = (ablated.reference, str(len(row.values[ablated.reference])), _spread(row, ablated.reference))
    return [
        (*first, *["–"] * 3, "reference"),
        *(
            (variant, str(len(row.values[variant])), _spread(row, variant), *_cells(effect))
            for variant, effect in row.effects.items()
        ),
    ]


def _cells(effect: Effect) -> tuple[str, ...]:
    """Difference, p, corrected p and verdict."""
    low_high = "" if effect.interval is None else " [{}, {}]".format(*map(difference, effect.interval))
    return (
        difference(effect.difference) + low_high,
        *(f"{p:.2g}" if math.isfinite(p) else "–" for p in (effect.p, effect.corrected_p)),
        f"{effect.verdict}: {effect.why}" if effect.why else effect.verdict,
    )


def _spread(row: Row, variant: str) -> str:
    """Mean and standard deviation over seeds."""
    deviation = row.deviation(variant)
    return number(row.mean(variant)) + (f" ± {number(deviation)}" if math.isfinite(deviation) else "")


def _mark(row: Row, variant: str) -> str:
    """A verdict in one sign."""
    mark = MARKS.get(row.effects[variant].verdict) if variant in row.effects else None
    return f" {mark}" if mark else ""


def _arrow(row: Row) -> str:
    """Says where less is better."""
    return "" if row.higher_is_better else " ↓"


def _order(ablated: Ablated) -> list[str]:
    """Variants, the reference first."""
    return sorted(ablated.varied, key=lambda variant: variant != ablated.reference)


def summary_markdown(ablated: Ablated) -> str:
    """All variants by all metrics, and a table for each metric."""
    lines = [*markdown_table(overview_headings(ablated), overview(ablated)), ""]
    for group, rows in ablated.groups.items():
        lines += [f"## {group}", ""]
        for row in rows:
            lines += [f"### {row.label}{_arrow(row)}", ""]
            lines += [*markdown_table(EFFECT_HEADINGS, effect_rows(ablated, row)), ""]
    return "\n".join(lines)


def to_markdown(ablated: Ablated, with_line: bool) -> str:
    """The ablation as Markdown, with pictures beside it."""
    facts = [f"- {label}: {value}" for label, value in ablated.facts.items()]
    parts = (
        f"# {ablated.title}",
        "\n".join(f"- {remark}" for remark in ablated.remarks),
        summary_markdown(ablated),
        ablated.reading,
        "![differences](ablation.png)",
        "![values](ablation_series.png)" if with_line else "",
        "\n".join(("## Variants", "", *markdown_table(*settings_table(ablated)))),
        "\n".join(facts),
    )
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def to_html(ablated: Ablated, pictures: Sequence[str]) -> str:
    """The ablation as one page that needs nothing from outside."""
    first = html_table(overview_headings(ablated), overview(ablated)) + f"<p>{escape(ablated.reading)}</p>"
    cards = [
        first + (html_list(ablated.remarks) if ablated.remarks else "") + html_facts(ablated.facts),
        "".join(pictures),
    ]
    for group, rows in ablated.groups.items():
        tables = (
            f"<h3>{escape(row.label + _arrow(row))}</h3>"
            + html_table(EFFECT_HEADINGS, effect_rows(ablated, row), "effects")
            for row in rows
        )
        cards.append(f"<h2>{escape(group)}</h2>" + "".join(tables))
    cards.append("<h2>Variants</h2>" + html_table(*settings_table(ablated)))
    return html_page(ablated.title, cards, STYLE)


def table(ablated: Ablated) -> list[list[str | float | None]]:
    """A row for each variant and metric, for `TABLE_COLUMNS`."""
    return [
        [
            variant,
            row.name,
            row.group,
            *map(_finite, (row.mean(variant), row.deviation(variant))),
            len(row.values[variant]),
            *map(_finite, (row.mean(ablated.reference), effect.difference)),
            *(effect.interval or (None, None)),
            *map(_finite, (effect.seed_error, effect.unit_error, effect.p, effect.corrected_p)),
            effect.verdict,
            effect.why,
        ]
        for row in ablated.rows
        for variant, effect in row.effects.items()
    ]


def to_json(ablated: Ablated) -> dict[str, object]:
    """Everything; undefined numbers are null."""
    return {
        "name": ablated.name,
        "reference": ablated.reference,
        "variants": {variant: dict(own) for variant, own in ablated.varied.items()},
        "seeds": list(ablated.seeds),
        "values": {
            row.name: {
                variant: {str(seed): _finite(value) for seed, value in values.items()}
                for variant, values in row.values.items()
            }
            for row in ablated.rows
        },
        "rows": [dict(zip(TABLE_COLUMNS, row, strict=True)) for row in table(ablated)],
        "incomplete": dict(ablated.incomplete),
        "num_pairs": dict(ablated.num_pairs),
        "resamples": ablated.resamples,
        "level": ablated.level,
        "created": ablated.created,
        "git_sha": ablated.git_sha,
    }


def _finite(value: float) -> float | None:
    """A number as JSON has it."""
    return value if math.isfinite(value) else None
