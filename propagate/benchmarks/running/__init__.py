"""Running methods on clips: processes, result folders, records."""
