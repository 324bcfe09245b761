"""The report in Chromium: nothing breaks, nothing goes out, all of it is reached, named, readable, and fits."""

from __future__ import annotations

import csv
import io
import re

import pytest
from browser import LOW_CONTRAST, NAMELESS, chromium, opened

from leakgauge.harness.suite.schema import Suite
from leakgauge.reports.writers.html import write_html

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"
SUITE = Suite.model_validate(
    {
        "name": "small",
        "description": SCRIPT,
        "task": "toy",
        "operating_points": [{"name": name} for name in ("plain", "merged", "dropped")],
        "attacks": ["flat", "slow", "sharp", {"label": "odd", "plugin": {"name": SCRIPT}}],
        "threat_models": [{"name": "server", "auxiliary": {"n": 40}}, {"name": "stranger", "auxiliary": {"n": 20}}],
        "metrics": ["psnr_db", "ssim", "lpips"],
    }
)

NUMBERED = """() => {
  const stops = [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")].filter(e =>
    e.checkVisibility({ visibilityProperty: true }) && !(e.type === "radio" && !e.checked) && !e.closest(".detail-of"));
  stops.forEach((e, at) => { e.dataset.walk = at; });
  return stops.length;
}"""
"""Numbers what the tabulator key should stop at, and returns how many that are."""


@pytest.fixture(scope="module")
def path(make_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    task = {"name": "toy", "version": 1, "quality_name": f"top-1 {SCRIPT}", "image_shape": [3, 8, 8]}
    run = make_run(folder / "run", SUITE, task={**task, "evaluation_images": 10})
    return write_html([run], folder / "out")[0]


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser, path):
    with opened(browser, path) as found:
        yield found.page


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_is_named_and_can_be_read(browser, path, width, scheme):
    with opened(browser, path, width, color_scheme=scheme) as found:
        assert found.overflow() <= 0
        assert found.page.evaluate(NAMELESS) == []
        assert found.page.evaluate(LOW_CONTRAST) == []
        found.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert found.overflow() <= 0
        assert found.page.evaluate(LOW_CONTRAST) == []
        assert found.page.locator(".frontier .canvas svg").count() == 1
        ground = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light")


def test_the_keyboard_reaches_everything_in_order(page):
    wanted = page.evaluate(NUMBERED)
    told = page.locator(".frontier .detail-of h4 a")
    seen, met = [], False
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        place = page.evaluate("document.activeElement.dataset.walk ?? null")
        met |= told.evaluate("e => e === document.activeElement")
        seen += [] if place is None else [int(place)]
    assert met, "the link to the point that is told of, which changes on the way"
    assert seen[:wanted] == list(range(wanted)), "in the order in which it is read"


def legend(page):
    buttons = page.locator(".frontier .points button")
    return {buttons.nth(at).locator(".name").inner_text(): buttons.nth(at) for at in range(buttons.count())}


def drawn(page):
    page.wait_for_function("document.querySelectorAll('.frontier .canvas').length === 1")
    return page.locator(".frontier .canvas g.points_marks path").count()


def test_switch_and_filters_of_the_frontier(page):
    frontier = page.locator(".frontier")
    assert drawn(page) == 3
    for cost, axis in (("bytes", "byte/image"), ("FLOPs", "GFLOP/image"), ("tokens", "tokens sent"), (SCRIPT, SCRIPT)):
        frontier.get_by_label(cost).check()
        page.wait_for_function(
            "words => document.querySelector('.frontier .canvas').textContent.includes(words)", arg=axis
        )
        assert drawn(page) == 3
    alone = frontier.get_by_role("combobox", name=re.compile("^Attack"))
    before = legend(page)["plain"].inner_text()
    alone.select_option("odd")
    assert legend(page)["plain"].inner_text() != before
    assert "not attacked" in legend(page)["merged"].inner_text(), "it failed there, which is not 0 dB"
    assert drawn(page) == 2
    assert "2 of 3 points drawn. Not drawn, because not attacked or unscored: merged." in frontier.inner_text()
    alone.select_option("")
    frontier.get_by_role("combobox", name=re.compile("^Threat model")).select_option("all")
    assert set(legend(page)) == {f"{p} · {m}" for p in ("plain", "merged", "dropped") for m in ("server", "stranger")}
    assert drawn(page) == 6


