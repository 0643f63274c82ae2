"""report.html: complete, escaped, self-contained, and its numbers are the record's."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import urllib.parse
from html.parser import HTMLParser
from typing import Any

import pytest
from matplotlib import colormaps
from matplotlib.image import imread

from st_reasoning.hrsa import panel, svg
from st_reasoning.hrsa.html import render
from st_reasoning.hrsa.report import write
from tests.hrsa.records import HOSTILE, full, reading, realignment, record

FIGURES = ("dimension_correlation", "procrustes", "linear_cka", "knn_overlap", "linear_probe", "sensitivity")
# Elements that have no end tag.
VOID = {"meta", "link", "input", "br"}


class Page(HTMLParser):
    """A page taken apart: elements with attributes, text by the elements around it, and whether all are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), attrs
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, Any]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def downloads(self) -> dict[str, list[dict[str, str]]]:
        """Return the rows of each file the page offers, by its name."""
        found = {}
        for link in self.all("a"):
            if "download" in link:
                head, data = link["href"].split(",", 1)
                assert head == "data:text/csv;charset=utf-8"
                found[link["download"]] = list(csv.DictReader(io.StringIO(urllib.parse.unquote(data))))
        return found

    def words(self) -> str:
        return " ".join("".join(self.text).split())


def at(entry: Any, address: str) -> Any:
    for key in address.split("."):
        entry = entry[key]
    return entry


def check_against_record(rows: list[dict[str, str]], compared: dict[str, Any]) -> int:
    """Compare each line of a file of curves with the record; return how many numbers were compared."""
    count = 0
    for row in rows:
        part, address = compared, row["address"]
        if address.startswith("ceiling."):
            part, address = compared["ceiling"], address.removeprefix("ceiling.")
        section = "layers"
        if address.startswith("sensitivity."):
            section, address = "sensitivity", address.removeprefix("sensitivity.")
        entry = part[section][int(row["layer"])]
        ends = [None, None]
        try:
            value = at(entry, address)
            ends = at(entry, f"{address}_interval") or ends
        except (TypeError, KeyError):  # the whole measure is null here, or it has no interval
            value = None if row["value"] == "" else value
        for text, number in zip((row["value"], row["low"], row["high"]), (value, *ends), strict=True):
            assert (text == "") == (number is None), row
            if number is not None:
                assert float(text) == pytest.approx(number, rel=1e-6, abs=1e-9)
                count += 1
    return count


def test_every_figure_offers_the_numbers_of_the_record():
    made = full(gaps=True)
    offered = Page(render(made, realignment=realignment())).downloads()
    curves = {f"{name}.csv" for name in FIGURES} | {
        f"pooled-{name}.csv"
        for name in FIGURES
        if name != "linear_probe"  # no labels there
    }
    maps = {
        f"{prefix}{name}-matrix.csv" for prefix in ("", "pooled-") for name in ("dimension_correlation", "linear_cka")
    }
    assert set(offered) == curves | maps | {"realignment.csv"}
    for name in curves:
        compared = made["pooled"] if name.startswith("pooled-") else made
        assert check_against_record(offered[name], compared) > 50, name
    assert {row["address"] for row in offered["linear_cka.csv"]} == {
        f"{prefix}{kind}"
        for prefix in (
            "linear_cka.",
            "ceiling.linear_cka.",
            "sensitivity.linear_cka_without_sinks.",
            "sensitivity.linear_cka_standardised.",
        )
        for kind in ("biased", "debiased")
    } | {"linear_cka.chance", "linear_cka.debiased_chance"}
    for name in maps:
        matrices = (made["pooled"] if name.startswith("pooled-") else made)["matrices"]
        assert len(offered[name]) == 31 * 31
        for row in offered[name]:
            for key in set(row) - {"layer", "other_layer"}:
                number = matrices[key][int(row["layer"])][int(row["other_layer"])]
                assert (row[key] == "") == (number is None)
                assert number is None or float(row[key]) == pytest.approx(number, rel=1e-6, abs=1e-9)


