import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from made_primekg import SIZE, START, WITHOUT_VECTOR, write_links, write_primekg
from protclip.errors import BenchmarkError, DataError
from protclip.evaluation.prepare import prepare_one
from protclip.evaluation.raw import links, primekg
from protclip.evaluation.registry import load_benchmark

CONF = Path(__file__).resolve().parents[3] / "conf"


def section(*, vectors=("disease", "drug"), nodes=tuple(primekg.TYPES)) -> primekg.PrimeKgSection:
    roles = ["kg", *nodes, *(f"vectors_{role}" for role in vectors)]
    files = {role: {"path": f"{role}.csv"} for role in roles}
    return primekg.PrimeKgSection.model_validate({"format": "primekg", "files": files})


def written(folder: Path, given: primekg.PrimeKgSection) -> dict[str, Path]:
    paths = {role: folder / file.path for role, file in given.files.items()}
    write_primekg(given, paths, np.random.default_rng(0))
    return paths


def test_read_gives_nodes_of_all_types_and_both_directions_of_edges(tmp_path):
    given = section()
    tables = primekg.read(given, written(tmp_path, given)).tables
    nodes, edges = tables["nodes"], tables["edges"]
    assert set(nodes["type"].to_pylist()) == set(primekg.TYPES.values())
    assert set(edges["head"].to_pylist() + edges["tail"].to_pylist()) == set(nodes["id"].to_pylist())
    triples = Counter(zip(*(edges[c].to_pylist() for c in ("head", "relation", "tail")), strict=True))
    assert all(triples[tail, relation, head] == n for (head, relation, tail), n in triples.items())
    assert "expression present" not in edges["relation"].to_pylist()


def test_read_keeps_the_order_of_the_edges(tmp_path):
    given = section()
    paths = written(tmp_path, given)
    first = paths["kg"].read_text().splitlines()[1].split(",")
    edges = primekg.read(given, paths).tables["edges"]
    assert edges.slice(0, 2).to_pylist() == [
        {"head": first[2], "relation": "ppi", "tail": first[7]},
        {"head": first[7], "relation": "ppi", "tail": first[2]},
    ]


def test_read_gives_a_row_per_text_of_a_disease_and_the_first_definition_there_is(tmp_path):
    given = section(vectors=("drug",))
    nodes = primekg.read(given, written(tmp_path, given)).tables["nodes"]
    rows = [(row["name"], row["text"]) for row in nodes.to_pylist() if row["id"] == str(START["disease"] + 3)]
    text = 'Of "nucleus", and\nmore'
    assert rows == [("disease 3", f"umls {text}"), ("disease 3 again", text)]


def test_read_gives_a_row_per_vector_where_vectors_are_given(tmp_path):
    given = section()
    paths = written(tmp_path, given)
    raw = primekg.read(given, paths)
    found = pickle.loads(paths["vectors_disease"].read_bytes())
    diseases = [row for row in raw.tables["nodes"].to_pylist() if row["type"] == "disease"]
    assert [row["id"] for row in diseases] == [str(number) for number in found["node_index"]]
    np.testing.assert_array_equal([row["vector"] for row in diseases], found["embedding"])
    assert raw.tables["nodes"]["vector"].null_count == 4 * SIZE
    lost = [(odd.id, odd.reason) for odd in raw.odd]
    assert lost == [(str(START["drug"] + WITHOUT_VECTOR), "no vector in the file of vectors")]


def test_read_leaves_out_types_whose_file_is_not_given(tmp_path):
    paths = written(tmp_path, section())
    given = section(vectors=(), nodes=("protein", "molecular"))
    nodes = primekg.read(given, {role: paths[role] for role in given.files}).tables["nodes"]
    assert set(nodes["type"].to_pylist()) == {"gene/protein", "molecular_function"}


def test_read_leaves_out_proteins_without_a_sequence(tmp_path):
    given = section()
    paths = written(tmp_path, given)
    lines = paths["protein"].read_text().splitlines()
    lines[1] = lines[1].rpartition(",")[0] + ","
    paths["protein"].write_text("\n".join(lines) + "\n")
    raw = primekg.read(given, paths)
    assert (str(START["protein"]), "a protein without a sequence") in [(o.id, o.reason) for o in raw.odd]
    assert str(START["protein"]) not in raw.tables["edges"]["head"].to_pylist()


def test_section_with_drugs_needs_their_vectors():
    with pytest.raises(ValueError, match="vectors_drug"):
        section(vectors=())


@pytest.mark.parametrize(
    ("role", "content", "error", "words"),
    [
        ("kg", "a,b\n1,2\n", BenchmarkError, "display_relation"),
        ("kg", "display_relation,x_index,y_index\nppi,one,2\n", BenchmarkError, "fetch it anew"),
        ("kg", "display_relation,x_index,y_index\nppi,1,2\n", BenchmarkError, "belong together"),
        ("molecular", "node_index,node_name,description\n", BenchmarkError, "no rows"),
        ("kg", None, DataError, "under raw"),
        ("vectors_disease", None, DataError, "under raw"),
    ],
)
def test_read_says_what_is_wrong_with_a_file(tmp_path, role, content, error, words):
    given = section()
    paths = written(tmp_path, given)
    paths[role].unlink()
    if content is not None:
        paths[role].write_text(content)
    with pytest.raises(error, match=words) as caught:
        primekg.read(given, paths)
    assert str(paths[role]) in str(caught.value)


@pytest.mark.parametrize(
    "vectors",
    [
        [1, 2],
        {"node_index": [1], "embedding": [[1.0], [2.0]]},
        {"node_index": [1, 2], "embedding": [[1.0], [2.0, 3.0]]},
        {"node_index": [1], "embedding": [[float("nan")]]},
    ],
)
def test_read_refuses_vectors_of_another_form(tmp_path, vectors):
    given = section()
    paths = written(tmp_path, given)
    paths["vectors_drug"].write_bytes(pickle.dumps(vectors))
    with pytest.raises(BenchmarkError, match="vectors_drug"):
        primekg.read(given, paths)


