import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from protclip.data.sites import Site
from protclip.data.synthetic import write_sample
from protclip.errors import DataError
from protclip.evaluation import theta
from protclip.evaluation.embed import Embedder
from protclip.evaluation.theta import (
    ALIGNMENT,
    ANY,
    KINDS,
    OVERLAP,
    Protein,
    agreement,
    draw,
    families,
    mean_and_error,
    measure,
    sites_found,
)
from protclip.losses.pda import dynamic_segments
from protclip.records import PROPERTIES, ProteinRecord, sampling_key

THETAS = (0.0, 0.3, 0.6, 0.9)
LETTERS = list("ACDEFGHIKLMNPQRSTVWY")


def protein(accession: str, sequence: str, sites: list[Site] | None = None, **texts: str) -> Protein:
    record = ProteinRecord(
        accession, "", True, sequence, texts.get("protein_name", ""), similarity=texts.get("similarity")
    )
    return Protein(record, sites or [], tuple(texts.get(prop, "") for prop in PROPERTIES))


@pytest.fixture(scope="module")
def embedder(tiny_checkpoint: Path) -> Embedder:
    return Embedder.from_checkpoint(str(tiny_checkpoint))


@pytest.fixture(scope="module")
def proteins() -> list[Protein]:
    rng = np.random.default_rng(3)
    sites = [Site("BINDING", 2, 6, "ATP"), Site("SIGNAL", 0, 4, "")]
    made = []
    for n in range(7):
        texts = {"protein_name": f"PROTEIN NAME: {'ABC'[n % 3] * 4} {n}.", "function": f"FUNCTION: {n % 4}."}
        if n % 3:
            texts["subcellular_location"] = "SUBCELLULAR LOCATION: Nucleus."
        if n % 2:
            texts["similarity"] = f"SIMILARITY: Belongs to the fold {n} family."
        sequence = "".join(rng.choice(LETTERS, 20 + 30 * (n % 4)))
        made.append(protein(f"P{n}", sequence, sites, **texts))
    return made


def mixture(embedder: Embedder, text: str) -> torch.Tensor:
    model = embedder.model
    tokens, mask = embedder.padded_texts([text])
    pooled = model.text_encoder(tokens, mask)[0].mean(0)
    logits = model.text_projection(pooled) @ model.prototypes.bank_PD.T
    return (logits / model.prototypes.temperature).softmax(-1) @ model.prototypes.bank_PD


def segment(query: torch.Tensor, residues: torch.Tensor, at: float) -> tuple[torch.Tensor, dict[int, float]]:
    """The segment a text chooses, and the weight of each residue in it."""
    dots = (residues @ query).tolist()
    scaled = [(dot - min(dots)) / (max(dots) - min(dots)) for dot in dots]
    inside = {i: s for i, s in enumerate(scaled) if s >= at}
    weights = {i: s / sum(inside.values()) for i, s in inside.items()}
    return sum((w * residues[i] for i, w in weights.items()), torch.zeros(len(query))), weights


def cosine(vector: torch.Tensor, other: torch.Tensor) -> float:
    return float(normalize(vector, dim=0) @ normalize(other, dim=0))


