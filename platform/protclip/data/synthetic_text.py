"""Wording of made entries: names, functions, places, similarities and the other comments.

A template is text with `[choice|choice]` groups, one of which is drawn, and `{slots}` filled from what
is annotated. Reviewed texts are rich and seldom repeat; unreviewed ones are short and uniform.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from protclip.data import synthetic_words as words
from protclip.data.synthetic_families import PLACES, SUBFAMILIES, Family, Kind, Organism
from protclip.data.synthetic_members import Kin
from protclip.records import Property

T = TypeVar("T")
_Template = tuple[tuple[str, ...], ...]


class Dice:
    """Cheap scalar draws from a numpy generator, which hands out its numbers in large lots."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._next = self._numbers(rng).__next__

    @staticmethod
    def _numbers(rng: np.random.Generator) -> Iterator[float]:
        while True:
            yield from rng.random(4096).tolist()

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[int(self._next() * len(options))]

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._next() < probability

    def number(self, low: int, high: int) -> int:
        """A whole number in low … high - 1."""
        return low + int(self._next() * (high - low))


@dataclass(frozen=True, slots=True)
class Annotation:
    """What an entry says about its protein; texts carry no evidence tags and end without a full stop.

    Attributes:
        name: Recommended or submitted name.
        short_name: Abbreviation, or empty.
        other_names: Alternative names.
        ec: EC number, or empty.
        gene: Gene symbol as the organism writes it.
        function: Sentences of FUNCTION; empty when absent.
        place: SUBCELLULAR LOCATION without its note; empty when absent.
        place_note: The note, or empty.
        similarity: SIMILARITY sentences; empty when absent.
        others: Further comments, topic to text.
    """

    name: str
    short_name: str
    other_names: tuple[str, ...]
    ec: str
    gene: str
    function: tuple[str, ...]
    place: str
    place_note: str
    similarity: tuple[str, ...]
    others: Mapping[str, str]

    def texts(self) -> dict[Property, str]:
        """The properties present, as plain text in biotext order."""
        place = f"{self.place}. Note={self.place_note}" if self.place_note else self.place
        texts = {
            Property.PROTEIN_NAME: " ".join((self.name, *(f"({n})" for n in self.other_names))),
            Property.FUNCTION: ". ".join(self.function),
            Property.SUBCELLULAR_LOCATION: place,
            Property.SIMILARITY: ". ".join(self.similarity),
        }
        return {p: f"{t}." for p, t in texts.items() if t}


def _template(text: str) -> _Template:
    """Splits a template into its fixed parts and its choices."""
    return tuple(words.choices(part) for part in re.split(r"[\[\]]", text) if part)


def _templates(*texts: str) -> tuple[_Template, ...]:
    """Compiles several templates."""
    return tuple(_template(t) for t in texts)


