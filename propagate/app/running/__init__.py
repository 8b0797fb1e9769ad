"""One run of `segment` or `track`, from the input to the output folder."""
