"""Block weights: the presets by name, those of a user, and the alpha that each block has from them."""
