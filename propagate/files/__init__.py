"""Read files of other people, with an error of ours for any damage; write our own files atomically."""
