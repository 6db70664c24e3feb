"""Entries that a query of UniProt's web service finds, as one flat file; for trials and small sets."""

import gzip
import re
from typing import IO
from urllib.parse import urlencode

from protclip import storage
from protclip.data.releases import ReleaseNote
from protclip.data.transfer import Digests, Moved
from protclip.errors import DataError
from protclip.storage.files import HashingWriter
from protclip.storage.http import Patience, fetch

FILE_NAME = "uniprot_query.dat.gz"
PAGE_ENTRIES = 500
"""The most the service sends at once."""

_END = b"\n//\n"
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')
_GZIP_LEVEL = 6


class _Digesting:
    """Passes bytes to a file and computes their checksums."""

    def __init__(self, sink: IO[bytes] | HashingWriter, digests: Digests) -> None:
        self._sink = sink
        self._digests = digests

    def write(self, data: bytes) -> int:
        """Writes bytes."""
        self._digests.update(data)
        return self._sink.write(data)

    def flush(self) -> None:
        """Nothing to do before the file is closed."""


class Query:
    """A query that was asked; its first page has come.

    Args:
        service: Base URL of the web service.
        query: In UniProt's query language.
        limit: The most entries wanted; None for all.
        patience: How long to wait for the server.

    Attributes:
        release: The release that the service answers from.
        num_entries: Entries that will be written.
        url: The request.

    Raises:
        DataError: The service does not answer or refuses, or nothing is found.
    """

    def __init__(self, service: str, query: str, limit: int | None, patience: Patience) -> None:
        self._patience = patience
        self._query = query
        size = min(limit or PAGE_ENTRIES, PAGE_ENTRIES)
        parameters = urlencode({"query": query, "format": "txt", "size": size})
        self.url = f"{service.rstrip('/')}/uniprotkb/search?{parameters}"
        self._headers, self._page = fetch(self.url, patience)
        total = self._headers.get("X-Total-Results", "")
        self.release = self._headers.get("X-UniProt-Release", "")
        if not total.isdecimal() or not self.release:
            raise DataError(
                f"{self.url}: the answer states no number of entries and release; check the address"
            )
        self.num_entries = min(int(total), limit or int(total))
        if not self.num_entries:
            raise DataError(
                f"query {query!r}: UniProt release {self.release} has no such entry; change the query"
            )

    def write(self, output: str, moved: Moved) -> ReleaseNote:
        """Fetches all pages into one file below `output`, which appears when it is whole.

        Args:
            output: Directory or URI.
            moved: Is told of the entries that have come.

        Returns:
            The note to be saved beside it.

        Raises:
            DataError: A page cannot be fetched, entries are missing, or the release changes meanwhile.
        """
        missing = self.num_entries
        digests = Digests()
        with storage.atomic_writer(storage.join(output, FILE_NAME)) as sink:
            with gzip.GzipFile("", "wb", _GZIP_LEVEL, _Digesting(sink, digests), mtime=0) as file:
                while missing:
                    entries = self._page.split(_END)[:-1][:missing]
                    file.writelines(entry + _END for entry in entries)
                    moved(len(entries))
                    missing -= len(entries)
                    if missing:
                        self._turn(missing)
        return ReleaseNote(
            release=self.release,
            query=self._query,
            entries=self.num_entries,
            files=(digests.entry(FILE_NAME, self.url),),
        )

    def _turn(self, missing: int) -> None:
        """Fetches the next page."""
        found = _NEXT.search(self._headers.get("Link", ""))
        if found is None:
            came = self.num_entries - missing
            raise DataError(f"{self.url}: {came:,} of {self.num_entries:,} entries came; run again")
        self._headers, self._page = fetch(found[1], self._patience)
        release = self._headers.get("X-UniProt-Release")
        if release != self.release:
            raise DataError(
                f"{self.url}: the service went from release {self.release} to {release}; run again"
            )