_COMMON = _templates(
    "[Responsible for|Needed for|Accounts for|Mediates] the {nominal} of {target}",
    "This [protein|factor|family member] {verb} {target}",
    "{title} [that|which] {verb} {target}",
)
_OPENINGS: dict[Kind, tuple[_Template, ...]] = {
    "enzyme": _templates(
        "Catalyzes the {nominal} of {target}",
        "[Carries out|Performs|Accelerates] the {ligand}-dependent {nominal} of {target}",
        "[Enzyme|Biocatalyst|Key enzyme] that {verb} {target}[| with high specificity| at neutral pH]",
        "{verb} {target} [with the help of|using|in the presence of] {ligand}",
    ),
    "transporter": _templates(
        "[Transporter|Carrier|Membrane protein] that {verb} {target}",
        "Mediates the {nominal} of {target}[| across the membrane| down the gradient]",
        "[Couples|Links] {ligand} to the {nominal} of {target}",
    ),
    "binding": _templates(
        "Binds {ligand} and {verb} {target}",
        "[Through|By means of] its {ligand}-binding site it {verb} {target}",
        "[Binding protein|Receptor-like protein] for {ligand}; {verb} {target}",
    ),
    "regulator": _templates(
        "[Transcription factor|Regulatory protein|DNA-binding protein] that {verb} {target}",
        "Controls the {nominal} of {target}[| in response to {ligand}]",
        "[Upon|After] binding of {ligand} it {verb} {target}",
    ),
    "structural": _templates(
        "[Structural|Scaffold|Load-bearing] protein that {verb} {target}",
        "Supports the {nominal} of {target}",
        "Together with {ligand} it {verb} {target}",
    ),
    "chaperone": _templates(
        "[Molecular chaperone|Chaperone] that {verb} {target}",
        "{verb} {target} [in a {ligand}-dependent cycle|under the control of {ligand}]",
        "[Assists in|Promotes|Supports] the {nominal} of {target}",
    ),
    "signal": _templates(
        "[Signalling molecule|Signalling protein|Messenger] that {verb} {target}",
        "[In the presence of|Together with] {ligand} it {verb} {target}",
        "[Elicits|Evokes] the {nominal} of {target}",
    ),
}
_PROCESSES = _templates(
    "[Involved|Participates|Takes part] in {process}",
    "[Plays a role in|Contributes to|Is required for|Is essential for|Has a role in] {process}",
    "[Needed|Required] for {process} [and|as well as] {process2}",
    "Links {process} to {process2}",
    "[Acts|Functions|Works] in {process}[, probably downstream of {partner}|, together with {partner}|]",
)
_DETAILS = _templates(
    "The {family} motif [is essential for|determines|is required for] {nominal}",
    "[Requires|Depends on|Needs|Uses] {ligand} [for activity|for full activity|for {nominal}]",
    "Activity is [lost|strongly reduced|abolished] [without {ligand}|when the {family} motif is mutated]",
    "Has no [detectable|measurable|obvious] activity towards {partner}",
    "Works best [at pH {ph}|near {celsius} degrees Celsius|at low salt|at high salt]",
    "[Also|In addition] [interacts with|recruits|competes with|stabilizes] {partner}",
    "[Loss|Absence|Disruption] [leads to|results in|causes] {phenotype}",
    "[Overexpression|Excess] [leads to|results in|causes] {phenotype}",
    "[Inhibited|Stimulated|Not affected] by [millimolar|micromolar|low|high] [|amounts of ]{compound}",
    "[Also|In vitro, also] [acts on|accepts|tolerates] {compound}[, at a lower rate|]",
    "[The|A] {feature} [positions the substrate|moves upon binding|is needed for {nominal}]",
    "[Shows|Has] {quality} [activity|behaviour], as [shown|judged] by {method}",
    "[Recruits|Competes with|Is a substrate of|Cooperates with] the {quality} {class}",
    "[Isoform {n}|The isoform of {tissue}] [lacks activity|has the opposite effect|is dominant negative]",
    "[Mutations|Substitutions] of residues near the [N-terminus|C-terminus] [abolish|impair] {nominal}",
    "[Autophosphorylation|Ubiquitination|Acetylation|Palmitoylation] [increases|decreases] activity",
    "[Translocates|Moves] to [the cytoskeleton|vesicles|endosomes|the Golgi apparatus] upon {stress}",
    "[Thereby|Subsequently|Possibly] [prevents|initiates|ends] the {class} [pathway|cascade] in {system}",
    "[Influences|Affects|Has an indirect effect on] {system}[ in {tissue}|]",
    "[In {tissue}|During {stage}|Upon {stress}], [|it ][regulates|modulates|supports|slows] {system}",
)
_CIRCUMSTANCES = _templates(
    ", [mainly|especially|also] during {stage}", ", [mainly|especially|even] under {stress}"
)
_SHORT = _templates("Catalyzes the {nominal} of {target}", "{verb} {target}", "Involved in {process}")
_NAMES = _templates(
    "{Family}-{n}",
    "{title} {n}",
    "{title} {gene}",
    "{sub} {title}",
    "{Family} {n}, {adjective}",
    "{title}, {adjective}",
    "{Family} subunit {sub}",
    "{adjective} {title} {n}",
)
_OTHER_NAMES = _templates(
    "{Family} family protein {n}",
    "Protein {made}",
    "{made}-interacting protein {n}",
    "{kda} kDa {title}",
    "{Family}-like protein {gene}",
    "{code}-{n}",
    "{made} homolog",
    "Protein {mutant} {n}",
)
_SUBMITTED = _templates(
    "{title}", "{Family} family protein", "{title} {n}", "{Family} domain-containing protein"
)
_SIMILARITIES = _templates("Belongs to the {family} family")


def _fill(dice: Dice, template: _Template, slots: Mapping[str, str]) -> str:
    """Draws the choices of a template and fills its slots; starts with a capital letter."""
    text = "".join([part[0] if len(part) == 1 else dice.pick(part) for part in template]).format_map(slots)
    return text[0].upper() + text[1:]


def _made_word(dice: Dice) -> str:
    """A protein name that exists nowhere."""
    return f"{dice.pick(words.STARTS)}-{dice.pick(words.ENDS)}"


