"""Pages in headless Chromium, where that and Playwright are installed."""

import json
import os
import shutil
from pathlib import Path

import pytest

import tuckertree as tt
from tests.tools.html_report.cases import (
    HOSTILE,
    accuracy,
    by_layer,
    comparison,
    outcomes,
    quantized,
    rename,
    saved,
    sensitivity,
    training,
    tuning,
)
from tuckertree.io import read_plan
from tuckertree.tools.html_report import write_report

pytest.importorskip("plotly")
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AXE = os.environ.get("AXE_CORE")
"""Where axe.min.js of the npm package axe-core lies; without it nothing is checked by it."""
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
SCROLL = (
    "(async () => { for (const d of document.querySelectorAll('details')) d.open = true;"
    "for (let y = 0; y < document.body.scrollHeight; y += 500)"
    "{ scrollTo(0, y); await new Promise((done) => setTimeout(done, 30)); } scrollTo(0, 0); })()"
)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    made = tmp_path_factory.mktemp("pages")
    plan = read_plan(saved(made / "plan"))
    more = {"accuracy": accuracy(), "training": training(), "tuning": tuning(), "by_layer": by_layer(plan)}
    full = saved(made / "full", sensitivity=sensitivity(), **more)
    ranked = saved(made / "ranked", rule=tt.Ranks({"*": 5}))
    offered = saved(made / "offered", methods=("depthwise",))
    hostile = saved(made / "hostile", commands=[HOSTILE], images=HOSTILE)
    rename(hostile, plan.compressed[0].name, HOSTILE)
    rename(offered, read_plan(offered).compressed[0].name, HOSTILE)
    compared = comparison(made / "compared", outcomes())
    results = {"full": full, "ranked": ranked, "offered": offered, "hostile": hostile, "compared": compared}
    results["int8"] = quantized(made / "int8", fp32=(plan.compressed[0].name,))
    return {name: write_report(result) for name, result in results.items()}


@pytest.fixture
def visit(browser):
    """Open a page; what it says on the console and asks the network for is checked in the end."""
    contexts, said, asked = [], [], []

    def opened(path, width=1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith("file:")] == []
    assert len(asked) == len(contexts)


@pytest.mark.parametrize(("width", "scheme"), [(375, "dark"), (1280, "light")])
@pytest.mark.parametrize("name", ["full", "ranked", "offered", "hostile", "compared", "int8"])
def test_every_plot_is_drawn_and_nothing_is_wider_than_the_screen(visit, pages, name, width, scheme):
    page = visit(pages[name], width, color_scheme=scheme)
    page.evaluate(SCROLL)
    page.wait_for_function(
        "() => [...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('.main-svg'))"
    )
    assert page.locator(".plot").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("img").count() == 0
    assert page.title() != "run"
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert dark == (scheme == "dark")


def test_names_are_shown_as_they_are(visit, pages):
    page = visit(pages["hostile"])
    assert page.locator("#decisions tbody th", has_text="onerror").first.text_content() == HOSTILE
    page.locator(".strip .layer[title*='onerror']").click()
    assert HOSTILE in page.locator("#network output.told").text_content()
    assert HOSTILE in page.locator("#spectra select").evaluate(
        "(select) => select.selectedOptions[0].textContent"
    )


def test_a_block_without_layers_does_not_blank_the_page(visit, pages, tmp_path):
    page = tmp_path / "page.html"
    text = pages["full"].read_text(encoding="utf-8")
    data = json.loads(found := text.split('id="data">')[1].split("</script>")[0])
    next(each for each in data["sections"] if each["id"] == "spectra")["blocks"][0]["layers"] = []
    page.write_text(text.replace(found, json.dumps(data).replace("<", "\\u003c")), encoding="utf-8")
    shown = visit(page)
    assert all(shown.locator(f"main #{each['id']}").count() == 1 for each in data["sections"])


