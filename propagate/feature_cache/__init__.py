"""Features on disk, so that a second pass over a clip costs only the transfer."""
