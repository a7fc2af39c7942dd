"""Measure what differs between two models, key by key, and merge only what is chosen.

The library behind the ``mergescope`` command. Data flows one way: checkpoints are opened, their
keys paired and categorised, their tensors streamed into additive sums (`analyzer.scan`), and every
statistic, ranking and merge plan is derived from those sums. Importing this package imports nothing
heavy, so that ``mergescope --help`` answers at once.
"""

__version__ = "0.1.0"