def test_points_show_their_pictures_and_are_pinned_by_keyboard_and_mouse(page):
    legend(page)["merged"].focus()
    told = page.locator(".frontier .detail-of")
    assert told.locator("h4 a").inner_text() == "merged"
    assert told.locator("img").count() == 5
    assert "not converged: still gaining" in told.inner_text()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.dataset.anchor") == legend(page)["merged"].get_attribute("data-anchor")
    assert drawn(page) == 3
    marks = page.locator(".frontier .canvas g.hits_marks path")
    edge = {"x": 3, "y": 9}  # where no mark nearby lies over it
    marks.first.hover(position=edge)
    assert told.locator("h4 a").inner_text() == "plain"
    marks.first.click(position=edge)
    pinned = page.locator(".pinned table")
    assert [head.inner_text().split("\n")[0] for head in pinned.locator("thead th").all()] == [
        "Pinned",
        "merged",
        "plain",
    ]
    assert pinned.locator("img").count() == 10
    page.get_by_label("Unpin merged").click()
    page.get_by_label("Unpin plain").click()
    assert pinned.count() == 0


def test_links_lead_to_points(page):
    page.locator(".frontier .detail-of h4 a").click()
    anchor = page.url.split("#")[1]
    target = page.locator(f"#{anchor}")
    assert target.evaluate("e => e.matches(':target')")
    assert "merged" in target.inner_text()
    assert target.is_visible()


def test_a_link_leads_to_the_same_view(page, browser, path):
    frontier = page.locator(".frontier")
    frontier.get_by_label("FLOPs").check()
    frontier.get_by_role("combobox", name=re.compile("^Attack")).select_option("odd")
    frontier.get_by_role("combobox", name=re.compile("^Threat model")).select_option("all")
    legend(page)["merged · stranger"].click()
    link = frontier.get_by_role("link", name="Link to this view").get_attribute("href")
    wanted = frontier.locator(".points").inner_text(), frontier.locator(".pinned").inner_text()
    assert link.startswith("#view-")
    with opened(browser, path) as fresh:
        own = fresh.page.locator(".frontier")
        assert own.locator(".pinned").inner_text() == ""
        fresh.page.evaluate("link => { location.hash = link; }", link)
        fresh.page.wait_for_selector(".pinned table")
        assert (own.locator(".points").inner_text(), own.locator(".pinned").inner_text()) == wanted
        assert own.get_by_role("radio", name="FLOPs").is_checked()
        fresh.page.reload()
        fresh.page.wait_for_selector(".pinned table")
        assert own.get_by_role("link", name="Link to this view").get_attribute("href") == link
        twice = f"{link}&{link[link.index('pin=') :]}"
        fresh.page.evaluate("link => { location.hash = link; }", twice)
        assert own.locator(".pinned thead th").count() == 2
        hostile = link.partition("&pin=")[0] + "&pin=__proto__&pin=constructor&attack=valueOf"
        fresh.page.evaluate("link => { location.hash = link; }", hostile)
        fresh.page.wait_for_function("() => !document.querySelector('.pinned table')")


@pytest.mark.parametrize(("attacks", "why"), [(4, "no attack is scored (flat: not run"), (1, "blind guess")])
def test_where_nothing_is_scored_a_sentence_stands_alone(browser, make_run, tmp_path, attacks, why):
    run = make_run(tmp_path / "run", SUITE.model_copy(update={"attacks": SUITE.attacks[:attacks]}))
    if attacks > 1:
        run.write_tables([], [])
    with opened(browser, write_html([run], tmp_path / "out")[0]) as found:
        frontier = found.page.locator(".frontier")
        assert why in frontier.inner_text()
        assert frontier.locator("input, select, .chart").count() == 0


