"""`protclip stats` of what the jobs wrote, held against a scan of every row."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protclip.cluster.prepare import prepare
from protclip.cluster.sample import sample
from protclip.config.data import PrepareConfig, SampleConfig, StatsConfig
from protclip.data.manifest import TAXA_NAME, PairsManifest, StrataManifest
from protclip.data.stats import stats
from protclip.data.synthetic import write_sample
from protclip.records import PROPERTIES

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def scan(root: Path, paths: list[str]) -> list[dict]:
    return pa.concat_tables([pq.read_table(root / p, partitioning=None) for p in paths]).to_pylist()


def test_stats_of_a_prepared_sample_equal_a_scan(tmp_path: Path) -> None:
    strata, pairs, tracking = tmp_path / "strata", tmp_path / "pairs", {"enabled": False}
    write_sample(str(tmp_path / "raw"), 150, 250, seed=1)
    inputs = [str(file) for file in sorted((tmp_path / "raw").glob("*.dat.gz"))]
    settings = {"rows_per_file": 90, "release": "2026_03", "tracking": tracking}
    prepare(PrepareConfig.model_validate({"inputs": inputs, "output": str(strata), **settings}))
    manifest = StrataManifest.load(str(strata))
    assert len({file.path.rpartition("/")[2] for file in manifest.files}) > 3

    rows = scan(strata, [file.path for file in manifest.files])
    found = stats(StatsConfig(source=str(strata), output=str(tmp_path / "out")))
    assert found["rows"] == len(rows) == 400
    assert found["reviewed"] == sum(row["reviewed"] for row in rows) == 150
    assert found["residues"] == sum(row["length"] for row in rows)
    assert found["releases"] == {"2026_03": 400}
    assert found["years"] == dict(sorted(Counter(row["annotation_date"].year for row in rows).items()))
    assert found["with_property"] == {p: sum(row[p] is not None for row in rows) for p in PROPERTIES}
    lengths = [row["length"] for row in rows]
    assert found["length_range"] == [min(lengths), max(lengths)]
    for key, share in (("p5", 0.05), ("p50", 0.5), ("p95", 0.95)):
        exact = float(np.quantile(lengths, share, method="inverted_cdf"))
        assert abs(found["lengths"][key] - exact) <= exact / 32  # pyright: ignore[reportIndexIssue]

    taxa = Counter((row["taxon_id"], row["reviewed"]) for row in rows)
    counted = pq.read_table(strata / TAXA_NAME).to_pylist()
    assert {(t["taxon_id"], True): t["reviewed"] for t in counted} == {
        (t, True): taxa[t, True] for t, _ in taxa
    }
    assert sum(t["unreviewed"] for t in counted) == 250
    totals = [t["reviewed"] + t["unreviewed"] for t in counted]
    assert totals == sorted(totals, reverse=True)
    assert found["organisms"] == len(counted)

    config = {"source": str(strata), "output": str(pairs), "rows_per_shard": 8192, "tracking": tracking}
    sample(SampleConfig.model_validate(config))
    shards = PairsManifest.load(str(pairs)).splits
    drawn = scan(pairs, [file.path for split in shards.values() for file in split.files])
    found = stats(StatsConfig(source=str(pairs), output=str(tmp_path / "pairs-out")))
    assert found["complete"] is True
    assert found["rows"] == len(drawn)
    assert found["residues"] == sum(row["length"] for row in drawn)
    assert found["tokens"] == {p: sum(len(row[p]) for row in drawn) for p in PROPERTIES}
    written = {path.name for path in (tmp_path / "pairs-out").iterdir()}
    assert written == {"report.html", "report.md", "lengths.png", "sampling.png", "tokens.png"}
