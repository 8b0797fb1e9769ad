"""Networks from other people's files: checked configs, weights loaded without running code, digests."""
