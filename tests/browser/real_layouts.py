"""Scans of the layouts of published models: their real keys and labels, with small seeded arrays."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from analyzer.categories import categorize
from analyzer.records import KeyScan, ModelId, Scan

sys.path.append(str(Path(__file__).resolve().parents[1] / "layouts"))
import layouts
from array_sums import measure

ELEMENTS = 12  # of every key, whatever the layout says: enough to have a direction


def scan_of_layout(name: str) -> Scan:
    """Two fine-tunes of that model: every component moved by a rate of its own, the VAE not at all."""
    infos = layouts.infos(name)
    labelled = categorize(infos)
    generator = np.random.default_rng(7)
    rates: dict[str, float] = {}
    rows = []
    for info in infos:
        labels = labelled.labels[info.key]
        rate = rates.setdefault(labels.group, float(10 ** generator.uniform(-3, -0.5)))
        a = generator.normal(0.0, 0.05, ELEMENTS).astype(np.float32)
        b = a + generator.normal(0.0, 0.05 * rate, ELEMENTS).astype(np.float32)
        sums = measure(a, a if labels.part == "vae" else b)
        rows.append(KeyScan(info.key, info.key, info.shape, info.dtype, info.dtype, labels, sums))
    a, b = (
        ModelId(
            f"/models/{name}-{letter}.safetensors", 2_132_625_612, letter, name, name, len(rows), {"F16": 2}
        )
        for letter in "ab"
    )
    return Scan("mergescope 0.0", "2024-02-29T12:00:00Z", a, b, labelled.blocks, tuple(rows), (), (), ())
