"""Files of other people, read so that damage leaves as our error; and our own, written whole or not at all."""
