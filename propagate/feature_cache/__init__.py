"""Features on disk, so that a second run costs only the transfer. Imports features, provenance and files."""
