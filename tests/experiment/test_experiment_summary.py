"""What the terminal says of an experiment beyond its table."""

from __future__ import annotations

import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from analyzer.cli.experiment_summary import print_experiment

sys.path.append(str(Path(__file__).resolve().parent))  # also for the tests that run from elsewhere

from example_document import example


@pytest.mark.parametrize("offered", ["relative_change", None])
def test_a_ranking_is_shown_as_the_command_that_makes_it(offered: str | None) -> None:
    """By what is offered, which need not be the best predictor; nothing of it where nothing is."""
    data, file = example(), StringIO()
    data["best"] |= {"statistic": "numel", "offered": offered}
    print_experiment(data, Console(file=file, width=80))
    commands = [line for line in file.getvalue().splitlines() if "mergescope rank" in line]
    expected = "rank by what foretells it: mergescope rank SCAN.json --by relative_change"
    assert ([f"• {expected}"] if offered else []) == commands
