"""Files on local disk or object storage; the only module that knows which of the two it is.

A URI is a local path, `file://…` or `s3://bucket/key`; `https://…` and `http://…` can be read. S3
credentials, region and endpoint come from the standard chain (`AWS_*` variables, profiles, instance
roles; `AWS_ENDPOINT_URL` for self-hosted servers). Writes are atomic: a reader sees the whole new file
or none of it. An output that consists of many files becomes visible through its manifest, which is
written last. What all workers of a node need is fetched once and kept (`cached`, `cached_directory`).
"""

from protclip.storage.cache import cached, cached_directory
from protclip.storage.files import (
    StoredFile,
    atomic_writer,
    copy_to,
    create,
    exists,
    list_directories,
    list_files,
    open_input,
    read_bytes,
    read_json,
    read_range,
    remove,
    remove_partials,
    sha256,
    version,
    write_bytes,
    write_json,
)
from protclip.storage.filesystems import absolute, basename, filesystem, is_local, join
from protclip.storage.hub import hub_directory
from protclip.storage.parquet import RowGroups, parquet_file, parquet_writer, write_parquet

__all__ = [
    "RowGroups",
    "StoredFile",
    "absolute",
    "atomic_writer",
    "basename",
    "cached",
    "cached_directory",
    "copy_to",
    "create",
    "exists",
    "filesystem",
    "hub_directory",
    "is_local",
    "join",
    "list_directories",
    "list_files",
    "open_input",
    "parquet_file",
    "parquet_writer",
    "read_bytes",
    "read_json",
    "read_range",
    "remove",
    "remove_partials",
    "sha256",
    "version",
    "write_bytes",
    "write_json",
    "write_parquet",
]
