"""An open page, spoken to in the words of a reader. Knows no expectation of any test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

TIMEOUT = 20  # seconds; a page needs one or two

# Files, data, and what the browser's own first page asks for, which no page can.
_NOT_ASKED_FOR = ("file:", "data:", "blob:", "chrome:", "chrome-untrusted:")


class Page:
    """An open report, spoken to in the words of a reader: sections, switches, rows."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def run(self, script: str, *arguments: object) -> Any:
        """The value of a script's `return`."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str, *arguments: object) -> None:
        """Wait until a script's `return` is true."""
        # Only where there is a browser: the session must start without selenium.
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.driver, TIMEOUT, poll_frequency=0.02).until(lambda _: self.run(script, *arguments))

    def point_at(self, selector: str, *, click: bool = False) -> None:
        """Move the mouse onto the first element of that kind, and click if asked to."""
        from selenium.webdriver import ActionChains

        actions = ActionChains(self.driver).move_to_element(
            self.driver.find_element("css selector", selector)
        )
        (actions.click() if click else actions).perform()

    def text(self, selector: str) -> str:
        """What an element says, whether or not it is in sight."""
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def switch(self, section: str, name: str, value: str | bool) -> None:
        """Choose an option of a section's switch, or tick its box."""
        script = """
            const [section, name, value] = arguments;
            const control = document.querySelector(`[data-section="${section}"] [name="${name}"]`);
            if (control.type === 'checkbox') control.checked = value; else control.value = value;
            control.dispatchEvent(new Event('change'));"""
        self.run(script, section, name, value)

    def type_selector(self, text: str) -> None:
        """Put text where a reader types a selector."""
        script = """
            const input = document.querySelector('#selector');
            input.value = arguments[0];
            input.dispatchEvent(new Event('input'));"""
        self.run(script, text)

    def select(self, text: str) -> None:
        """Type a selector and wait until the page has taken it and drawn it."""
        self.type_selector(text)
        self.wait("return document.querySelector('#selection-text').textContent === arguments[0]", text)
        self.settle()

    def settle(self) -> None:
        """Wait until every figure is drawn as it should be; those out of sight come a moment later."""
        self.wait("return window.mergescope.isDrawn?.() ?? true")

    def fragment(self) -> str:
        """What the page's address holds of its state; it follows a change in a moment."""
        return self.run("return decodeURIComponent(location.hash.slice(1))")

    def figure(self, section: str) -> dict[str, Any]:
        """The traces and the axes that Plotly drew in a section."""
        self.settle()
        script = """
            const { data, layout } = document.querySelector(`[data-section="${arguments[0]}"] .figure`);
            return JSON.parse(JSON.stringify({ data, layout }));"""
        return self.run(script, section)

    def rows(self) -> list[list[str]]:
        """The cells of the rows of keys that are in the page, as text."""
        script = """
            const rows = document.querySelectorAll('[data-section="keys"] tbody tr:not(.gap)');
            return [...rows].map((row) => [...row.cells].map((cell) => cell.textContent));"""
        return self.run(script)

    def predict(self, entries: Sequence[tuple[str, float]]) -> dict[str, float | None]:
        """What the page says that a merge would be."""
        return self.run("return window.mergescope.predict(arguments[0])", entries)

    def restore(self) -> None:
        """Select everything, put every switch back, and sort as a fresh page does."""
        script = """
            const change = (control) => control.dispatchEvent(new Event('change'));
            const all = (kind) => document.querySelectorAll(`section:not([data-section=planner]) ${kind}`);
            for (const list of all('select')) {
              if (list.selectedIndex === 0) continue;
              list.selectedIndex = 0;
              change(list);
            }
            for (const box of all('input:checked')) {
              box.checked = false;
              change(box);
            }
            for (const button of document.querySelectorAll('[name=whole][aria-pressed=true]')) button.click();
            document.querySelector('[data-section=planner] [name=reset]')?.click();
            document.querySelector('th:not([aria-sort])[data-column=relative_change] button')?.click();
            const isFiltered = document.querySelector('#selector').value !== '';
            if (isFiltered) document.querySelector('#selection button').click();"""
        self.run(script)
        self.wait("return document.querySelector('#selection').hidden")
        self.settle()

    def complaints(self) -> list[str]:
        """Errors and warnings in the console since the last call."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that the browser asked for since the last call, files and data aside."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(_NOT_ASKED_FOR)]
