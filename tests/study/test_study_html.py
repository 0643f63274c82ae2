"""report.html of a study in headless Chromium, without network: shown, quiet, sorted, by keyboard, printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from st_reasoning.files import read_json
from st_reasoning.study.markdown import markdown
from st_reasoning.study.report import render, write_report
from st_reasoning.study.summary import summarise
from st_reasoning.study.tables import paper_form, published
from tests.hrsa.chromium import Chromium
from tests.pages import Tags, contrast
from tests.study.made import failed, made, write_curve

HOSTILE = "<script>alert(1)</script>|\"onload='alert(2)' {{ 7 * 7 }}"
KNOWN = {"up": ("Qwen/Qwen2.5-0.5B", "hkust-nlp/Qwen-2.5-0.5B-SimpleRL-Zoo")}
DIFFERENCES = {
    "up": [2.0, 2.2],
    "down": [-1.0, -1.4],
    "same": [0.01, -0.01],
    "open-a-pair-with-a-long-name": [3.0, -2.0],
}


@pytest.fixture(scope="module")
def studies(panels: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """A whole study, one of which half failed with hostile words, and one of which nothing is there."""
    root = tmp_path_factory.mktemp("studies")
    recipe, out, outcomes = made(root / "whole", DIFFERENCES, panels, benchmarks=("BRIGHT(v1.1)",), names=KNOWN)
    for seed in (0, 1):
        points = [{"step": s, "linear_cka": 0.5 + s / 100, "knn_overlap": 0.3} for s in (0, 5, 10)]
        write_curve(out, outcomes, "up", seed, points)
    whole = summarise(recipe, out, outcomes)
    names = {"up": (f"org/{HOSTILE.replace('/', '')}", "org/x"), "down": ("org/y", "org/z")}
    recipe, half_out, outcomes = made(root / "half", {"up": [1.0, 1.2], "down": [0.1, 0.3]}, panels, names=names)
    lost = [name for name in outcomes if name.startswith(("evaluate/x/", "hrsa/up/"))]
    half = summarise(recipe, half_out, failed(outcomes, *lost, reason=HOSTILE))
    recipe, none_out, outcomes = made(root / "none", {"up": [1.0]}, panels)
    none = summarise(recipe, root / "nowhere", failed(outcomes, *outcomes))
    found = {"whole": (whole, out), "half": (half, half_out), "none": (none, none_out)}
    for name, (study, folder) in found.items():
        write_report(study, folder if name != "none" else root / "nowhere")
    return {
        name: {"study": study, "page": (folder if name != "none" else root / "nowhere") / "report.html"}
        for name, (study, folder) in found.items()
    }


EVERY = pytest.mark.parametrize("name", ["whole", "half", "none"])


@EVERY
def test_pages_hold_nothing_foreign_and_ask_nothing_of_the_network(studies: dict[str, Any], name: str) -> None:
    parser = Tags()
    parser.feed(studies[name]["page"].read_text(encoding="utf-8"))
    names = [tag for tag, _ in parser.seen]
    assert names.count("script") == 1
    assert not any(key.startswith("on") for _, attrs in parser.seen for key in attrs)
    links = [value for tag, attrs in parser.seen for key, value in attrs.items() if key in ("src", "href")]
    assert all(link.startswith(("data:", "#")) for link in links)
    ids = [attrs["id"] for _, attrs in parser.seen if "id" in attrs]
    assert len(ids) == len(set(ids))
    anchors = {link for link in links if link.startswith("#")}
    assert anchors <= {f"#{each}" for each in ids}


@EVERY
def test_the_answer_comes_first_and_all_three_files_say_it(studies: dict[str, Any], name: str) -> None:
    study, page = studies[name]["study"], studies[name]["page"]
    text, lines = page.read_text(encoding="utf-8"), page.with_name("report.md").read_text(encoding="utf-8")
    assert read_json(page.with_name("study.json")) == study
    main = text[text.index("<main>") :]
    assert main.index(study["answer"]["advice"]) < main.index("Scores</h2>")
    assert lines.startswith(f"# Does the reasoning model make the better embedder?\n\n**{study['answer']['advice']}**")
    table = paper_form(study)
    for row in table.rows:
        shown = [cell["text"] for cell in row]
        (line,) = (each for each in lines.splitlines() if each.startswith(f"| {shown[0]} | {shown[1]} | {shown[2]} |"))
        assert all(f"| {cell.replace('|', chr(92) + '|')} " in f"{line} " for cell in shown[3:12])
    cells = {line.replace("\\|", "").count("|") for line in lines.splitlines() if line.startswith("| Pair | Method")}
    assert len(cells) <= 1


def test_published_values_are_on_the_page(studies: dict[str, Any]) -> None:
    table = published(studies["whole"]["study"])
    assert table is not None
    (row,) = table.rows
    assert [cell["text"] for cell in row[:2]] == ["up", "BRIGHT"]
    assert [cell["text"] for cell in row[4:6]] == ["14.05 to 13.99, \N{MINUS SIGN}0.06 ± 0.05", "equivalent"]
    assert row[4]["text"] in studies["whole"]["page"].read_text(encoding="utf-8")
    assert published(studies["half"]["study"]) is None


def test_markdown_says_every_word_of_the_page(studies: dict[str, Any]) -> None:
    """Sentences, warnings, notes and rules; not what only a page has: links, legends, curves by layer."""
    study = studies["whole"]["study"]
    said = " ".join(markdown(study).replace("\\", "").replace("&lt;", "<").replace("&amp;", "&").split())
    for pair in study["pairs"]:
        found = pair["mechanism"]
        assert found["backbones"]["warnings"]
        sentences = [
            *pair["answer"]["sentences"], *pair["comparison"]["warnings"], *found["backbones"]["warnings"],
            *found["realignment"]["notes"], *(level["rule"] for level in found["backbones"]["levels"]),
        ]  # fmt: skip
        for sentence in sentences:
            assert " ".join(sentence.split()) in said


def test_markdown_of_a_hostile_study_has_no_markup_of_its_words(studies: dict[str, Any]) -> None:
    text = markdown(studies["half"]["study"])
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert "<script" not in outside
    assert "&lt;script" in outside


def test_a_page_is_drawn_where_the_panels_are_gone(studies: dict[str, Any], tmp_path: Path) -> None:
    page = render(studies["whole"]["study"], tmp_path)
    assert "layer by layer" not in page
    assert "Before and after contrastive training" in page


@EVERY
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_chromium_shows_the_page(
    browser: Chromium, studies: dict[str, Any], name: str, scheme: str, width: int
) -> None:
    page = studies[name]["page"]
    browser.show(page, width=width, scheme=scheme)
    assert browser.messages == []
    assert browser.requests == [page.as_uri()]
    assert browser.ask("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    browser.ask("document.querySelectorAll('details').forEach(d => d.open = true)")
    sizes = browser.ask("[...document.querySelectorAll('figure svg.plot')].map(s => [s.clientWidth, s.clientHeight])")
    assert len(sizes) >= {"whole": 12, "half": 4, "none": 0}[name]
    assert all(across > 250 and high > 60 for across, high in sizes), sizes
    # Labels stay inside their drawings, and none covers another one.
    outside = """[...document.querySelectorAll('svg.plot')].flatMap(s => { const b = s.getBoundingClientRect();
      return [...s.querySelectorAll('text')].filter(t => { const r = t.getBoundingClientRect();
        return r.left < b.left - 1 || r.right > b.right + 1 || r.top < b.top - 1 || r.bottom > b.bottom + 1; })
      .map(t => t.textContent); })"""
    assert browser.ask(outside) == []
    covered = """[...document.querySelectorAll('svg.plot')].flatMap(s => {
      const all = [...s.querySelectorAll('text:not(.in)')].map(t => [t.textContent, t.getBoundingClientRect()]);
      return all.flatMap(([a, r], i) => all.slice(i + 1).filter(([b, q]) => r.left < q.right - 1 && q.left < r.right - 1
        && r.top < q.bottom - 3 && q.top < r.bottom - 3).map(([b]) => `${a} | ${b}`)); })"""
    assert browser.ask(covered) == []
    ground = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 27)"}[scheme]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_marks_and_words_stand_out_from_the_ground(browser: Chromium, studies: dict[str, Any], scheme: str) -> None:
    browser.show(studies["whole"]["page"], scheme=scheme)
    colours = browser.ask(
        """(() => { const seen = {ground: getComputedStyle(document.body).backgroundColor};
        for (const mark of document.querySelectorAll('.spot, .ring, .line, .whisker:not(.faint)')) {
          const style = getComputedStyle(mark);
          seen[mark.getAttribute('class')] = mark.classList.contains('spot') ? style.fill : style.stroke; }
        for (const kind of ['p', 'a', '.soft', '.open', '.plot text'])
          seen['text ' + kind] =
            getComputedStyle(document.querySelector(kind))[kind == '.plot text' ? 'fill' : 'color'];
        return seen; })()"""
    )

    ground = colours.pop("ground")
    assert len(colours) >= 12
    for name, colour in colours.items():
        # WCAG 2.2: 4.5 for text, 3 for marks.
        assert contrast(ground, colour) >= (4.5 if name.startswith("text") else 3.0), (name, colour)


def test_columns_are_sorted_by_keyboard(browser: Chromium, studies: dict[str, Any]) -> None:
    browser.show(studies["whole"]["page"])
    rows = "[...document.querySelector('#scores').parentElement.querySelector('table').querySelectorAll('tbody tr')]"
    values = f"{rows}.map(r => Number(r.cells[5].dataset.v))"
    browser.ask("document.querySelector('#scores').parentElement.querySelectorAll('thead button')[5].focus()")
    for reverse in (True, False):
        browser.call(
            "Input.dispatchKeyEvent", type="keyDown", key=" ", code="Space", text=" ", windowsVirtualKeyCode=32
        )
        browser.call("Input.dispatchKeyEvent", type="keyUp", key=" ", code="Space", windowsVirtualKeyCode=32)
        found = browser.ask(values)
        assert found == sorted(found, reverse=reverse)
    assert len(found) >= 8


def test_everything_is_reached_with_the_tab_key(browser: Chromium, studies: dict[str, Any]) -> None:
    browser.show(studies["half"]["page"])
    browser.ask("document.querySelectorAll('details').forEach(d => d.open = true)")
    count = browser.ask("document.querySelectorAll('a[href], button, summary, [tabindex=\"0\"]').length")
    reached = set()
    for _ in range(count):
        browser.press("Tab", 9)
        reached.add(browser.ask("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    assert len(reached) == count


def test_links_save_their_data(browser: Chromium, studies: dict[str, Any], tmp_path: Path) -> None:
    browser.show(studies["whole"]["page"])
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.ask("document.querySelector('a[download=\"scores.csv\"]').click()")
    file = tmp_path / "scores.csv"
    for _ in range(40):
        browser.ask("new Promise(done => setTimeout(done, 250))")
        if file.is_file() and file.stat().st_size:
            break
    assert file.read_text(encoding="utf-8") == paper_form(studies["whole"]["study"]).csv()


def test_a_script_that_is_not_ours_does_not_run(browser: Chromium, studies: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    page = studies["whole"]["page"].read_text(encoding="utf-8")
    file.write_text(page.replace("</main>", "<script>document.title = 'foreign'</script></main>"), encoding="utf-8")
    browser.show(file)
    assert browser.ask("document.title") != "foreign"


def test_page_prints_in_light(browser: Chromium, studies: dict[str, Any]) -> None:
    browser.show(studies["whole"]["page"], scheme="dark")
    assert browser.printed().startswith(b"%PDF")
    browser.call(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser.call("Emulation.setEmulatedMedia", media="")
