"""The page of a report as text: colours, markers, sentences, tables, citations; what a browser makes of it is tested beside."""

import json
import re
from html.parser import HTMLParser

import pytest
import torch

import sdeflow as sf
from sdeflow.analysis.report.appearance import COLOURS, MARKERS, looks

PAGES = {"light": "#ffffff", "dark": "#14171c"}


def run(method, value, error, **more):
    return sf.analysis.Run(method, "dt", value, error, 0.0, round(1 / value), 0, **more)


def result(problem="decay", noise="none", runs=(), **settings):
    return sf.analysis.WorkPrecision(problem, list(runs), sf.analysis.environment(), {"noise": noise, **settings})


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
@pytest.mark.parametrize("colour", COLOURS)
def test_colours_stand_out_from_both_pages(colour, page):
    """WCAG 2.2, 1.4.11: 3 : 1 for what is needed to understand a picture."""
    brighter, darker = sorted((luminance(colour) + 0.05, luminance(page) + 0.05), reverse=True)
    assert brighter / darker >= 3


def test_the_pages_are_those_of_the_style_sheet():
    style = sf.analysis.report([result(runs=[run("rk4", 0.1, 1e-3)])])
    assert re.findall(r"--page: (#\w+);", style)[:2] == list(PAGES.values())


def test_a_colour_is_of_the_method_and_a_marker_of_the_library():
    names = ["dopri5", "torchdiffeq:dopri5", "peer:torchdiffeq:dopri5", "peer:zuko:dopri45", "rk4", "peer:scipy:RK45"]
    native, wrapped, raw, zuko, other, scipy = looks(names).values()
    assert len({a.colour for a in (native, wrapped, raw, zuko, scipy)}) == 1 and native.colour != other.colour
    assert len({a.marker for a in (native, wrapped, raw, zuko, scipy)}) == 5 and native.marker == other.marker
    assert wrapped.marker == f"{raw.marker}-open" and (wrapped.dash, raw.dash) == ("solid", "dot")
    assert len(set(MARKERS.values())) == len(MARKERS) and len(set(COLOURS)) == len(COLOURS)


def test_euler_is_euler_and_maruyamas_where_there_is_noise():
    names = {"euler-maruyama": True, "peer:torchsde:euler": True, "peer:diffrax:Euler": True, "euler": False}
    found = looks(names, names)
    assert len({found[name].colour for name in names}) == 2
    assert found["peer:diffrax:Euler"].method == "euler-maruyama"
    assert looks(["peer:diffrax:Euler"], {"peer:diffrax:Euler": False})["peer:diffrax:Euler"].method == "euler"


class Balanced(HTMLParser):
    """Refuses tags that are not closed in turn, and keeps the text."""

    VOID = ("meta", "input", "br", "link")

    def __init__(self):
        super().__init__()
        self.stack, self.text, self.identifiers = [], [], []

    def handle_starttag(self, tag, attributes):
        self.identifiers += [value for key, value in attributes if key == "id"]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] not in ("script", "style"):
            self.text.append(data)


def read(page):
    parser = Balanced()
    parser.feed(page)
    assert not parser.stack and len(set(parser.identifiers)) == len(parser.identifiers)
    return " ".join(parser.text)


def test_it_is_well_formed_and_escapes_what_it_is_told(tmp_path):
    failed = sf.analysis.Run("heun", "dt", 0.5, message="it failed: a < b </script> & c")
    page = sf.analysis.report(
        [result("a </script> & c", runs=[run("rk4", 0.1, 1e-3), failed])], title="<i>mine</i>", path=tmp_path / "r.html"
    )
    text = read(page)
    assert "a </script> & c" in text and "<i>mine</i>" in text and "it failed: a < b </script> & c" in text
    assert (tmp_path / "r.html").read_text() == page


def test_nothing_on_the_page_asks_the_network():
    """The page forbids it to itself; and no tag of it has a source elsewhere."""
    page = sf.analysis.report([result(runs=[run("rk4", 0.1, 1e-3)])])
    assert "default-src 'none'" in page
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"<(script|img|link|iframe)\b[^>]*(src|href)=", own)
    assert not re.search(r"url\(|@import", own)


def test_sentences_tables_environment_and_citations():
    runs = [run("sriw1", 0.1, 1e-4, seconds=2e-3, interquartile=1e-4), run("euler-maruyama", 0.1, 1e-2, seconds=1e-3)]
    text = read(sf.analysis.report([result("gbm", "diagonal", runs, seed=7, paths=50)], at=1e-3))
    assert "At an error of 0.001 on gbm, sriw1 is best: 2 ms" in text
    assert "50 paths, seed 7" in text and torch.__version__ in text and "@software{sdeflow" in text
    assert "Rößler" in text and "Maruyama, 1955" in text  # the papers of the methods that were run


def test_accuracies_to_choose_from_are_those_that_tell_methods_apart():
    runs = [run("rk4", 0.1, 3e-6), run("euler", 0.1, 2e-3)]
    page = sf.analysis.report([result(runs=runs)], at=0.5)
    assert re.findall(r'<option value="([^"]+)"( selected)?', page) == [
        ("0.5", " selected"), ("0.001", ""), ("0.0001", ""), ("1e-05", "")
    ]  # fmt: skip


def test_orders_alone_are_a_report():
    problem = sf.analysis.problems.build("gbm", batch=100)
    measured = sf.analysis.order(problem, "euler-maruyama", [2.0**-k for k in range(3, 7)])
    page = sf.analysis.report(orders=[measured])
    low, high = measured.interval
    assert f"{low:.2f} to {high:.2f}" in read(page)
    figures = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])["figures"]
    points, line = figures["order-0"]["data"]
    assert points["y"] == pytest.approx(list(measured.fit.errors)) and points["x"] == list(measured.fit.dts)
    slope = torch.tensor(line["y"]).log().diff() / torch.tensor(line["x"]).log().diff()
    assert slope.item() == pytest.approx(measured.slope, rel=1e-5)
    assert figures["order-0"]["layout"]["xaxis"]["type"] == figures["order-0"]["layout"]["yaxis"]["type"] == "log"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sf.analysis.report(), "nothing to report"),
        (lambda: sf.analysis.report([result(runs=[run("rk4", 0.1, 1.0)])] * 2), "of one problem"),
        (lambda: sf.analysis.report([result(runs=[run("rk4", 0.1, 1.0)])], at=0.0), "not a positive error"),
    ],
)
def test_bad_input_gets_a_sentence(call, words):
    with pytest.raises(sf.errors.ArgumentError, match=words):
        call()