def links_section(**changes) -> links.LinksSection:
    return links.LinksSection.model_validate(
        {
            "format": "links",
            "files": {name: {"path": f"{name}.tsv"} for name in ("edges", "diseases", "proteins")},
            "nodes": [
                {"file": "diseases", "type": "disease", "id": "key", "name": "name", "text": "text"},
                {"file": "proteins", "type": "protein", "fasta": True},
            ],
            "edges": [{"file": "edges", "relation": "of", "head": "disease", "tail": "protein"}],
            **changes,
        }
    )


def links_files(folder: Path, edges="d1\tP1\nd1\tP2\nd2\tP1\n") -> dict[str, Path]:
    contents = {
        "edges": "disease\tprotein\n" + edges,
        "diseases": "key\tname\ttext\nd1\tone\tFirst.\nd2\ttwo\t\nd3\tthree\t\n",
        "proteins": ">sp|P1|ONE_HUMAN One\nMK\n>P2 Two\nMV\nL\n",
    }
    for name, content in contents.items():
        (folder / f"{name}.tsv").write_text(content)
    return {name: folder / f"{name}.tsv" for name in contents}


def test_links_reads_tables_and_fasta(tmp_path):
    raw = links.read(links_section(), links_files(tmp_path))
    nodes = {row["id"]: row for row in raw.tables["nodes"].to_pylist()}
    assert nodes["d1"] == {
        **{"id": "d1", "type": "disease", "name": "one", "text": "First."},
        **{"sequence": None, "vector": None},
    }
    assert nodes["d2"]["text"] is None
    assert (nodes["P1"]["sequence"], nodes["P2"]["sequence"]) == ("MK", "MVL")
    assert raw.tables["edges"].to_pylist()[1] == {"head": "d1", "relation": "of", "tail": "P2"}
    assert [(odd.id, odd.reason) for odd in raw.odd] == [("d3", "a node without an edge")]


def test_links_leaves_out_edges_with_an_unknown_end(tmp_path):
    raw = links.read(links_section(), links_files(tmp_path, "d1\tP1\nd1\tP9\n"))
    assert len(raw.tables["edges"]) == 1
    assert ("d1 P9", "P9") in [(odd.id, odd.detail) for odd in raw.odd]


def test_links_splits_joined_cells(tmp_path):
    nodes = [
        {"file": "edges", "type": "protein", "id": "p", "sequence": "s"},
        {"file": "edges", "type": "term", "id": "t", "name": "n", "join": "; "},
    ]
    edges = [{"file": "edges", "relation": "has", "head": "p", "tail": "t", "join": "; "}]
    given = links_section(files={"edges": {"path": "edges.tsv"}}, nodes=nodes, edges=edges)
    path = tmp_path / "edges.tsv"
    path.write_text("p\ts\tt\tn\nP1\tMK\tT1; T2\tone; two\n")
    tables = links.read(given, {"edges": path}).tables
    assert [(e["head"], e["tail"]) for e in tables["edges"].to_pylist()] == [("P1", "T1"), ("P1", "T2")]
    assert [row["name"] for row in tables["nodes"].to_pylist()] == [None, "one", "two"]
    path.write_text("p\ts\tt\tn\nP1\tMK\tT1; T2\tone\n")
    with pytest.raises(BenchmarkError, match="as many in each"):
        links.read(given, {"edges": path})


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes": [{"file": "diseases", "type": "disease"}]},
        {"nodes": [{"file": "diseases", "type": "disease", "id": "key", "fasta": True}]},
        {"edges": [{"file": "absent", "relation": "of", "head": "a", "tail": "b"}]},
    ],
)
def test_links_section_refuses_what_cannot_be_read(changes):
    with pytest.raises(ValueError, match=r"identifier|absent"):
        links_section(**changes)


@pytest.mark.parametrize(
    "name",
    [
        "prot2bp",
        "prot2mf",
        "prot2cc",
        "prot2drug",
        "disease2prot",
        "disease2prot_uniprot",
        "prot2mf_swissprot",
    ],
)
def test_benchmark_is_prepared_from_made_files(tmp_path, name):
    spec = load_benchmark(name, CONF)
    paths = {role: tmp_path / Path(file.path).name for role, file in spec.data.files.items()}
    write = write_links if spec.data.format == "links" else write_primekg
    write(spec.data, paths, np.random.default_rng(0))
    content = prepare_one(name, spec.kind, spec.data, paths)
    assert content.counts[f"nodes/{spec.question.head}"] == SIZE
    for relation in spec.question.relations:
        assert content.counts[f"edges/{relation}"] >= 2 * SIZE


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("disease2prot_uniprot", {"edges": 2120, "nodes/disease": 2048, "nodes/protein": 1413}),
        ("prot2mf_swissprot", {"edges": 6854, "nodes/protein": 1817 + 1858, "nodes/go_mf": 1704}),
        ("prot2bp_swissprot", {"edges": 16397, "nodes/protein": 2454 + 2418, "nodes/go_bp": 5858}),
        ("prot2cc_swissprot", {"edges": 11180, "nodes/protein": 2441 + 2388, "nodes/go_cc": 1111}),
    ],
)
def test_benchmark_reads_the_real_files(real_data, name, counts):
    spec = load_benchmark(name, CONF)
    files = {role: real_data / file.path for role, file in spec.data.files.items()}
    content = prepare_one(name, spec.kind, spec.data, files)
    assert {key: content.counts[key] for key in counts} == counts
