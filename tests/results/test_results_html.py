"""The pages and tables: what foreign names cannot do; in headless Chromium sorting, keyboard, printing, saving."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from st_reasoning.results import read_results
from st_reasoning.results.compare import Comparison, compare
from st_reasoning.results.comparison_html import comparison_page
from st_reasoning.results.groups import find_side
from st_reasoning.results.html import overview_page, overview_table
from st_reasoning.results.reading import LeftOut
from st_reasoning.results.show import Overview
from st_reasoning.results.tasks import TaskInfo
from st_reasoning.results.words import markdown, sentence, table, text, to_mapping
from tests.hrsa.chromium import Chromium
from tests.pages import Tags
from tests.results.folders import write_seeds

HOSTILE = "<script>alert(1)</script>|=1+1\N{RIGHT-TO-LEFT OVERRIDE}"
TASKS = ("Alpha", "Beta", "=HYPERLINK(1)", "<b>|Delta")


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    root, rng = tmp_path_factory.mktemp("results"), np.random.default_rng(0)
    for group, mean in (("base", 0.5), (HOSTILE.replace("/", ""), 0.503)):
        write_seeds(root, group, {s: {t: round(mean + rng.normal(0, 0.002), 5) for t in TASKS} for s in range(3)})
    results = read_results(root)
    infos = {task: TaskInfo(task, "Retrieval", None) for task in results.tasks}
    sides = [find_side(name, results.runs) for name in ("base", HOSTILE.replace("/", ""))]
    return compare(results, *sides, infos)


@pytest.fixture(scope="module")
def pages(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    models = [
        {
            "label": label, "model": label, "revision": "1", "experiment": None, "seed": None, "rank_borda": rank,
            "mean_task": score, "mean_type": score, "types": {"Retrieval": score},
            "tasks": dict.fromkeys(TASKS, score),
        }
        for label, rank, score in (("low", 3, 9.5), (HOSTILE, 1, 80.25), ("middle", 2, 10.0), ("none", None, None))
    ]  # fmt: skip
    overview = Overview("all tasks", dict.fromkeys(TASKS, "Retrieval"), tuple(models), (), (HOSTILE,))
    left_out = (LeftOut(Path(HOSTILE), "corrupt", f"{HOSTILE} is not JSON"),)
    texts = {"compare": comparison_page([comparison, comparison], left_out), "show": overview_page(overview)}
    for name, page in texts.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    rows = list(csv.reader(io.StringIO(overview_table(overview))))
    assert [len(row) for row in rows] == [len(rows[0])] * 5
    return {name: folder / f"{name}.html" for name in texts}


@pytest.mark.parametrize("name", ["compare", "show"])
def test_pages_hold_nothing_foreign_and_ask_nothing_of_the_network(pages: dict[str, Path], name: str):
    parser = Tags()
    parser.feed(pages[name].read_text(encoding="utf-8"))
    names = [tag for tag, _ in parser.seen]
    assert names.count("script") == 1
    links = [value for tag, attrs in parser.seen for key, value in attrs.items() if key in ("src", "href")]
    assert all(link.startswith(("data:", "#")) for link in links)


def test_the_formats_say_the_same(comparison: Comparison):
    facts = json.loads(json.dumps(to_mapping(comparison), allow_nan=False))
    assert facts["sentence"] == sentence(comparison)
    rows = list(csv.DictReader(io.StringIO(table([comparison]))))
    deciding = [row for row in rows if row["decides"] == "1"]
    assert len(deciding) == len(facts["rows"]) == len(comparison.rows) == 6
    for row, fact in zip(deciding, facts["rows"], strict=True):
        assert row["word"] == fact["word"]
        assert float(row["low"]) == pytest.approx(fact["interval"]["low"], abs=1e-4)
    # A spreadsheet must not take a name for a formula.
    assert {row["name"] for row in deciding} >= {"'=HYPERLINK(1)", "Alpha"}
    lines = text(comparison).splitlines()
    assert lines[0] == sentence(comparison)
    assert "95% interval" in text(comparison)
    body = [line for line in markdown(comparison).splitlines() if line.startswith("|")]
    cells = [line.replace("\\|", "").count("|") for line in body]
    assert set(cells) == {10}
    assert "<b>" not in markdown(comparison)


@pytest.mark.parametrize("name", ["compare", "show"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_chromium_shows_the_page(browser: Chromium, pages: dict[str, Path], name: str, scheme: str, width: int):
    browser.show(pages[name], width=width, scheme=scheme)
    assert browser.messages == []
    assert browser.requests == [pages[name].as_uri()]
    assert browser.ask("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    ground = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 27)"}[scheme]


def test_columns_are_sorted_by_keyboard(browser: Chromium, pages: dict[str, Path]):
    browser.show(pages["show"])
    names = "[...document.querySelectorAll('tbody th')].map(c => c.textContent)"
    button = "document.querySelectorAll('thead button')[2]"
    assert browser.ask(f"{button}.textContent") == "Mean of tasks"
    browser.ask(f"{button}.focus()")
    orders = []
    for _ in range(2):
        browser.call(
            "Input.dispatchKeyEvent", type="keyDown", key=" ", code="Space", text=" ", windowsVirtualKeyCode=32
        )
        browser.call("Input.dispatchKeyEvent", type="keyUp", key=" ", code="Space", windowsVirtualKeyCode=32)
        orders.append((browser.ask(names), browser.ask(f"{button}.parentElement.getAttribute('aria-sort')")))
    # By number, not by letters, and what is missing last in either direction.
    assert orders == [
        ([HOSTILE, "middle", "low", "none"], "descending"),
        (["low", "middle", HOSTILE, "none"], "ascending"),
    ]


def test_everything_is_reached_with_the_tab_key(browser: Chromium, pages: dict[str, Path]):
    browser.show(pages["compare"])
    count = browser.ask("document.querySelectorAll('a[href], button, .scroll').length")
    reached = set()
    for _ in range(count):
        browser.press("Tab", 9)
        reached.add(browser.ask("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    assert len(reached) == count


def test_numbers_are_saved(browser: Chromium, pages: dict[str, Path], comparison: Comparison, tmp_path: Path):
    browser.show(pages["compare"])
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.ask("document.querySelector('a[download]').click()")
    file = tmp_path / "comparison.csv"
    for _ in range(20):
        browser.ask("new Promise(done => setTimeout(done, 250))")
        if file.is_file() and file.stat().st_size:
            break
    assert file.read_text(encoding="utf-8") == table([comparison, comparison])


def test_page_prints_in_light(browser: Chromium, pages: dict[str, Path]):
    browser.show(pages["compare"], scheme="dark")
    assert browser.printed().startswith(b"%PDF")
    browser.call(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser.call("Emulation.setEmulatedMedia", media="")


def test_a_script_that_is_not_ours_does_not_run(browser: Chromium, pages: dict[str, Path], tmp_path: Path):
    file = tmp_path / "page.html"
    page = pages["show"].read_text(encoding="utf-8")
    file.write_text(page.replace("</main>", "<script>document.title = 'foreign'</script></main>"), encoding="utf-8")
    browser.show(file)
    assert browser.ask("document.title") != "foreign"
