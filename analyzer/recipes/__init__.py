"""A merge as its author wrote it: options, files of them, and the history that merged models carry."""
