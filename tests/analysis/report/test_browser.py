"""The report in a real browser, Debian's Chromium without a screen: it must be installed, or these tests fail."""

import json
import shutil

import pytest
from playwright.sync_api import sync_playwright

import sdeflow as sf

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 800}


def runs(method, cost, errors, order=1.0):
    """One run for each error, twice the work for each."""
    return [
        sf.analysis.Run(
            method, "dt", 0.1 / 2**k, error, 0.05 * error, cost * 2**k, 0, 1e-3 * cost * 2 ** (order * k), 1e-5
        )
        for k, error in enumerate(errors)
    ]


def made():
    """An SDE and an ODE, with a peer, a wrapped method and a failure; and two measured orders."""
    sde = [
        *runs("euler-maruyama", 10, [1e-1, 7e-2, 5e-2]),
        *runs("sriw1", 40, [1e-3, 3e-4, 1e-4]),
        *runs("torchsde:srk", 80, [1e-3, 3e-4, 1e-4]),
        *runs("peer:torchsde:srk", 80, [1e-3, 3e-4, 1e-4]),
    ]
    ode = [*runs("rk4", 8, [1e-4, 6e-6]), sf.analysis.Run("euler", "dt", 0.1, message="it failed")]
    environment = sf.analysis.environment()
    settings = {"seed": 0, "repeats": 3, "paths": 100}
    results = [
        sf.analysis.WorkPrecision("gbm", sde, environment, {**settings, "noise": "diagonal"}),
        sf.analysis.WorkPrecision("decay", ode, environment, {**settings, "noise": "none"}),
    ]
    gbm = sf.analysis.problems.build("gbm", batch=100)
    dts = [2.0**-k for k in range(3, 7)]
    return results, [sf.analysis.order(gbm, name, dts) for name in ("euler-maruyama", "sriw1")]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    results, orders = made()
    path = tmp_path_factory.mktemp("report") / "index.html"
    sf.analysis.report(results, orders, at=1e-3, path=path)
    return path, results, orders


@pytest.fixture(scope="module")
def chromium():
    program = shutil.which("chromium")
    assert program, "Chromium is not installed: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, report):
    """A function that opens the page, without a network; what went wrong on it must be nothing."""
    contexts, complaints, asked = [], [], []

    def open_page(viewport=WIDE, scheme="light"):
        context = chromium.new_context(viewport=viewport, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report[0].as_uri())
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def shown(page):
    """(figure, trace) of what can be seen, and the methods of the rows that can."""
    return page.evaluate(
        """() => [
            [...document.querySelectorAll(".plot")].filter((plot) => plot.offsetParent)
                .flatMap((plot) => plot.data.filter((trace) => trace.visible !== false).map((trace) => [plot.id, trace.name])),
            [...document.querySelectorAll("tbody tr")].filter((row) => row.offsetParent).map((row) => row.dataset.name),
        ]"""
    )


