"""Which test sequences of benchmarks stood in pre-training: a pass over the pairs, on Ray."""

# pyarrow makes its compute functions when it is imported, no type checker sees them.
# pyright: reportAttributeAccessIssue=false

import functools
import hashlib
import logging
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow.compute as pc
import ray

from protclip import storage
from protclip.data.families import content_ids
from protclip.data.manifest import FileEntry, PairsManifest
from protclip.errors import BenchmarkError, DataError
from protclip.evaluation.prepared import Prepared
from protclip.evaluation.registry import KINDS
from protclip.evaluation.runner import Spec, version_of
from protclip.evaluation.store import ResultStore, identities
from protclip.progress import progress

log = logging.getLogger(__name__)


def leak_shares(
    specs: Iterable[Spec],
    data: Mapping[str, Prepared],
    pairs: str,
    trained_on: str,
    store: ResultStore,
) -> dict[str, float | None]:
    """Share of each benchmark's test proteins whose very sequence is among the training pairs.

    Args:
        specs: The benchmarks.
        data: Their data by name.
        pairs: URI of the pairs of pre-training.
        trained_on: sha256 of the manifest of the pairs the checkpoint was trained on.
        store: Where shares that were counted before are kept.

    Returns:
        By benchmark; None for all, with a warning, where these pairs are not to be had.

    Raises:
        DataError: A shard of the pairs is damaged.
    """
    specs = list(specs)
    try:
        manifest = PairsManifest.load(pairs)
        digest = PairsManifest.digest(pairs)
        if digest != trained_on:
            raise DataError(f"{pairs}: other pairs than those of the training")
    except DataError as error:
        log.warning("what the model saw in pre-training is not known, so leaks are not counted: %s", error)
        return dict.fromkeys((spec.name for spec in specs), None)
    keys = {s.name: _key(digest, version_of(s, data[s.name])) for s in specs}
    shares = {name: store.find_share(key) for name, key in keys.items()}
    test: dict[str, np.ndarray] = {}
    for spec in specs:
        if shares[spec.name] is None:
            try:
                sequences = KINDS[spec.kind].test_sequences(spec, data[spec.name])
            except BenchmarkError as error:
                # Its trials fail by the same.
                log.debug("%s: leaks are not counted: %s", spec.name, error)
            else:
                test[spec.name] = identities([sequence.upper() for sequence in sequences])
    if test:
        seen = _seen(pairs, manifest, np.unique(np.concatenate(list(test.values()))))
        for name, ids_N in test.items():
            share = float(np.isin(ids_N, seen).mean()) if len(ids_N) else 0.0
            store.add_share(keys[name], share)
            shares[name] = share
    return shares


def _key(pairs_digest: str, version: str) -> str:
    """Identifies a share among all shares."""
    return hashlib.sha256(f"{pairs_digest}/{version}".encode()).hexdigest()[:16]


def _seen(pairs: str, manifest: PairsManifest, wanted: np.ndarray) -> np.ndarray:
    """Those of the identities that a training pair has."""
    files = [file for split in manifest.train_samples for file in split.files]
    task = ray.remote(_seen_in).options(num_cpus=1, scheduling_strategy="DEFAULT")
    shared = ray.put(wanted)
    pending = [task.remote(storage.join(pairs, file.path), file, shared) for file in files]
    found = [np.empty(0, np.uint64)]
    try:
        with progress("looking for leaks", "shard", len(pending)) as bar:
            while pending:
                (done,), pending = ray.wait(pending)
                found.append(ray.get(done))
                bar.update()
    finally:
        for ref in pending:
            ray.cancel(ref)
    return functools.reduce(np.union1d, found)


def _seen_in(uri: str, file: FileEntry, wanted: np.ndarray) -> np.ndarray:
    """Those of the identities that a row of one shard has."""
    groups = storage.RowGroups(uri, file.num_bytes, file.row_groups)
    found = [np.empty(0, np.uint64)]
    for index in range(len(file.row_groups)):
        sequences = groups.read(index, ["sequence"])["sequence"]
        found.append(np.intersect1d(content_ids(pc.utf8_upper(sequences)), wanted))
    return np.concatenate(found)