def test_the_explorer_shows_any_image_point_and_attack(page):
    explorer = page.locator(".explorer")
    scores = explorer.locator(".scores")
    images = explorer.get_by_role("list", name="Images", exact=True).get_by_role("button")
    leaks = [float(b.inner_text().strip().split(" ")[0].replace("\u2212", "-")) for b in images.all()]
    assert len(leaks) == 10
    assert leaks == sorted(leaks, reverse=True)
    images.nth(3).click()
    name = images.nth(3).get_attribute("aria-label").split(",")[0]
    assert name in scores.inner_text()
    explorer.get_by_label("Right side, operating point").select_option("p:plain")
    explorer.get_by_label("Right side, attack").select_option("a:odd")
    text = scores.inner_text()
    assert "odd" in text
    assert "unscored" in text, "it has no LPIPS"
    labels = [e.get_attribute("aria-label") for e in explorer.locator(".stage .pic").all()]
    assert labels[0].endswith(", original")
    assert labels[1].endswith(", plain rebuilt by odd")
    # Both sides are pictures of the sheets that the page holds.
    for pic in explorer.locator(".stage .pic").all():
        assert pic.evaluate("e => getComputedStyle(e).backgroundImage").startswith('url("data:image/webp')
    clip = explorer.locator(".stage .pic").first.evaluate("e => e.style.clipPath")
    explorer.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    assert explorer.locator(".stage .pic").first.evaluate("e => e.style.clipPath") != clip
    explorer.get_by_role("button", name=re.compile("^dropped")).click()
    assert explorer.get_by_label("Right side, operating point").input_value() == "p:dropped"


def test_tables_are_filtered_sorted_and_downloaded(page):
    page.locator("section[aria-labelledby=run1-points] input[type=search]").fill("merged")
    table = page.locator("section[aria-labelledby=run1-points] table[data-sortable]").first
    assert [row.is_visible() for row in table.locator("tbody tr").all()].count(True) == 2
    with page.expect_download() as download:
        page.get_by_label(re.compile("^Download as CSV: Operating points")).click()
    rows = list(csv.reader(io.StringIO(download.value.path().read_text(encoding="utf-8-sig"))))
    assert [row[0] for row in rows[1:]] == ["merged", "merged"]
    assert len({len(row) for row in rows}) == 1
    page.locator("section[aria-labelledby=run1-points] input[type=search]").fill("")
    table.get_by_role("button", name=re.compile("^Leakage")).first.click()
    column = [head.inner_text().split("\n")[0].strip() for head in table.locator("thead th").all()]
    at = next(i for i, text in enumerate(column) if text.startswith("Leakage"))
    leaks = [float(row.locator("th, td").nth(at).get_attribute("data-sort")) for row in table.locator("tbody tr").all()]
    assert leaks == sorted(leaks)


def test_on_paper_it_is_whole_and_stands_still(browser, path):
    # A4 landscape less its margins, at 96 pixels an inch.
    with opened(browser, path, 1032, 700) as found:
        pdf = found.page.pdf(prefer_css_page_size=True)
        assert pdf.startswith(b"%PDF")
        assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 2
        found.page.emulate_media(media="print")
        assert found.overflow() <= 0
        for hidden in (".frontier", ".explorer", "nav", "button.csv"):
            assert not found.page.locator(hidden).first.is_visible(), hidden
        figures = found.page.locator("section[aria-labelledby=run1-frontier] figure svg")
        assert figures.count() >= 4
        assert all(figure.is_visible() for figure in figures.all()), "what is folded on the screen"
        assert found.page.evaluate(LOW_CONTRAST) == []


def test_without_scripts_the_figures_remain(browser, path):
    with opened(browser, path, java_script_enabled=False) as found:
        assert not found.page.locator(".frontier").is_visible()
        assert "needs JavaScript" in found.page.locator("section[aria-labelledby=run1-frontier] noscript").inner_text()
        found.page.locator("section[aria-labelledby=run1-frontier] summary").click()
        assert found.page.locator("section[aria-labelledby=run1-frontier] figure svg").first.is_visible()


def test_what_gets_in_cannot_run_nor_get_out(browser, path):
    context = browser.new_context()
    page = context.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(path.resolve().as_uri())
    page.evaluate("const s = document.createElement('script'); s.textContent = 'ran = 1'; document.body.append(s);")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p onclick=\"window.ran = 1\" id=\"in\">x</p>')")
    page.locator("#in").click()
    assert page.evaluate("window.ran") is None
    assert page.evaluate("fetch('https://example.org/').then(() => 'went out', () => 'stayed')") == "stayed"
    picture = (
        "i.onload = () => done('went out'); i.onerror = () => done('stayed'); i.src = 'https://example.org/a.png';"
    )
    assert page.evaluate(f"new Promise(done => {{ const i = new Image(); {picture} }})") == "stayed"
    assert len(said) >= 4
    assert all("Content Security Policy" in text for text in said)
    context.close()