def test_a_table_is_sorted_and_searched(visit, pages):
    page = visit(pages["full"])
    table = page.locator("#decisions table")

    def column(number):
        return [
            cell.text_content() for cell in table.locator(f"tbody tr:visible > :nth-child({number})").all()
        ]

    names = column(1)
    heads = [head.text_content() for head in table.locator("thead th").all()]
    button = table.locator("thead button").nth(heads.index("parameters before"))
    button.focus()
    page.keyboard.press("Enter")
    assert table.locator("th[aria-sort='ascending']").count() == 1
    rising = column(1)
    button.click()
    assert table.locator("th[aria-sort='descending']").count() == 1
    assert column(1) == rising[::-1] != rising
    search = page.get_by_role("searchbox", name="Search")
    search.fill(names[1].upper())
    assert names[1] in column(1)
    assert page.locator("#decisions .controls output").text_content() == f"{len(column(1))} of {len(names)}"
    search.fill("no such layer")
    assert column(1) == []


def test_ranks_are_moved_by_keys_and_put_back(visit, pages):
    page = visit(pages["ranked"])
    layers = json.loads(page.locator("#data").text_content())
    block = next(each for each in layers["sections"] if each["id"] == "spectra")["blocks"][0]
    place, layer = next((n, each) for n, each in enumerate(block["layers"]) if len(each["ranks"]) == 3)
    part = page.locator("#spectra")
    part.get_by_label("Layer", exact=True).select_option(index=place)
    told = part.locator("output.told").first
    assert "(as planned)" in told.text_content()
    slider = part.get_by_label("rank 2")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.input_value() == str(layer["ranks"][1] + 1)
    assert "planned ranks" in told.text_content()
    page.keyboard.press("Home")
    assert slider.input_value() == "1"
    few = told.text_content()
    page.keyboard.press("End")
    assert told.text_content() != few
    part.get_by_role("button", name="As planned").click()
    assert "(as planned)" in told.text_content()
    costs = [
        sum(stage[what] * _power(stage, layer["ranks"]) for stage in layer["stages"])
        for what in ("parameters", "macs")
    ]
    assert costs == [layer["parameters"][1], layer["macs"][1]]


def _power(stage, ranks):
    found = 1
    for rank, exponent in zip(ranks, stage["exponents"], strict=True):
        found *= rank**exponent
    return found


def open_offered(page):
    """Choose the layer that has the most ranks on offer, and give its part of the page and what is known of it."""
    data = json.loads(page.locator("#data").text_content())
    block = next(each for each in data["sections"] if each["id"] == "spectra")["blocks"][0]
    place, layer = max(enumerate(block["layers"]), key=lambda each: len(each[1]["offered"]["ranks"]))
    part = page.locator("#spectra")
    part.get_by_label("Layer", exact=True).select_option(index=place)
    return part, layer


def test_a_rank_of_a_method_without_spectra_moves_by_keys_among_those_on_offer(visit, pages):
    page = visit(pages["offered"])
    part, layer = open_offered(page)
    ranks, squared = layer["offered"]["ranks"], layer["offered"]["squared"]
    assert len(ranks) > 2
    told, slider = part.locator("output.told").first, part.get_by_label("rank", exact=True)
    assert "(as planned)" in told.text_content()
    slider.focus()
    page.keyboard.press("Home")
    for rank, error in zip(ranks, squared, strict=True):
        assert slider.get_attribute("aria-valuetext").startswith(f"{rank} of {ranks[-1]}, planned ")
        assert f": {100 * error**0.5:.3g}"[:4] in told.text_content()
        page.keyboard.press("ArrowRight")
    part.get_by_role("button", name="As planned").click()
    assert "(as planned)" in told.text_content()
    part.get_by_text("Numbers", exact=True).click()
    table = part.locator("table")
    table.wait_for()
    assert [int(cell.text_content()) for cell in table.locator("tbody th").all()] == ranks
    chosen = ranks.index(layer["ranks"][0])
    assert table.locator("tbody tr").nth(chosen).locator("td").first.text_content().endswith(" %")


