"""What a merge will be, in closed form, before it is written; and whether what was written is that."""
