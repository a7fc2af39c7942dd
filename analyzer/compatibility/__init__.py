"""Whether two models go together: what each says of itself, and where they disagree."""
