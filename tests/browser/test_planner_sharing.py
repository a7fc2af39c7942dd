"""What leaves the planner and comes back: command line, recipe, the page's address."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planner_page import Planner

from analyzer.recipes.recipe_file import parse_toml


@pytest.fixture(scope="module")
def opened(open_page: Callable[..., Any], synthetic: Any) -> Planner:
    """The planner of the synthetic scan, opened once."""
    return Planner(open_page(synthetic.scan))


@pytest.fixture
def planner(opened: Planner) -> Planner:
    """The same with nothing planned."""
    opened.press("reset")
    return opened


def test_copying_falls_back_to_selecting(planner: Planner) -> None:
    """Where the browser copies, it is said; where it refuses, the text is selected for the reader."""
    script = """
        const [refuses, done] = arguments;
        const take = (text) => Promise.resolve(window.taken = text);
        const writeText = (text) => (refuses ? Promise.reject(new Error('no')) : take(text));
        Object.defineProperty(navigator, 'clipboard', { value: { writeText }, configurable: true });
        document.querySelector('[name="copy-command"]').click();
        setTimeout(done, 20);"""
    planner.command("--alpha", "0.5")
    planner.page.driver.execute_async_script(script, False)
    assert "The command is copied." == planner.page.text(".copied")
    assert planner.page.text(".command") == planner.page.run("return window.taken")
    planner.page.driver.execute_async_script(script, True)
    assert "press Ctrl+C" in planner.page.text(".copied")
    assert (
        planner.page.text(".command").strip() == planner.page.run("return getSelection().toString()").strip()
    )


def test_the_recipe_is_downloaded_and_read_back(planner: Planner, tmp_path: Path) -> None:
    """The file is a recipe to Python; the planner reads it into the sliders that wrote it."""
    planner.move("alpha of IN04", 0.85)
    planner.switch("merge ff", False)
    planner.put('select[name="dtype"]', "bf16")
    wanted = planner.figures()
    planner.command("bf16")
    driver = planner.page.driver
    driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    planner.press("download-recipe")
    path = tmp_path / "recipe.toml"
    _appears(path)
    text = path.read_text(encoding="utf-8")
    assert planner.page.text(".toml") == text
    assert "bf16" == parse_toml(text, source=path).recipe.dtype
    planner.press("reset")
    planner.page.run("document.querySelector('.read').open = true")
    driver.find_element("css selector", '[name="recipe-file"]').send_keys(str(path))
    planner.page.wait(
        "return Number(document.querySelector('[aria-label=\"alpha of IN04\"]').value) === 0.85"
    )
    planner.settle()
    assert wanted == pytest.approx(planner.figures(), rel=1e-12)
    assert not planner.page.run("return document.querySelector('[aria-label=\"merge ff\"]').checked")
    planner.page.wait("return document.querySelector('.toml').textContent === arguments[0]", text)


def _appears(path: Path) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(None, 10, poll_frequency=0.02).until(lambda _: path.exists() and path.stat().st_size > 0)


def test_a_recipe_that_is_none_is_refused_in_a_sentence(planner: Planner) -> None:
    """The plan stays as it is; a reader of a screen hears why."""
    planner.move("alpha of IN04", 0.85)
    planner.put('[name="recipe-text"]', "alpha = = 1", "input")
    planner.press("read-recipe")
    alert = "return document.querySelector('.read [role=alert]').textContent"
    assert planner.page.run(alert).rstrip(".")
    assert 0.85 == planner.slider("alpha of IN04")
    planner.put('[name="recipe-text"]', "alpha = 0.25", "input")
    planner.press("read-recipe")
    assert ("", 0.25) == (planner.page.run(alert), planner.slider("alpha of everything"))


def test_the_address_holds_the_plan(planner: Planner) -> None:
    """A copied address opens the page with the same plan; the default one leaves no trace."""
    planner.move("alpha of IN04", 0.85)
    planner.put('[name="only"]', "U-Net,!bias")
    planner.put('[name="top-n"]', 4, "input")
    planner.put('[name="top"]', True)
    planner.switch("merge ff", False)
    wanted = planner.figures()
    planner.page.wait("return location.hash.includes('plan') && location.hash.includes('top')")
    address = planner.page.run("return location.href")
    planner.page.driver.get("about:blank")
    planner.page.driver.get(address)
    planner.page.wait("return Boolean(window.mergescope && window.mergescope.predict)")
    planner.settle()
    assert wanted == planner.figures()
    assert 0.85 == planner.slider("alpha of IN04")
    planner.press("reset")
    planner.page.wait("return !location.hash.includes('plan')")


def test_a_broken_address_says_nothing(planner: Planner) -> None:
    """Names of another model and numbers that are none are left out."""
    broken = "alpha:x;blocks:,,9e99,0.2;off:~2,nothing;top:0,a,b;budget:-1;dtype:int3;preset:NONE;__proto__:1"
    planner.page.run("location.hash = `plan=${encodeURIComponent(arguments[0])}`", broken)
    planner.settle()
    assert [] == planner.page.complaints()
    planner.page.run("history.replaceState(null, '', '#')")