def _gene(dice: Dice, family: Family, organism: Organism) -> str:
    """A gene symbol in the organism's style."""
    if organism.genes == "bacterial":
        return family.code.lower() + dice.pick("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    symbol = f"{family.code}{dice.number(1, 40)}"
    return {"upper": symbol, "title": symbol.capitalize(), "lower": symbol.lower()}[organism.genes]


def _slots(dice: Dice, kin: Kin, gene: str) -> dict[str, str]:
    """Everything a template may ask for."""
    family = kin.family
    activity = family.activities[kin.activity]
    first = dice.number(0, len(family.processes))
    return {
        "family": family.name,
        "Family": family.name.capitalize(),
        "code": family.code,
        "ligand": family.ligand,
        "title": activity.title,
        "verb": activity.verb,
        "nominal": activity.nominal,
        "target": activity.target,
        "sub": SUBFAMILIES[kin.activity].lower(),
        "adjective": PLACES[kin.place].adjective,
        "gene": gene,
        "process": family.processes[first],
        "process2": family.processes[first - 1],
        "partner": f"{_made_word(dice)}-{dice.number(1, 10)}",
        "made": _made_word(dice).capitalize(),
        "phenotype": dice.pick(words.PHENOTYPES),
        "mutant": dice.pick(words.MUTANT_WORDS),
        "tissue": dice.pick(words.TISSUES),
        "tissue2": dice.pick(words.TISSUES),
        "stress": dice.pick(words.STRESSES),
        "stage": dice.pick(words.STAGES),
        "compound": dice.pick(words.COMPOUNDS),
        "feature": dice.pick(words.FEATURES),
        "method": dice.pick(words.METHODS),
        "system": dice.pick(words.SYSTEMS),
        "class": dice.pick(words.CLASSES),
        "quality": dice.pick(words.QUALITIES),
        "n": str(dice.number(1, 30)),
        "kda": str(dice.number(12, 110)),
        "ph": str(dice.number(5, 10)),
        "celsius": str(dice.number(18, 80)),
    }


_OTHERS: dict[str, tuple[_Template, ...]] = {
    "SUBUNIT": _templates(
        "[Homodimer|Monomer|Homotrimer|Homotetramer|Hexamer]",
        "[Interacts|Forms a complex] with {partner}",
        "[Heterodimer|Heterotetramer] of {sub} and {made} subunits",
    ),
    "TISSUE SPECIFICITY": _templates(
        "[Expressed|Found|Detected] in {tissue} and {tissue2}",
        "[Highest|Strongest] [expression|levels] in {tissue}[, lower in {tissue2}|]",
        "Ubiquitous[, but low in {tissue}| with a maximum in {tissue}|]",
    ),
    "DEVELOPMENTAL STAGE": _templates("[Expressed|Peaks|Accumulates|Disappears] during {stage}"),
    "INDUCTION": _templates("[By|Up-regulated by|Repressed by|Induced by] {stress}[ and {partner}|]"),
    "DISRUPTION PHENOTYPE": _templates("[Mutants|Null mutants|Knockouts] show {phenotype}"),
    "MISCELLANEOUS": _templates(
        "Present with [about|nearly] {kda}0 molecules per cell in [log phase|rich medium]"
    ),
}


def _function(dice: Dice, kind: Kind, slots: Mapping[str, str]) -> tuple[str, ...]:
    """One to four sentences of a reviewed FUNCTION, the main one usually first."""
    openings = _OPENINGS[kind] if dice.chance(0.75) else _COMMON
    sentences = [_fill(dice, dice.pick(openings), slots)]
    if dice.chance(0.6):
        sentences.insert(dice.chance(0.8), _fill(dice, dice.pick(_PROCESSES), slots))
    if dice.chance(0.5):
        sentences.append(_fill(dice, dice.pick(_DETAILS), slots))
    if dice.chance(0.2):
        sentences[0] += _fill(dice, dice.pick(_CIRCUMSTANCES), slots)
    return tuple(sentences)


def annotate(
    dice: Dice, kin: Kin, organism: Organism, *, reviewed: bool, confidence: int, present: frozenset[Property]
) -> Annotation:
    """Words what is believed of a protein.

    Args:
        dice: Source of every choice.
        kin: Family, activity and place the entry claims, which for a bad entry are not the true ones.
        organism: Where it comes from; decides how genes are written.
        reviewed: Rich wording, or short and uniform.
        confidence: Protein existence level; the worse, the more hedged the name.
        present: Properties to state (the name always is).
    """
    family, place = kin.family, PLACES[kin.place]
    gene = _gene(dice, family, organism)
    slots = _slots(dice, kin, gene)
    function: tuple[str, ...] = ()
    similarity: tuple[str, ...] = ()
    if reviewed:
        name = _fill(dice, dice.pick(_NAMES), slots)
        others = tuple(_fill(dice, dice.pick(_OTHER_NAMES), slots) for _ in range(dice.number(0, 3)))
    else:
        name = _fill(dice, dice.pick(_SUBMITTED), slots)
        others = ()
    if confidence > 2 and dice.chance(0.15 * confidence - 0.2):
        name = dice.pick(("Probable ", "Putative ")) + name[0].lower() + name[1:]
    if Property.FUNCTION in present:
        if reviewed:
            function = _function(dice, family.kind, slots)
        else:
            function = (_fill(dice, dice.pick(_SHORT), slots),)
    if Property.SIMILARITY in present:
        similarity = (_fill(dice, _SIMILARITIES[0], slots),)
        if len(family.activities) > 1:
            similarity += (f"{SUBFAMILIES[kin.activity]} subfamily",)
    located = Property.SUBCELLULAR_LOCATION in present
    return Annotation(
        name=name,
        short_name=f"{family.code}-{slots['n']}" if reviewed and dice.chance(0.3) else "",
        other_names=tuple(dict.fromkeys(others)),
        ec=family.activities[kin.activity].ec,
        gene=gene,
        function=function,
        place=(dice.pick(place.terms) if reviewed else place.terms[0]) if located else "",
        place_note=dice.pick(place.notes) if located and reviewed and dice.chance(0.3) else "",
        similarity=similarity,
        others={
            topic: _fill(dice, dice.pick(options), slots)
            for topic, options in _OTHERS.items()
            if reviewed and dice.chance(0.25)
        },
    )
