"""What a θ report says: sentences and tables, on a page and as Markdown. Shape suffixes as in `theta`."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from protclip.evaluation.charts import svg
from protclip.evaluation.theta import ANY, FEW, KINDS, mean_and_error
from protclip.evaluation.theta_choice import Contrast, Findings, Peak, PropertyAnswer
from protclip.page import difference, html_facts, html_list, html_page, html_table, markdown_table, number
from protclip.records import PROPERTIES, Property

TITLE = "Threshold θ by property and family"
CRITERIA = {
    "above": "own text above others'",
    "first": "own text first",
    "accuracy": "own property first",
    "enrichment": f"enrichment of {ANY}",
}
"""What people read for each criterion."""

ALIKE = 0.99
"""Mean cosine from which on the texts of a property are called the same to the model."""

READING = (
    f"A segment is the residues whose similarity to the property's text is θ or more; with at most {FEW} "
    "residues it is called collapsed.",
    "Cosine is that of a segment and its property's text; others' cosine that of other proteins' texts of "
    "the property, each with the segment that it chooses in this protein, since a text always agrees best "
    "with residues it chose itself. What the first is above the second, the segment knows of this protein.",
    "Own text above others' is the share of those texts that the own one is above, chance 0.5. Own text "
    "first is above all of them, chance one in the pool. Texts of relatives say the same in other words, so "
    "neither need come to 1.",
    "Margin and own property first are against the other properties of the same protein, PDA's task. What "
    "all segments of a property have in common solves it, so it shows no knowledge of the protein.",
    "Sites: the segment's weight on them over their share of the residues (1× is chance), then precision / "
    "recall of its residues.",
    "± is the standard error over proteins. A best θ is chosen on one half of the proteins, in brackets the "
    "95 % interval of the choice over resamples; gains are measured on the other half, with 95 % intervals "
    "and p from a bootstrap paired by protein, p corrected for the number of rows (Holm). Proteins count as "
    "independent, relatives too: this speaks of these families, not of new ones.",
)
STYLE = """
main { max-width: 82rem } svg { width: 100%; height: auto; display: block }
svg text { font-family: system-ui, sans-serif !important }
td, th { padding: .3rem .5rem; font-size: .88rem } table + table { margin-top: 1.2rem }
ul { margin: 0 0 1rem }
"""

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


class Section(NamedTuple):
    """A part of the report: heading, sentences, and headings and rows of each table."""

    title: str
    remarks: Sequence[str]
    tables: Sequence[Table]


def to_markdown(findings: Findings, picture: str) -> str:
    """The report as Markdown, with a picture beside it."""
    lines = [f"# {TITLE}", "", *(f"- {label}: {value}" for label, value in _facts(findings).items()), ""]
    for index, section in enumerate(_sections(findings)):
        lines += [f"## {section.title}", "", *(f"- {remark}" for remark in section.remarks)]
        lines += [""] * bool(section.remarks)
        for headings, rows in section.tables:
            lines += [*markdown_table(headings, rows), ""]
        if not index:
            lines += [f"![measures over θ]({picture})", ""]
    return "\n".join(lines).strip() + "\n"


def to_html(findings: Findings, figure: Figure) -> str:
    """The report as one page that needs nothing from outside."""
    cards = [
        f"<h2>{escape(section.title)}</h2>"
        + (html_list(section.remarks) if section.remarks else "")
        + "".join(html_table(*table) for table in section.tables)
        for section in _sections(findings)
    ]
    cards[0] += html_facts(_facts(findings))
    return html_page(TITLE, [cards[0], svg(figure), *cards[1:]], STYLE)


def conclusions(findings: Findings) -> list[str]:
    """What can be said, in plain sentences: of each property, of properties, of families."""
    answer = findings.answer
    known = [best for best in answer.properties if best.over_training.proteins]
    sentences = [_of_property(best) for best in known]
    gain = _gain(answer.over_common)
    if answer.over_common.verdict == "better":
        sentences.append(
            f"The best θ differs between properties: one each against {answer.common:g} for all gains {gain}."
        )
    else:
        sentences.append(
            "That the best θ differs between properties is not shown: one each against "
            f"{answer.common:g} for all gives {gain}."
        )
    if not findings.names:
        sentences.append(
            f"No family has {findings.config.min_family} proteins, so nothing is said of families; give more "
            "entries or a lower min_family."
        )
        return sentences + _warnings(findings)
    count = f"{len(findings.names)} families"
    differing = [best for best in known if best.over_property.verdict == "better"]
    if differing:
        gains = "; ".join(f"{_name(best.prop)} {_gain(best.over_property)}" for best in differing)
        sentences.append(f"The best θ differs between {count} for {gains}.")
    if len(differing) < len(known):
        rest = ", ".join(_name(best.prop) for best in known if best not in differing)
        sentences.append(f"That it differs between {count} is not shown for {rest}.")
    return sentences + _warnings(findings)


def _of_property(best: PropertyAnswer) -> str:
    """The verdict on a property."""
    name, where = _name(best.prop).capitalize(), f"{best.peak.theta:g} {_range(best.peak)}"
    if best.over_chance.verdict != "better":
        return (
            f"{name}: at no θ better than chance ({number(best.after)} at the best, chance "
            f"{number(best.chance)}), so there is nothing to choose."
        )
    if best.peak.theta == best.training:
        return (
            f"{name}: no θ was better than that of training, {best.training:g}; best in {_range(best.peak)}."
        )
    return (
        f"{name}: θ = {where} instead of {best.training:g} in training: {number(best.before)} to "
        f"{number(best.after)}, {_gain(best.over_training)}: {best.verdict}."
    )


def _warnings(findings: Findings) -> list[str]:
    """Where texts are not told apart, and where segments collapse."""
    sentences, measured = [], findings.measured
    if same := [prop for prop, alike in zip(PROPERTIES, measured.alike, strict=True) if alike >= ALIKE]:
        sentences.append(
            "To the model all texts of these properties are nearly the same prototype (mean cosine of two "
            f"{ALIKE:g} or more): {', '.join(map(_name, same))}."
        )
    few_KT, _ = mean_and_error(measured.alignment["few"])
    for prop, few_T in zip(PROPERTIES, few_KT, strict=True):
        if len(over := np.flatnonzero(few_T > 0.5)):
            sentences.append(
                f"From θ = {measured.thetas[over[0]]:g} on most segments of {_name(prop)} have at most {FEW} "
                "residues."
            )
    return sentences


def _facts(findings: Findings) -> dict[str, str]:
    """What was measured, with what."""
    config = findings.config
    pools = zip(PROPERTIES, findings.measured.pools, findings.measured.alike, strict=True)
    return {
        "Checkpoint": f"{findings.checkpoint} (step {findings.step})",
        "Entries": f"{len(findings.family_N):,} of {config.entries}",
        "Criterion": CRITERIA[config.criterion],
        "Texts in the pool, and mean cosine of two": "; ".join(
            f"{_name(prop)} {pool}, {number(alike)}" for prop, pool, alike in pools
        ),
        "Resamples": f"{config.resamples:,}, seed {config.seed}",
    }


def _sections(findings: Findings) -> list[Section]:
    """All parts, in order."""
    best = findings.answer.properties
    sections = [Section("Which θ", conclusions(findings), [_choices(findings)])]
    sections += [_property(findings, k) for k in range(len(best)) if best[k].over_training.proteins]
    return [*sections, Section("How to read this", READING, [])]


def _choices(findings: Findings) -> Table:
    """A row for each property."""
    criterion = CRITERIA[findings.config.criterion]
    headings = (
        *("property", "training θ", "best θ", f"{criterion}: at training θ", "at best θ", "chance"),
        *("gain [95 % interval]", "p", "verdict", "gain of a θ per family [95 % interval]", "p", "verdict"),
    )
    rows = [
        (
            _name(best.prop),
            f"{best.training:g}",
            f"{best.peak.theta:g} {_range(best.peak)}",
            *map(number, (best.before, best.after, best.chance)),
            *_cells(best.over_training)[:2],
            best.verdict if best.over_training.proteins else "–",
            *_cells(best.over_property),
        )
        for best in findings.answer.properties
    ]
    return headings, rows


def _property(findings: Findings, k: int) -> Section:
    """Everything about one property."""
    prop = PROPERTIES[k]
    tables = [_alignment(findings, k)]
    if not np.isnan(findings.measured.overlap["recall"][:, k]).all():
        tables.append(_overlap(findings, k))
    if findings.names:
        tables.append(_families(findings, k))
    count = int(findings.measured.present_NK[:, k].sum())
    return Section(f"{_name(prop).capitalize()}: {count:,} proteins", (), tables)


def _alignment(findings: Findings, k: int) -> Table:
    """A row for each θ."""
    means = {name: mean_and_error(values[:, k]) for name, values in findings.measured.alignment.items()}
    shares = {"residues in it": "share", f"at most {FEW} residues": "few", "one residue": "single"}
    others = {
        "cosine": "cosine",
        "others' cosine": "others",
        CRITERIA["above"]: "above",
        CRITERIA["first"]: "first",
        "margin": "margin",
        CRITERIA["accuracy"]: "accuracy",
    }
    rows = [
        (
            _theta(findings, k, t),
            *(f"{means[name][0][t]:.1%}" for name in shares.values()),
            *(_with_error(means[name][0][t], means[name][1][t]) for name in others.values()),
        )
        for t in range(len(findings.measured.thetas))
    ]
    return ("θ", *shares, *others), rows


def _overlap(findings: Findings, k: int) -> Table:
    """A row for each θ, a column for each kind of site."""
    found = {name: mean_and_error(values[:, k]) for name, values in findings.measured.overlap.items()}
    known_S = (~np.isnan(findings.measured.overlap["recall"][:, k, :, 0])).sum(0)
    kinds = np.flatnonzero(known_S)
    (gain_ST, error_ST), (precision_ST, _), (recall_ST, _) = (
        found[name] for name in ("enrichment", "precision", "recall")
    )
    rows = [
        (
            _theta(findings, k, t),
            *(
                f"{gain_ST[s, t]:.2f}× ± {error_ST[s, t]:.2f}, "
                f"{precision_ST[s, t]:.2f} / {recall_ST[s, t]:.2f}"
                for s in kinds
            ),
        )
        for t in range(len(findings.measured.thetas))
    ]
    return ("θ", *(f"{KINDS[s]}: {known_S[s]:,}" for s in kinds)), rows


def _families(findings: Findings, k: int) -> Table:
    """A row for each family, a column for each θ."""
    scores_NT = findings.measured.of(findings.config.criterion)[:, k]
    best = findings.answer.properties[k]
    ends = {f.name: (f"{f.peak.theta:g} {_range(f.peak)}", *_cells(f.over_property)) for f in best.families}
    rows = []
    for name, members_N in findings.groups:
        known_NT = scores_NT[members_N & ~np.isnan(scores_NT[:, 0])]
        means_T, _ = mean_and_error(known_NT)
        rows.append((f"{name}: {len(known_NT):,}", *map(number, means_T), *ends.get(name, ("–",) * 4)))
    thetas = [_theta(findings, k, t) for t in range(len(findings.measured.thetas))]
    last = ("best θ", f"gain over {best.peak.theta:g} [95 % interval]", "p", "verdict")
    return (CRITERIA[findings.config.criterion], *thetas, *last), rows


def _theta(findings: Findings, k: int, t: int) -> str:
    """A θ, marked when it is that of training."""
    theta = findings.measured.thetas[t]
    return f"{theta:g} (training)" if theta == findings.training[k] else f"{theta:g}"


def _name(prop: Property) -> str:
    """A property in a sentence."""
    return prop.label.lower()


def _range(peak: Peak) -> str:
    """Where the best θ may be."""
    return f"[{peak.low:g}, {peak.high:g}]"


def _with_error(mean: float, error: float) -> str:
    """A mean and its standard error."""
    return "–" if np.isnan(mean) else f"{mean:.3f} ± {error:.3f}"


def _interval(contrast: Contrast) -> str:
    """A gain with its interval."""
    bounds = "" if contrast.interval is None else " [{}, {}]".format(*map(difference, contrast.interval))
    return difference(contrast.gain) + bounds


def _gain(contrast: Contrast) -> str:
    """A gain in a sentence."""
    return f"{_interval(contrast)}, p = {contrast.p:.2g}"


def _cells(contrast: Contrast) -> tuple[str, str, str]:
    """Gain, p and verdict of a row."""
    if not contrast.proteins:
        return "–", "–", "–"
    return _interval(contrast), f"{contrast.p:.2g}", contrast.verdict