def test_a_rank_of_a_method_without_spectra_is_dragged_among_those_on_offer(visit, pages):
    page = visit(pages["offered"])
    part, layer = open_offered(page)
    ranks = layer["offered"]["ranks"]
    part.scroll_into_view_if_needed()
    part.locator(".shapelayer path").first.wait_for(state="attached")
    slider = part.locator("input[type=range]").first
    slider.focus()
    page.keyboard.press("End")
    drag(page, part, slider, -1000)
    assert slider.get_attribute("aria-valuetext").startswith(f"{ranks[0]} of ")
    drag(page, part, slider, 2000)
    assert slider.get_attribute("aria-valuetext").startswith(f"{ranks[-1]} of ")


def drag(page, part, slider, by):
    """Drag the line of the first rank and wait until the slider has moved."""
    page.wait_for_timeout(100)  # the line is where the last move has put it with the next frame
    before = slider.input_value()
    box = part.locator(".shapelayer path").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(min(max(x + by, 5), 1275), y, steps=6)
    page.mouse.up()
    page.wait_for_function(
        "(before) => document.querySelector('#spectra input[type=range]').value !== before", arg=before
    )


def test_a_rank_is_dragged_in_its_plot(visit, pages):
    page = visit(pages["ranked"])
    part = page.locator("#spectra")
    part.scroll_into_view_if_needed()
    part.locator(".shapelayer path").first.wait_for(state="attached")
    slider = part.locator("input[type=range]").first
    before = slider.input_value()
    drag(page, part, slider, -150)
    assert int(slider.input_value()) < int(before)


def test_the_strip_is_walked_with_arrows(visit, pages):
    page = visit(pages["full"])
    cells = page.locator(".strip .layer")
    cells.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert [cell.get_attribute("aria-pressed") for cell in cells.all()[:2]] == ["false", "true"]
    assert [cell.get_attribute("tabindex") for cell in cells.all()[:2]] == ["-1", "0"]
    page.get_by_label("Coloured by").select_option(label="share of its MACs saved")
    assert "share of its MACs saved" in cells.nth(1).get_attribute("aria-label")


def test_the_theme_is_switched(visit, pages):
    page = visit(pages["compared"], color_scheme="light")
    page.locator(".main-svg").first.wait_for()
    colour = "getComputedStyle(document.querySelector('.xtick text')).fill"
    light = page.evaluate(colour)
    page.get_by_label("Theme").select_option("dark")
    page.wait_for_function(f"(light) => {colour} !== light", arg=light)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_plots_that_are_not_near_the_screen_wait(visit, pages):
    page = visit(pages["full"])
    page.locator(".plot .main-svg").first.wait_for()
    drawn = "[...document.querySelectorAll('.plot')].map((plot) => !!plot.querySelector('.main-svg'))"
    first, *_, last = page.evaluate(drawn)
    assert (first, last) == (True, False)
    page.locator(".plot").last.scroll_into_view_if_needed()
    page.locator(".plot").last.locator(".main-svg").first.wait_for()


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_it_is_printed_with_all_plots(visit, pages, tmp_path, motion):
    page = visit(pages["full"], color_scheme="dark", reduced_motion=motion)
    page.pdf(path=tmp_path / "page.pdf")
    assert page.locator(".plot .main-svg").count() >= page.locator(".plot").count()


@pytest.mark.skipif(AXE is None, reason="AXE_CORE does not say where axe.min.js lies")
@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["full", "ranked", "compared"])
def test_axe_finds_nothing(visit, pages, name, width, scheme):
    page = visit(pages[name], width, color_scheme=scheme, bypass_csp=True)
    page.evaluate(SCROLL)
    page.evaluate(Path(AXE).read_text(encoding="utf-8"))
    assert page.evaluate("axe.run(document)")["violations"] == []
