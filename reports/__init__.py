"""The HTML report of a scan. Knows records and statistics, nothing that touches weights."""
