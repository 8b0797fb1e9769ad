"""Model weights: the registry, where they lie, how they are downloaded. Nothing else touches the network."""
