"""The arithmetic on raw bytes: compiled loops for the CPU, torch for GPUs, one result.

Every kernel takes bytes as they lie in the file and a `Layout`; what a key means, where its bytes
came from and where the result goes is not known here.
"""
