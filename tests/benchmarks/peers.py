"""What people run today, as short scripts: python tests/benchmarks/peers.py LOOP A B [OUT].

Each loop does what its tool does with a pair, and nothing else of it: no web UI, no progress bar. They are
written anew after these sources.

- `supermerger`: the Analysis tab of hako-mikan/sd-webui-supermerger. Both state dicts in memory, each tensor
  flat in fp32, one cosine a key.
- `by-hand`: what an engineer writes in ten minutes with `safe_open`: tensor by tensor in fp32, two norms, the
  norm, mean and maximum of the difference, and the cosine.
- `mbw`: `merge` in scripts/mbw/merge_block_weighted.py of bbc-mc/sdweb-merge-block-weighted-gui. Both state
  dicts in memory, `(1 - alpha) * a + alpha * b` for every key, `save_file`.
- `sd-mecha`: ljleb/sd-mecha, its own streaming `weighted_sum`, where it is installed.

`peers.py count SCAN.json` says how many numbers a scan holds for a key. Not collected by pytest.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

ALPHA = 0.5
COMPUTED = {"supermerger": 1, "by-hand": 6}  # numbers a key
HISTOGRAMS = ("histogram", "steps", "e4m3_steps")  # of a row in a scan file


def supermerger(a: Path, b: Path) -> dict[str, tuple[float, ...]]:
    """One cosine for every key that both have."""
    import torch
    from safetensors.torch import load_file

    found = {}
    first, second = load_file(a), load_file(b)
    for key, x in first.items():
        if key in second and x.is_floating_point():
            pair = (t.flatten().float().unsqueeze(0) for t in (x, second[key]))
            found[key] = (torch.nn.functional.cosine_similarity(*pair).item(),)
    return found


def by_hand(a: Path, b: Path) -> dict[str, tuple[float, ...]]:
    """‖a‖, ‖b‖, ‖b − a‖, cosine, mean and maximum of |b − a| for every key."""
    import torch
    from safetensors import safe_open

    found = {}
    with safe_open(a, "pt") as first, safe_open(b, "pt") as second:
        for key in first.keys():  # noqa: SIM118 - no mapping
            x, y = (model.get_tensor(key).flatten().float() for model in (first, second))
            d = y - x
            cosine = torch.nn.functional.cosine_similarity(x, y, dim=0)
            numbers = (x.norm(), y.norm(), d.norm(), cosine, d.abs().mean(), d.abs().max())
            found[key] = tuple(number.item() for number in numbers)
    return found


def mbw(a: Path, b: Path, out: Path) -> None:
    """A weighted sum of every key, integers left alone as MBW leaves `position_ids`."""
    from safetensors.torch import load_file, save_file

    first, second = load_file(a), load_file(b)
    for key, x in first.items():
        if key in second and x.is_floating_point():
            first[key] = (1 - ALPHA) * x + ALPHA * second[key]
    save_file(first, out, metadata={"format": "pt"})


def sd_mecha(a: Path, b: Path, out: Path) -> None:
    """Its weighted sum, on the CPU."""
    import sd_mecha

    recipe = sd_mecha.weighted_sum(sd_mecha.model(a), sd_mecha.model(b), alpha=ALPHA)
    sd_mecha.merge(recipe, output=out, merge_device="cpu", output_device="cpu")


LOOPS: dict[str, Callable[..., object]] = {
    "supermerger": supermerger,
    "by-hand": by_hand,
    "mbw": mbw,
    "sd-mecha": sd_mecha,
}


def count_numbers(scan: Path) -> dict[str, int]:
    """What a scan file holds for a key that changed, in the median: statistics, sums, bins of histograms.

    A bin counts once, though a count and a sum of squares stand for it; what is undefined does not count.
    """
    rows = [row for row in json.loads(scan.read_bytes())["keys"] if row["verdict"] == "changed"]
    found: dict[str, list[int]] = {"statistics": [], "sums": [], "bins": []}
    for row in rows:
        found["statistics"].append(sum(value is not None for value in row["statistics"].values()))
        found["sums"].append(sum(isinstance(value, int | float) for value in row["sums"].values()))
        found["bins"].append(sum(len(row[name]["counts"]) for name in HISTOGRAMS if row.get(name)))
    return {name: round(statistics.median(counts)) for name, counts in found.items() if counts}


def main() -> None:
    """Run one loop, say how many keys it saw."""
    name, *paths = sys.argv[1:]
    if name == "count":
        sys.stdout.write(json.dumps(count_numbers(Path(paths[0]))) + "\n")
        return
    if name not in LOOPS:
        sys.exit(f"{name}: one of {', '.join(LOOPS)}")
    found = LOOPS[name](*map(Path, paths))
    if isinstance(found, dict):
        median = statistics.median(numbers[0] for numbers in found.values())
        sys.stdout.write(f"{len(found)} keys, the first number's median {median:.4f}\n")


if __name__ == "__main__":
    main()
