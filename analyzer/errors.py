"""The errors that a user can cause. Every message says what is wrong, where, and the way out."""


class AnalyzerError(Exception):
    """The input or the request is wrong; `str(error)` is one sentence fit to show a user."""


class CheckpointError(AnalyzerError):
    """A model file is missing, damaged, of an unknown format, or not safe to open."""


class PairingError(AnalyzerError):
    """Two models have nothing that can be compared."""


class SelectorError(AnalyzerError):
    """A selector does not parse, names what is not there, or selects nothing."""


class ScanFileError(AnalyzerError):
    """A scan file is not JSON, not a scan, or of a version that this release cannot read."""


class RecipeError(AnalyzerError):
    """The options of a merge contradict each other or do not fit these models."""


class OutputError(AnalyzerError):
    """An output cannot be written: it exists, it is an input, or the disk is full."""


class DeviceError(AnalyzerError):
    """The device asked for is not there."""


class VerificationError(AnalyzerError):
    """A written model is not what its merge should have made."""
