"""Fixtures of the tests that need data sets on object storage."""

import gzip
import uuid

import pytest
from s3fs import S3FileSystem

from faulty_s3 import FaultyS3
from made_sets import MadeSets
from protclip import storage
from protclip.cluster import sample as sample_module
from protclip.cluster.prepare import prepare
from protclip.cluster.sample import sample
from protclip.data.synthetic import write_sample


@pytest.fixture(scope="session")
def made_sets(s3_server: FaultyS3, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> MadeSets:
    s3_server.reset()
    bucket = f"made-{uuid.uuid4().hex[:12]}"
    S3FileSystem(endpoint_url=s3_server.endpoint).mkdir(bucket)
    made = MadeSets(*(f"s3://{bucket}{path}" for path in ("", "/raw", "/strata", "/pairs")))
    folder = tmp_path_factory.mktemp("raw")
    write_sample(str(folder), 500, 1500, seed=0)
    reviewed = gzip.decompress((folder / "uniprot_sprot.dat.gz").read_bytes())
    entries = reviewed.split(b"//\n")
    storage.write_bytes(storage.join(made.raw, "a.dat"), reviewed)
    storage.copy_to(folder / "uniprot_trembl.dat.gz", storage.join(made.raw, "b.dat.gz"))
    storage.write_bytes(storage.join(made.raw, "c.dat"), b"//\n".join([*entries[:300], b""]))
    prepare(made.prepare_config("strata"))
    with pytest.MonkeyPatch.context() as patch:
        # Otherwise one task would draw them all.
        patch.setattr(sample_module, "PAIRS_PER_TASK", 100)
        sample(made.sample_config("pairs"))
    return made