def test_changes_are_offered_with_their_intervals():
    wanted = realignment()
    rows = Page(render(full(), realignment=wanted)).downloads()["realignment.csv"]
    for row, change in zip(rows, wanted["changes"], strict=True):
        assert (row["address"], int(row["layer"])) == (change["address"], change["layer"])
        assert float(row["change"]) == pytest.approx(change["change"], rel=1e-6)
        assert (
            row["low"] == ""
            if change["interval"] is None
            else float(row["low"]) == pytest.approx(change["interval"][0], rel=1e-6)
        )


@pytest.mark.parametrize("names", [HOSTILE, tuple(reversed(HOSTILE))])
def test_what_comes_from_models_and_data_is_text(names):
    made = full(names=names, layers=(4, 60), gaps=True)
    made["omitted"][HOSTILE[0]] = HOSTILE[1]
    made["intervals"]["marked"][HOSTILE[0]] = HOSTILE[1]
    made["reading"] = reading(HOSTILE[0])
    made["reading"]["answer"] = made["reading"]["warnings"] = list(HOSTILE)
    made["versions"][HOSTILE[1]] = HOSTILE[0]
    changed = realignment(5)
    changed["changes"][0]["address"] = HOSTILE[1]
    changed["levels"][0]["word"] = HOSTILE[0]
    page = Page(render(made, realignment=changed))
    assert len(page.all("script")) == 1  # ours
    assert {name for _, attributes in page.elements for name in attributes if name.startswith("on")} == set()
    assert not page.open
    for name in names:
        assert page.words().count(name) > 10  # shown as it is, nothing of it run or lost
    assert "{{ 7 * 7 }}" in page.words()