@torch.no_grad()
def test_measure_equals_a_loop_over_proteins_properties_thetas_and_texts(
    embedder: Embedder, proteins: list[Protein], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(theta, "SAME", 0.0)
    measured = measure(embedder, proteins, THETAS, 100, np.random.default_rng(0))
    mixtures = {text: mixture(embedder, text) for one in proteins for text in one.texts if text}
    annotated = {"active or binding site": range(2, 6), "targeting signal": range(4), ANY: range(6)}
    for n, one in enumerate(proteins):
        tokens = torch.from_numpy(embedder.residue_tokens([one.record.sequence])[0].astype(np.int64))[None]
        residues = embedder.model.protein_projection(embedder.model.protein_encoder(tokens))[0, 1:-1]
        here = [k for k, text in enumerate(one.texts) if text]
        for k, t in np.ndindex(len(PROPERTIES), len(THETAS)):
            values = {name: measured.alignment[name][n, k, t] for name in ALIGNMENT}
            if k not in here:
                assert np.isnan(list(values.values())).all()
                assert all(np.isnan(measured.overlap[name][n, k]).all() for name in OVERLAP)
                continue
            query = mixtures[one.texts[k]]
            own, weights = segment(query, residues, THETAS[t])
            mine = cosine(own, query)
            rivals = [cosine(own, mixtures[one.texts[j]]) for j in here if j != k]
            others = [mixtures[text] for text in {p.texts[k] for p in proteins} - {one.texts[k], ""}]
            theirs = [cosine(segment(other, residues, THETAS[t])[0], other) for other in others]
            expected = {
                "cosine": mine,
                "margin": mine - max(rivals),
                "accuracy": float(mine > max(rivals)),
                "others": np.mean(theirs) if theirs else np.nan,
                "above": np.mean([mine > c for c in theirs]) if theirs else np.nan,
                "first": float(mine > max(theirs)) if theirs else np.nan,
                "share": len(weights) / len(residues),
                "few": float(len(weights) <= theta.FEW),
                "single": float(len(weights) == 1),
            }
            assert values == pytest.approx(expected, abs=2e-5, nan_ok=True)
            for s, kind in enumerate(KINDS):
                site = set(annotated.get(kind, ()))
                hits = site & weights.keys()
                naive = [np.nan] * 3
                if site:
                    gain = sum(weights[i] for i in hits) / (len(site) / len(residues))
                    naive = [len(hits) / len(weights), len(hits) / len(site), gain]
                found = [measured.overlap[name][n, k, s, t] for name in OVERLAP]
                assert found == pytest.approx(naive, abs=2e-5, nan_ok=True)
    assert measured.pools == (7, 4, 1, 3)


def test_agreement_uses_the_segments_of_training() -> None:
    rng = torch.Generator().manual_seed(0)
    own, others, residues = (torch.randn(n, 8, generator=rng) for n in (3, 5, 40))
    found, _ = agreement(1, own, others, residues, torch.tensor(THETAS))
    for t, at in enumerate(THETAS):
        segments = dynamic_segments(
            own[None], residues[None], torch.ones(1, 40, dtype=torch.bool), torch.full((3,), at)
        )
        assert found["cosine"][t] == pytest.approx(cosine(segments[0, 1], own[1]), abs=1e-5)


def test_measure_does_not_depend_on_batch_neighbours(embedder: Embedder, proteins: list[Protein]) -> None:
    together = measure(embedder, proteins, THETAS, 2, np.random.default_rng(0))
    long = protein("Q1", "MKVLAWYR" * 15, protein_name="PROTEIN NAME: X.", function="FUNCTION: Y.")
    with_long = measure(embedder, [*proteins, long], THETAS, 2, np.random.default_rng(0))
    for name in ("cosine", "margin", "share"):
        alone, beside = together.alignment[name], with_long.alignment[name][:-1]
        np.testing.assert_allclose(alone, beside, atol=1e-4, err_msg=name)


def test_measure_holds_every_protein_against_as_many_texts(
    embedder: Embedder, proteins: list[Protein], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not its own text is in the pool, so that chance is the same for all."""
    held = []

    def watched(row: int, own: torch.Tensor, others: torch.Tensor, *rest: torch.Tensor):
        held.append(len(others))
        assert not any(torch.equal(own[row], other) for other in others)
        return agreement(row, own, others, *rest)

    monkeypatch.setattr(theta, "agreement", watched)
    named = [one for one in proteins if one.texts[3]]
    assert measure(embedder, named, THETAS, 2, np.random.default_rng(0)).pools == (2, 2, 1, 2)
    assert set(held) == {0, 1}
    assert held.count(0) == sum(bool(one.texts[2]) for one in named)


def test_texts_that_are_one_to_the_model_are_at_chance() -> None:
    rng = torch.Generator().manual_seed(0)
    own, residues = torch.randn(2, 8, generator=rng), torch.randn(30, 8, generator=rng)
    same = own[:1].repeat(3, 1) * (1 + 1e-7)
    found, _ = agreement(0, own, same, residues, torch.tensor(THETAS))
    assert found["above"] == pytest.approx(0.5)
    assert found["first"] == pytest.approx(1 / 4)


def test_agreement_finds_the_only_theta_that_tells_a_text_from_another() -> None:
    """The residue most like the text is marred, and so are those little like it; those between are clean."""
    clean, mar, mar_more, other = torch.eye(4)
    residues = torch.stack(
        [
            clean + 2 * mar,
            *[0.65 * clean] * 6,
            *[0.5 * clean + 3 * mar_more] * 6,
            0 * clean,
            3 * other + 2 * mar,
        ]
    )
    thetas = torch.linspace(0, 0.9, 10)
    found, _ = agreement(0, torch.stack((clean, mar)), other[None], residues, thetas)
    assert found["above"].tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    assert found["first"].tolist() == found["above"].tolist()


def test_sites_found_leaves_out_kinds_that_tell_nothing() -> None:
    sites = np.array([[True, True, False, False], [False] * 4, [True] * 4])
    similarity = np.array([1.0, 0.5, 0.5, 0.0], np.float32)
    found = sites_found(similarity, sites, (0.0, 0.5, 0.9))
    assert found["precision"][0].tolist() == [0.5, pytest.approx(2 / 3), 1]
    assert found["recall"][0].tolist() == [1, 1, 0.5]
    assert found["enrichment"][0].tolist() == [1.5, 1.5, 2]
    assert all(np.isnan(values[1:]).all() for values in found.values())


def test_families_pools_small_ones_and_those_beyond_the_largest() -> None:
    counts = {"large": 5, "middle": 4, "also": 4, "small": 2}
    made = [
        protein(f"{name}{n}", "MK", similarity=f"Belongs to the {name} family.")
        for name, count in counts.items()
        for n in range(count)
    ] + [protein("none", "MK")]
    places, names = families(made, fewest=3, most=2)
    assert names == ["large", "also"]
    assert places.tolist() == [0] * 5 + [-1] * 4 + [1] * 4 + [-1] * 3


def test_draw_takes_the_same_entries_in_any_order_of_the_file(tmp_path: Path) -> None:
    path = Path(write_sample(str(tmp_path), 30, 3, seed=0)["reviewed"])
    entries = [entry + "//\n" for entry in gzip.decompress(path.read_bytes()).decode().split("//\n")[:-1]]
    (tmp_path / "back.dat").write_text("".join(reversed(entries)))
    drawn = draw(str(path), "strip", 10)
    assert [p.record.accession for p in draw(str(tmp_path / "back.dat"), "strip", 10)] == [
        p.record.accession for p in drawn
    ]
    everyone = draw(str(path), "strip", 100)
    keys = sorted(sampling_key(p.record.accession) for p in everyone)
    assert [sampling_key(p.record.accession) for p in drawn] == keys[:10]
    assert all(sum(map(bool, p.texts)) > 1 for p in everyone)


def test_draw_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    bare = "ID   A_B Reviewed; 2 AA.\nAC   P00001;\nDE   RecName: Full=Thing;\nSQ   SEQUENCE\n     MK\n//\n"
    (tmp_path / "bare.dat").write_text(bare)
    with pytest.raises(DataError, match="no entry has two properties to tell apart"):
        draw(str(tmp_path / "bare.dat"), "strip", 10)
    with pytest.raises(DataError, match=r"missing\.dat"):
        draw(str(tmp_path / "missing.dat"), "strip", 10)
    (tmp_path / "table.tsv").write_text("Entry\tSequence\tProtein names\nP1\tMK\tX\n")
    with pytest.raises(DataError, match="flat files"):
        draw(str(tmp_path / "table.tsv"), "strip", 10)


def test_mean_and_error_pass_over_what_is_unknown() -> None:
    mean, error = mean_and_error(np.array([[1.0, np.nan, np.nan], [3.0, 2.0, np.nan]]))
    np.testing.assert_array_equal(mean, [2, 2, np.nan])
    np.testing.assert_array_equal(error, [1, np.nan, np.nan])
