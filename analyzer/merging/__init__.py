"""How a plan is carried out: which elements of which model meet, and what becomes of them.

`analyzer.merge` is the door.
"""