def test_the_page_needs_nothing_but_itself():
    text = render(full(), realignment=realignment())
    page = Page(text)
    ids = {attributes["id"] for _, attributes in page.elements if attributes.get("id")}
    for tag, attributes in page.elements:
        assert tag not in {"iframe", "object", "embed", "base", "form", "img", "audio", "video", "use"}
        assert "style" not in attributes
        for name in ("src", "srcset", "href", "xlink:href", "data", "poster", "action"):
            value = attributes.get(name) or "data:"
            assert value.startswith(("data:", "#")), (tag, attributes)
            assert not value.startswith("#") or value[1:] in ids, value
    assert "url(" not in text
    assert "@import" not in text
    assert len(ids) == sum("id" in attributes for _, attributes in page.elements)
    policy = next(each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_figures_and_wide_tables_are_there_for_those_who_do_not_see_or_point():
    page = Page(render(full(), realignment=realignment()))
    drawings = [each for each in page.all("svg") if each["class"] != "swatch"]
    assert all(each["role"] == "img" and each["aria-label"] for each in drawings)
    plots = [each["aria-label"] for each in drawings if each["class"] == "plot"]
    assert len(set(plots)) == len(plots) > 30
    # Safari lets the keyboard scroll only what is marked so.
    boxes = [each for each in page.all("div") if each.get("class") == "scroll"]
    assert len(boxes) > 30
    assert all(each["tabindex"] == "0" and each["role"] == "region" and each["aria-label"] for each in boxes)
    assert len(page.all("figure")) == len(page.all("figcaption")) == len(page.all("details"))
    said = next(each["aria-label"] for each in drawings if each["aria-label"].startswith("Linear CKA, debiased"))
    values = [layer["linear_cka"]["debiased"] for layer in full()["layers"]]
    assert f"all tokens: from {min(values):.3f} to {max(values):.3f}, {values[-1]:.3f} at the last layer" in said


def test_order_of_the_page():
    page = Page(render(full(), realignment=realignment()))
    headings = [attributes["id"] for tag, attributes in page.elements if tag == "h2"]
    assert headings == ["reading", "levels", "realignment", "layers", "sensitivity-section", "pooled", "how"]


def test_one_vector_per_text_has_words_of_its_own():
    text = render(full())
    tokens, texts = text.split('<h2 id="pooled">')
    assert '<p class="said">stable</p>' in tokens
    assert '<p class="said">distorted</p>' not in tokens
    assert '<p class="said">distorted</p>' in texts
    assert '<p class="said">' not in render(record(pooled=True))


def test_reservations_of_one_vector_per_text_are_marked_where_it_stands():
    made = full()
    assert 'href="#marked"' not in render(made).split('<h2 id="pooled">')[1].split('id="how"')[0]
    made["pooled"]["intervals"] = {"marked": {"linear_cka.debiased": "of texts alone"}}
    texts = render(made).split('<h2 id="pooled">')[1]
    assert 'href="#marked"' in texts
    assert "of texts alone" in texts


def test_undefined_values_are_dashes_and_gaps():
    text = render(full(gaps=True), realignment=realignment())
    words = Page(text).words()
    for bad in ("nan", "None", "inf", "Undefined", "NaN"):
        assert not re.search(rf"\b{bad}\b", words), bad
        assert not re.search(rf"[\"' ,\[>]{bad}[\"' ,\]<]", text), bad
    # Layer 1 is undefined: what is before it is a dot, the line begins at layer 2.
    points = [(0.5, 0.4, 0.6), (None, None, None), (0.6, None, None), (0.7, 0.6, 0.8), (0.8, 0.7, 0.9)]
    drawing = svg.chart(
        [svg.Curve("value", "all", "x", points)],
        [0, 1, 2, 3, 4],
        span=(0.0, 1.0),
        chance=None,
        beyond="below",
        description="",
        x_label="layer",
    )
    lines = re.findall(r'class="line value" d="([^"]+)"', drawing)
    assert [line.count("L") for line in lines] == [2]
    assert len(re.findall(r'class="dot value"', drawing)) == 1
    assert len(re.findall(r'class="band value"', drawing)) == 1
    assert len(re.findall(r'class="bar value"', drawing)) == 1


def test_places_in_a_chart_are_the_values():
    points = [(0.25, None, None), (0.75, None, None)]
    drawing = svg.chart(
        [svg.Curve("value", "all", "x", points)],
        [0, 10],
        span=(0.0, 1.0),
        chance=svg.Curve("chance", "chance", "y", [(0.5, None, None)] * 2),
        beyond="above",
        description="",
        x_label="layer",
    )
    grid = [float(y) for y in re.findall(r'class="grid" d="M\d+ ([\d.]+)', drawing)]
    top, bottom = min(grid), max(grid)
    line = re.search(r'class="line value" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', drawing)
    assert line is not None
    x1, y1, x2, y2 = map(float, line.groups())
    assert y1 == pytest.approx(bottom + 0.25 * (top - bottom), abs=0.1)
    assert y2 == pytest.approx(bottom + 0.75 * (top - bottom), abs=0.1)
    assert x1 < x2
    shade = re.search(r'class="shade" d="M([^"]+)Z"', drawing)
    assert shade is not None
    heights = [float(dot.split()[1]) for dot in shade[1].split("L")]
    assert min(heights) == pytest.approx(top, abs=0.1)  # above the chance line, which is in the middle
    assert max(heights) == pytest.approx((top + bottom) / 2, abs=0.1)


def test_cells_of_a_heat_map_are_the_values(tmp_path):
    values = [[0.0, 0.5, 1.0], [None, 0.25, 2.0]]
    drawing = svg.heat_map(
        values, colours="viridis", span=(0.0, 1.0), matched=[(0, 0), (1, 2)], description="", names=("a", "b")
    )
    found = re.search(r'href="data:image/png;base64,([^"]+)"', drawing)
    assert found is not None
    file = tmp_path / "cells.png"
    file.write_bytes(base64.b64decode(found[1]))
    pixels = imread(file)
    size = pixels.shape[1] // 3
    picked = pixels[size // 2 :: size, size // 2 :: size][::-1]  # the first row is at the bottom
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            wanted = (0, 0, 0, 0) if value is None else colormaps["viridis"](min(value, 1.0))
            assert picked[row, column].tolist() == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize(
    ("low", "high", "most", "whole", "wanted"),
    [
        (0.0, 1.0, 6, False, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 30, 8, True, [0, 5, 10, 15, 20, 25, 30]),
        (0, 60, 8, True, [0, 10, 20, 30, 40, 50, 60]),
        (0, 4, 8, True, [0, 1, 2, 3, 4]),
        (-0.02, 0.013, 6, False, [-0.02, -0.01, 0.0, 0.01]),
        (0, 0, 8, True, [0]),
    ],
)
def test_ticks_are_round(low, high, most, whole, wanted):
    assert svg.ticks(low, high, most, whole=whole) == pytest.approx(wanted)


def test_an_axis_grows_with_its_values_and_a_free_end_with_intervals():
    def axis(points: list[svg.Point], low: float | None, high: float | None) -> tuple[float, float]:
        return svg.limits([svg.Curve("value", "all", "x", points)], low, high)

    assert axis([(0.2, 0.1, 0.3), (0.9, 0.5, 1.4)], 0.0, 1.0) == (0.0, 1.0)
    assert axis([(1.0000001, None, None)], 0.0, 1.0) == (0.0, 1.0)  # rounding is no reason
    low, high = axis([(-0.1, None, None), (1.2, None, None)], 0.0, 1.0)
    assert -0.2 < low < -0.1
    assert 1.2 < high < 1.3
    low, high = axis([(0.0, -0.5, 0.5), (1.0, -99.0, 99.0)], None, None)
    assert -2.3 < low < -2.0
    assert 3.0 < high < 3.3
    low, high = axis([(5.0, None, None), (5.0, None, None)], None, None)
    assert low < 5.0 < high


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "\u2013"), (-0.0001, "0.000"), (-0.5, "\u22120.500"), (1234.5, "1,234.500"), (1, "1.000")],
)
def test_numbers_are_written_for_readers(value, text):
    assert svg.number(value) == text


