"""Write models and other files, whole or not at all."""
