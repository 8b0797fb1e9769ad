"""What the user sees: messages, progress, streams, interruption."""