def test_it_shows_the_numbers_on_logarithmic_axes(opened, report):
    _, (gbm, _), orders = report
    page = opened()
    drawn = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll(".plot")].map((plot) => [plot.id, {
            axes: [plot._fullLayout.xaxis.type, plot._fullLayout.yaxis.type, plot._fullLayout.xaxis.title.text],
            points: plot.querySelectorAll(".point").length,
            traces: plot.data.map((trace) => [trace.name, trace.x, trace.y]),
        }]))"""
    )
    work = drawn["work-0"]
    assert work["axes"] == ["log", "log", "evaluations of drift and diffusion"] and work["points"] == 12
    for name, x, y in work["traces"]:
        assert y == [run.error for run in gbm.curve(name)] and x == [run.evaluations for run in gbm.curve(name)]
    names = [name for key, figure in drawn.items() for name, *_ in figure["traces"] if key.startswith("order")]
    assert names == [order.method for order in orders for _ in range(2)]
    assert "At an error of 0.001 on gbm, sriw1 is best" in page.inner_text(".summary")
    assert page.locator("table.runs tbody tr").count() == 15 and "it failed" in page.inner_text("main")


def test_filters_by_method_library_and_noise(opened):
    page = opened()
    figures, rows = shown(page)
    assert {name for _, name in figures} | {"euler"} == set(rows) and "15 of 15" in page.inner_text("output")

    page.get_by_label("sriw1").uncheck()
    figures, rows = shown(page)
    assert "sriw1" not in {name for _, name in figures} | set(rows) and "euler-maruyama" in rows
    assert "12 of 15" in page.inner_text("output")

    page.get_by_label("torchsde, raw").uncheck()
    figures, rows = shown(page)
    assert "peer:torchsde:srk" not in rows and ["work-0", "torchsde:srk"] in figures

    page.get_by_label("diagonal").uncheck()
    assert set(shown(page)[1]) == {"rk4", "euler"} and not page.get_by_role("heading", name="gbm").is_visible()
    page.get_by_role("button", name="Noise: all").click()
    page.get_by_role("button", name="Method: none").click()
    assert shown(page) == [[], []] and "0 of 15" in page.inner_text("output")
    page.get_by_role("button", name="Method: all").click()
    page.get_by_role("button", name="Library: all").click()
    assert shown(page)[1] == rows_of_all(page)


def rows_of_all(page):
    return page.evaluate("""() => [...document.querySelectorAll("tbody tr")].map((row) => row.dataset.name)""")


def test_work_is_evaluations_or_time(opened, report):
    _, (gbm, _), _ = report
    page = opened()
    page.get_by_label("time").check()
    name, x, title = page.evaluate(
        """() => { const plot = document.getElementById("work-0"); const trace = plot.data[1];
                   return [trace.name, trace.x, plot._fullLayout.xaxis.title.text]; }"""
    )
    assert x == pytest.approx([1e3 * run.seconds for run in gbm.curve(name)]) and title == "wall time of a solve (ms)"


def test_the_accuracy_can_be_chosen(opened, report):
    _, results, _ = report
    page = opened()
    page.get_by_label("Best at an error of").select_option("0.0001")
    assert page.locator(".summary li").all_inner_texts() == [str(result.best(at=1e-4)) for result in results]
    assert page.evaluate("""() => document.getElementById("work-0")._fullLayout.shapes[0].y0""") == pytest.approx(1e-4)


def test_pointing_at_a_run_tells_it(opened):
    page = opened()
    page.locator("#work-0 .trace").nth(1).locator(".point").nth(0).hover(force=True)
    label = page.locator("#work-0 .hoverlayer")
    label.locator("text").first.wait_for()
    said = label.text_content()
    assert "sriw1" in said and "error 0.00100 ± 0.0001" in said and "40 f, 0 g" in said and "40 ms" in said


def extent(page):
    return page.evaluate("""() => document.getElementById("work-0")._fullLayout.xaxis.range""")


def test_it_zooms_by_buttons_and_by_dragging(opened):
    page = opened()
    low, high = extent(page)
    page.get_by_role("button", name="zoom in: Error against work, gbm").press("Enter")
    nearer = extent(page)
    assert nearer[1] - nearer[0] == pytest.approx(0.7 * (high - low))
    page.get_by_role("button", name="whole figure: Error against work, gbm").press("Enter")
    assert extent(page) == pytest.approx([low, high])
    box = page.locator("#work-0 .nsewdrag").bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.25 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.75 * box["height"], steps=5)
    page.mouse.up()
    page.wait_for_function(
        "was => { const now = document.getElementById('work-0')._fullLayout.xaxis.range; return now[1] - now[0] < 0.6 * was }",
        arg=high - low,
    )


def test_the_keyboard_reaches_everything_in_reading_order(opened):
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.textContent") == "Skip to the results"
    visited = []
    for _ in range(200):
        page.keyboard.press("Tab")
        place = page.evaluate(
            """() => { const here = document.activeElement, style = getComputedStyle(here);
                       const ring = style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth);
                       return [here.tagName, here.name ?? "", ring]; }"""
        )
        if place[0] == "BODY":
            break
        visited.append(place)
    tags, ring = {place[0] for place in visited}, all(place[2] >= 2 for place in visited)
    assert tags <= {"SELECT", "INPUT", "BUTTON", "A", "DIV"} and ring  # DIV: a table that scrolls
    native = page.evaluate(
        """() => [...document.querySelectorAll("select, input, button, .scroll")].filter((e) => e.offsetParent)
                   .filter((e) => e.type !== "radio" || e.checked).length"""
    )
    assert len([place for place in visited if place[0] != "A"]) == native
    assert [place[1] for place in visited if place[1]][:3] == ["at", "work", "method"]

    box = page.get_by_label("rk4")
    box.focus()
    page.keyboard.press("Space")
    assert not box.is_checked() and "rk4" not in shown(page)[1]
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "results"


def test_tables_sort(opened):
    page = opened()
    button = page.locator("table.runs").first.get_by_role("button", name="error")

    def errors():
        return [float(text) for text in page.locator("table.runs").first.locator("td:nth-child(3)").all_inner_texts()]

    button.press("Enter")
    assert errors() == sorted(errors()) and page.locator("th[aria-sort=ascending]").count() == 1
    button.press("Enter")
    assert errors() == sorted(errors(), reverse=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_telephone_and_follows_the_scheme(opened, scheme):
    page = opened(NARROW, scheme)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    ink, paper, axis = page.evaluate(
        """() => { const style = getComputedStyle(document.body);
                   return [style.color, style.backgroundColor, document.getElementById("work-0")._fullLayout.font.color]; }"""
    )
    bright = {name: sum(json.loads(f"[{value[4:-1]}]")) for name, value in {"ink": ink, "paper": paper}.items()}
    assert (bright["ink"] > bright["paper"]) is (scheme == "dark")
    assert axis == ("#e4e8ec" if scheme == "dark" else "#1c2126")
