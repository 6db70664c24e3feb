"""One module per input format, each turning the bytes of one entry into a `ProteinRecord`."""
