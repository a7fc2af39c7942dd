"""The planner of an open page, spoken to in the words of a reader, and what Python predicts of a merge."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from analyzer.prediction.closed_form import predict
from analyzer.ranking import counted
from analyzer.records import KeyScan, Scan

FIGURES = ("distance_a", "distance_b", "cosine_a", "cosine_b", "norm")
BASE = 0.5  # the alpha with which a planner opens


class Planner:
    """The planner of an open page, in the words of a reader."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def settle(self) -> None:
        """Wait until what was changed is drawn."""
        self.page.driver.execute_async_script(
            "const [done] = arguments; requestAnimationFrame(() => requestAnimationFrame(() => done()));"
        )

    def move(self, title: str, alpha: float) -> None:
        """Move the slider that has this name for screen readers."""
        self.put(f'input[type="range"][aria-label="{title}"]', alpha, "input")

    def put(self, selector: str, value: float | str | bool, event: str = "change") -> None:
        """Give a control of the planner a value, as a reader does."""
        script = """
            const [selector, value, event] = arguments;
            const control = document.querySelector(`[data-section="planner"] ${selector}`);
            if (control.type === 'checkbox') control.checked = value; else control.value = value;
            control.dispatchEvent(new Event(event, { bubbles: true }));"""
        self.page.run(script, selector, value, event)
        self.settle()

    def press(self, name: str) -> None:
        """Press the button of that name."""
        script = "document.querySelector(`[data-section=planner] button[name='${arguments[0]}']`).click()"
        self.page.run(script, name)
        self.settle()

    def switch(self, label: str, is_on: bool) -> None:
        """Turn the switch that has this name for screen readers."""
        self.put(f'input[type="checkbox"][aria-label="{label}"]', is_on)

    def figures(self) -> dict[str, float]:
        """What the merge would be as a whole, with every digit."""
        script = """
            return Object.fromEntries(arguments[0].map((name) => (
              [name, Number(document.querySelector(`[data-outcome="${name}"]`).title)])));"""
        return self.page.run(script, FIGURES)

    def components(self) -> dict[str, float]:
        """By component, how far the merge moves from A."""
        script = """
            const rows = document.querySelectorAll('[data-component]');
            const its = (row) => Number(row.querySelector('[data-figure=distance_a]').title);
            return Object.fromEntries([...rows].map((row) => [row.dataset.component, its(row)]));"""
        return self.page.run(script)

    def slider(self, title: str) -> float:
        """Where a slider stands."""
        script = "return Number(document.querySelector(`[type=range][aria-label='${arguments[0]}']`).value)"
        return self.page.run(script, title)

    def problem(self) -> str:
        """What is wrong with the plan."""
        return self.page.text(".planner-problem")

    def command(self, *words: str) -> list[str]:
        """The words of the command line, as a shell reads them, once it holds some."""
        script = "return document.querySelector('.command').textContent"
        self.page.wait(f"{script.removesuffix(';')}.includes(arguments[0])", " ".join(words))
        return shlex.split(self.page.run(script).replace("\\\n", " "))


def expected(scan: Scan, alpha_of: Callable[[KeyScan], float], **options: Any) -> dict[str, float | None]:
    """Python's prediction of the alphas by key."""
    found = predict(scan, steps(scan, alpha_of), **options)
    return {name: getattr(found, name) for name in FIGURES}


def steps(scan: Scan, alpha_of: Callable[[KeyScan], float]) -> dict[str, tuple[float, float, float]]:
    return {row.key: (1.0, alpha_of(row), 0.0) for row in counted(scan.keys)}
