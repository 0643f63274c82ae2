"""report.html in headless Chromium, with the network off: shown, legible, quiet, worked by keyboard, printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from st_reasoning.hrsa.html import render
from tests.hrsa.records import HOSTILE, full, reading, realignment, record
from tests.pages import contrast


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    hostile = full(names=HOSTILE, layers=(4, 60), gaps=True)
    hostile["reading"] = reading(HOSTILE[0])
    files = {
        "plain": render(full(), realignment=realignment()),
        "hostile": render(hostile),
        "left out": render(record(widths=(32, 48), layers=(60, 4), sinks=0, probe=False)),
    }
    for name, text in files.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in files}


EVERY_PAGE = pytest.mark.parametrize("name", ["plain", "hostile", "left out"])


@EVERY_PAGE
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_chromium_shows_the_page(browser, pages, name, scheme, width):
    browser.show(pages[name], width=width, scheme=scheme)
    assert browser.messages == []
    assert browser.requests == [pages[name].as_uri()]
    sizes = browser.ask("[...document.querySelectorAll('figure svg.plot')].map(s => [s.clientWidth, s.clientHeight])")
    assert len(sizes) >= 10
    assert all(across > 250 and high > 120 for across, high in sizes), sizes
    assert browser.ask("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    # Labels stay inside their drawings.
    outside = """[...document.querySelectorAll('svg.plot')].flatMap(s => { const b = s.getBoundingClientRect();
      return [...s.querySelectorAll('text')].filter(t => { const r = t.getBoundingClientRect();
        return r.left < b.left - 1 || r.right > b.right + 1 || r.top < b.top - 1 || r.bottom > b.bottom + 1; })
      .map(t => t.textContent); })"""
    assert browser.ask(outside) == []
    ground = browser.ask("getComputedStyle(document.body).backgroundColor")
    bright = sum(map(int, re.findall(r"\d+", ground)[:3])) > 3 * 128
    assert bright == (scheme == "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_and_words_stand_out_from_the_ground(browser, pages, scheme):
    browser.show(pages["plain"], scheme=scheme)
    colours = browser.ask(
        """(() => { const seen = {ground: getComputedStyle(document.body).backgroundColor};
        for (const line of document.querySelectorAll('.line'))
          seen[line.getAttribute('class')] = getComputedStyle(line).stroke;
        for (const kind of ['p', 'figcaption', 'a', '.rule', '.soft'])
          seen['text ' + kind] = getComputedStyle(document.querySelector(kind)).color;
        return seen; })()"""
    )

    ground = colours.pop("ground")
    assert len(colours) >= 10
    for name, colour in colours.items():
        # WCAG 2.2: 4.5 for text, 3 for lines.
        assert contrast(ground, colour) >= (4.5 if name.startswith("text") else 3.0), (name, colour)


def test_lines_differ_in_dash_as_well_as_in_colour(browser, pages):
    browser.show(pages["plain"])
    dashes = browser.ask(
        """Object.fromEntries([...document.querySelectorAll('.line')]
        .map(l => [l.getAttribute('class'), getComputedStyle(l).strokeDasharray]))"""
    )
    assert set(dashes) == {f"line {style}" for style in ("value", "types", "sinks", "scaled", "ceiling", "chance")}
    assert len(set(dashes.values())) == len(dashes)


def test_heat_maps_are_read_with_the_keyboard_and_by_pointing(browser, pages):
    browser.show(pages["plain"])
    figure = "document.querySelector('figure[data-maps]')"
    table = "document.getElementById('dimension_correlation').tBodies[0]"

    def shown(row: int, column: int) -> bool:
        cell = browser.ask(f"{table}.rows[{row}].cells[{column + 1}].textContent")
        return f": {cell} ±" in browser.ask(f"{figure}.querySelector('output').firstChild.textContent")

    assert shown(30, 30)
    browser.ask(f"{figure}.querySelector('input').focus()")
    browser.press("ArrowLeft", 37)
    browser.press("ArrowLeft", 37)
    assert shown(28, 30)
    browser.ask(f"{figure}.scrollIntoView()")
    box = browser.ask(
        f"(() => {{ const b = {figure}.querySelector('image').getBoundingClientRect(); "
        "return [b.left, b.top, b.width, b.height]; })()"
    )
    left, top, width, height = box
    place = {"x": left + width * 3.5 / 31, "y": top + height * (1 - 10.5 / 31)}
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", **place)
    assert shown(10, 3)
    mark = f"{figure}.querySelector('.mark').getBoundingClientRect()"
    assert browser.ask(f"({mark}).left") < place["x"] < browser.ask(f"({mark}).right")
    assert browser.ask(f"({mark}).top") < place["y"] < browser.ask(f"({mark}).bottom")


def test_everything_is_reached_with_the_tab_key(browser, pages):
    browser.show(pages["plain"])
    browser.ask("document.querySelectorAll('details').forEach(d => d.open = true)")
    count = browser.ask("document.querySelectorAll('a[href], input, summary, .scroll').length")
    reached = set()
    for _ in range(count):
        browser.press("Tab", 9)
        reached.add(browser.ask("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    assert len(reached) == count


def test_links_save_their_data(browser, pages, tmp_path):
    browser.show(pages["hostile"])
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.ask("document.querySelector('a[download=\"linear_cka.csv\"]').click()")
    file = tmp_path / "linear_cka.csv"
    browser.ask("new Promise(done => setTimeout(done, 1000))")
    for _ in range(20):
        if file.is_file() and file.stat().st_size:
            break
        browser.ask("new Promise(done => setTimeout(done, 500))")
    assert file.read_text().startswith("layer,matched_layer,address,value,low,high\n0,0,linear_cka.debiased,")
    assert browser.messages == []


def test_a_script_that_is_not_ours_does_not_run(browser, pages, tmp_path):
    """The policy's own witness: escaping is the first lock, this is the second."""
    file = tmp_path / "page.html"
    text = pages["plain"].read_text(encoding="utf-8")
    file.write_text(text.replace("</main>", "<script>document.title = 'foreign'</script></main>"), encoding="utf-8")
    browser.show(file)
    assert browser.ask("document.title") != "foreign"
    assert any("Content Security Policy" in message for message in browser.messages)


def test_page_prints(browser, pages):
    browser.show(pages["plain"], scheme="dark")
    pdf = browser.printed()
    assert pdf.startswith(b"%PDF")
    browser.call(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.ask("document.querySelector('.readout').offsetHeight") == 0
    browser.call("Emulation.setEmulatedMedia", media="")