def test_table_of_levels_has_value_interval_chance_ceiling_guards_and_word():
    made = full()
    text = render(made)
    table = text[text.index('<table class="levels"') :].split("</table>")[0]
    words = Page(table).words()
    last, guards = made["layers"][-1]["linear_cka"], made["sensitivity"][-1]
    row = words[words.index("Linear CKA, debiased") : words.index("Linear CKA, biased")]
    low, high = last["debiased_interval"]
    numbers = [layer["linear_cka"]["debiased"] for layer in made["layers"]]
    assert f"{last['debiased']:.3f} [{low:.3f}, {high:.3f}] {min(numbers):.3f} to {max(numbers):.3f}" in row
    assert f"{last['debiased_chance']:.3f} {made['ceiling']['layers'][-1]['linear_cka']['debiased']:.3f}" in row
    low, high = guards["linear_cka_without_sinks"]["debiased_interval"]
    assert f"{guards['linear_cka_without_sinks']['debiased']:.3f} [{low:.3f}, {high:.3f}] without sink tokens" in row
    assert f"{guards['linear_cka_standardised']['debiased']:.3f}" in row
    assert "Global geometry stable" in words
    assert re.search(r"k = 50 .* neighbours of other token types only", words)
    # The one interval with a reservation is marked, and leads to the reason.
    assert table.count('href="#marked"') == 1
    assert "fewer fitted rows than four times the width" in Page(text).words()


def test_measures_that_were_left_out_say_why():
    page = Page(render(record(widths=(32, 48), layers=(60, 4), sinks=0, probe=False)))
    assert {name.split("-")[0].removesuffix(".csv") for name in page.downloads()} == {
        "linear_cka",
        "knn_overlap",
        "sensitivity",
    }
    assert page.words().count("Not measured: widths differ: 32 and 48.") == 5  # of 2 levels and 3 figures
    assert "60 with 4" in page.words()


def test_nothing_is_left_out_where_there_is_no_sink():
    text = render(full(sinks=0))
    assert "without sink tokens" not in text[text.index('id="layers"') :].split('id="sensitivity-section"')[0]
    assert "No token is a sink at any layer." in text


def test_record_without_reading_or_intervals_is_shown():
    made = record()
    del made["intervals"]
    text = render(made)
    assert 'id="reading"' not in text
    assert 'class="level-row"' in text


def test_report_is_written_beside_the_record(tmp_path, tiny, noisy, texts):
    made = panel(tiny, noisy, texts, k=[5], names=HOSTILE, progress=False)
    file = write(made, tmp_path / "out")
    assert json.loads(file.read_text()) == made
    text = (tmp_path / "out" / "report.html").read_text()
    assert text == render(made)
    offered = Page(text).downloads()
    assert check_against_record(offered["knn_overlap.csv"], made) > 3


@pytest.mark.parametrize(("depth", "most"), [(30, 1_000_000), (60, 2_600_000)])
def test_page_stays_small(depth, most):
    made = full(layers=(depth, depth))
    assert len(render(made).encode()) < most
