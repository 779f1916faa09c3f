"""The weights catalogue and the places that weights come from."""
