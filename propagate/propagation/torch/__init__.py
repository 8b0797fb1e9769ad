"""The transfer step in torch operations, for any device."""
