"""Messages, progress, streams and interrupts."""
