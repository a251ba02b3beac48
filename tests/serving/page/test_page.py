"""The page in a real browser against a real server: what a reader sees, by mouse, by keyboard and in either theme."""

import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("plotly", reason="needs it: pip install 'traitroute[skills]'")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs it: pip install '.[dev]'")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("needs the package chromium of Debian", allow_module_level=True)

expect = sync_api.expect
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
REQUEST = "w10 w11 w10"
"""What the adapter `red` is there for."""
WAIT_MS = 120_000

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; it is closed with the module, since its event loop is in the way of others."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, server: Any) -> Iterator[Open]:
    """Open the page of a server; after the test it must have complained of nothing, and asked nobody else."""
    complaints: list[str] = []
    contexts: list[Any] = []
    origins = {server.url}

    def watch(page: Any, *, allowed: str = "(?!)") -> None:
        def complain(text: str) -> None:
            if not re.search(allowed, text):
                complaints.append(text)

        page.on("console", lambda message: complain(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complain(f"error: {error}"))
        page.on("request", lambda request: complain_of(request.url))

    def complain_of(url: str) -> None:
        if not url.startswith((*origins, "data:")):
            complaints.append(f"asked {url}")

    def open_it(url: str = server.url, *, allowed: str = "(?!)", **settings: Any) -> Any:
        origins.add(url)
        context = browser.new_context(**settings)
        context.set_default_timeout(WAIT_MS)
        contexts.append(context)
        page = context.new_page()
        watch(page, allowed=allowed)
        page.goto(f"{url}/traits")
        return page

    expect.set_options(timeout=WAIT_MS)
    yield open_it
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(open_page: Open) -> Any:
    """The page with its plots drawn."""
    page = open_page()
    drawn(page)
    return page


def drawn(page: Any) -> None:
    for plot in ("matrix", "space", "loadings"):
        expect(page.locator(f"#{plot}-plot .main-svg").first).to_be_visible()


def choose(page: Any, text: str = REQUEST) -> None:
    page.get_by_role("textbox", name="Request").fill(text)
    page.get_by_role("button", name="Choose").click()
    expect(page.locator(".verdict")).to_be_visible()


def test_a_typed_request_is_told_its_adapter_and_why(page: Any) -> None:
    choose(page)
    expect(page.locator("#verdict")).to_contain_text("red")
    expect(page.locator("#verdict")).to_contain_text("predicted gain +")
    expect(page.locator("#ranking tbody tr").first).to_contain_text("red (chosen)")
    expect(page.locator("#ranking tbody tr").first).to_contain_text("green −0.33")
    expect(page.locator("#reasons")).to_contain_text("most like the tasks")


def test_before_a_request_no_decision_is_shown(page: Any) -> None:
    for part in ("#decision", "#run-form", "#answers", "#no-plots", "#trouble"):
        expect(page.locator(part)).to_be_hidden()


def test_base_and_the_adapter_answer_side_by_side(page: Any, server: Any) -> None:
    choose(page)
    page.get_by_label("Tokens at most").fill("6")
    page.get_by_role("button", name="Run both").click()
    expect(page.get_by_text("Both have answered.")).to_be_visible()
    said = {
        name: server.answer(name, REQUEST, 6).json()["choices"][0]["message"]["content"] for name in ("base", "red")
    }
    assert said["base"] != said["red"]
    assert page.locator("#base-answer").text_content() == said["base"]
    assert page.locator("#rival-answer").text_content() == said["red"]
    expect(page.locator("#rival-name")).to_have_text("red")


def test_another_adapter_than_the_chosen_one_may_be_run(page: Any) -> None:
    choose(page)
    page.get_by_label("Beside base, run").select_option("green")
    page.get_by_label("Tokens at most").fill("2")
    page.get_by_role("button", name="Run both").click()
    expect(page.get_by_text("Both have answered.")).to_be_visible()
    expect(page.locator("#rival-name")).to_have_text("green")


def test_a_run_that_is_stopped_says_so_and_another_may_begin(page: Any) -> None:
    choose(page)
    page.route("**/v1/chat/completions", lambda route: None)  # an answer that never comes
    page.get_by_role("button", name="Run both").click()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Not both have answered.")).to_be_visible()
    expect(page.locator("#base-note")).to_have_text("stopped")
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    page.unroute("**/v1/chat/completions")
    page.get_by_label("Tokens at most").fill("2")
    page.get_by_role("button", name="Run both").click()
    expect(page.get_by_text("Both have answered.")).to_be_visible()


def test_the_matrix_shows_gains_and_side_effects_in_plot_and_table(page: Any) -> None:
    plot = page.get_by_role("img", name="Heat map")
    expect(plot).to_have_attribute("aria-label", re.compile("3 certain gains, 3 side effects"))
    expect(plot).to_contain_text("−.33 ▼")
    page.get_by_text("Table of the transfer matrix").click()
    row = page.locator("#matrix-table tbody tr").filter(has_text="red").first
    expect(row.get_by_role("rowheader")).to_have_text("red")
    expect(row.get_by_role("cell").nth(1)).to_have_text(re.compile(r"^−0\.33 .* ▼ side effect$"))


def test_the_filter_leaves_the_adapters_it_names(page: Any) -> None:
    page.get_by_label("Adapters whose name contains").fill("GRE")
    expect(page.locator("#filter-state")).to_have_text("1 of 3 adapters shown")
    expect(page.locator("#matrix-table tbody tr")).to_have_count(2)
    expect(page.get_by_role("img", name="Heat map of 1 adapter on 3 tasks")).to_be_visible()


def test_other_components_are_drawn_when_they_are_chosen(page: Any) -> None:
    plot = page.get_by_role("img", name="Scatter plot")
    before = plot.get_attribute("aria-label")
    page.get_by_label("Across", exact=True).select_option("1")
    page.get_by_label("Up", exact=True).select_option("0")
    expect(plot).not_to_have_attribute("aria-label", before)
    expect(plot).to_have_attribute("aria-label", re.compile("adapters: Component 2.*against (Trait|Component) 1"))
    page.get_by_label("Component", exact=True).select_option("1")
    expect(page.get_by_role("img", name="loadings of Component 2")).to_be_visible()


def test_the_keyboard_alone_asks_and_runs(page: Any) -> None:
    press = page.keyboard.press
    press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    press("Enter")
    press("Tab")
    expect(page.get_by_role("textbox", name="Request")).to_be_focused()
    page.keyboard.type(REQUEST)
    press("Tab")
    press("Enter")
    expect(page.locator("#verdict")).to_contain_text("red")
    page.get_by_role("textbox", name="Request").focus()
    for _ in range(4):  # the button, the ranking, the adapter, the tokens
        press("Tab")
    expect(page.get_by_label("Tokens at most")).to_be_focused()
    press("ControlOrMeta+A")
    page.keyboard.type("3")
    press("Enter")
    expect(page.get_by_text("Both have answered.")).to_be_visible()


def test_what_is_announced_is_in_live_regions(page: Any) -> None:
    choose(page)
    for text in (
        page.locator(".verdict"),
        page.locator("#run-state"),
        page.locator("#component-note"),
    ):
        assert text.evaluate("e => e.closest('[role=status], [aria-live]') !== null")


def test_what_each_adapter_changes_is_shown_once_it_was_loaded(open_page: Open, server: Any) -> None:
    server.answer("green", "w20 w21 w20", 2)
    page = open_page()
    table = page.locator("#proofs-table")
    expect(table.locator("tbody tr").filter(has_text="green")).to_contain_text("applied: a change of")
    expect(table).to_contain_text("nats on the probe, noise")


def test_the_gain_on_live_traffic_is_shown_with_its_interval_in_plot_and_tables(page: Any) -> None:
    expect(page.locator("#lift-state")).to_contain_text("Auto is better than base: +")
    expect(page.locator("#lift-state")).to_contain_text(
        "80 conversations with an outcome by user, 40 of them held back."
    )
    plot = page.get_by_role("img", name="Line with a band")
    expect(plot.locator(".main-svg").first).to_be_visible()
    row = page.locator("#lift-table tbody tr").first
    expect(row).to_contain_text("red")
    expect(row).to_contain_text("● better")
    page.get_by_label("Split by").select_option("adapters")
    expect(page.locator("#lift-table thead")).to_contain_text("adapter chosen")
    page.get_by_text("Table of the days").click()
    expect(page.locator("#lift-days-table tbody tr").first).to_be_visible()


def test_without_a_control_group_the_page_says_what_to_set(open_page: Open, server: Any) -> None:
    total = {"name": None, "conversations": 0, "chosen": 0, "control": 0, "reward_auto": None, "reward_base": None}
    empty = {"source": "user", "total": total | {"estimate": None, "weighted": None}, "kinds": [], "adapters": []}
    empty |= {"days": [], "planning": None, "settling": 0, "notes": ["set TRAITROUTE_HOLDBACK=0.02"]}
    page = open_page()
    page.route("**/v1/lift", lambda route: route.fulfill(json=empty))
    page.reload()
    expect(page.locator("#lift-state")).to_contain_text("The gain of auto over base is not known.")
    expect(page.locator("#lift-notes")).to_have_text("Set TRAITROUTE_HOLDBACK=0.02.")
    expect(page.locator("#lift-figures")).to_be_hidden()


def test_a_canary_is_shown_with_its_share_its_interval_and_what_follows(page: Any) -> None:
    state = page.locator("#canaries-state")
    expect(state).to_contain_text("blue gets 10%: it is surely worse than the incumbent, and to be rolled back (3,000")
    plot = page.get_by_role("img", name="Intervals of the canaries blue")
    expect(plot.locator(".main-svg").first).to_be_visible()
    row = page.locator("#canaries-table tbody tr")
    expect(row).to_have_count(1)
    for told in ("blue", "the next best", "10%", "3,000", "▼ to be rolled back"):
        expect(row).to_contain_text(told)
    page.get_by_text("Table of the steps taken").click()
    steps = page.locator("#canaries-steps-table tbody tr")
    expect(steps).to_contain_text(["entered: 10%", "● promoted to all", "entered: 10%"])
    expect(steps.nth(1)).to_contain_text("green")
    expect(steps.nth(1)).to_contain_text("−0.010 to +0.110")


def test_without_canaries_the_page_says_how_one_enters(open_page: Open) -> None:
    page = open_page()
    page.route("**/v1/canaries", lambda route: route.fulfill(json={"object": "list", "data": [], "steps": []}))
    page.reload()
    expect(page.locator("#canaries-state")).to_contain_text("traitroute adapters add NAME PLACE --canary 1%")
    for part in ("#canaries-figures", "#canaries-past"):
        expect(page.locator(part)).to_be_hidden()


def test_decisions_are_counted_as_they_are_made(page: Any, server: Any) -> None:
    pytest.importorskip("prometheus_client")
    assert server.answer("auto", REQUEST, 1).headers["x-traitroute-adapter"] == "red"
    row = page.locator("#decisions-table tbody tr").filter(has_text="red").first
    expect(row).to_contain_text("it is predicted to help")
    expect(row.locator("meter")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_systems_theme_until_the_reader_chooses(open_page: Open, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    papers = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}
    expect(page.locator("body")).to_have_css("background-color", papers.pop(scheme))
    ((other, paper),) = papers.items()
    page.get_by_label("Theme").select_option(other)
    expect(page.locator("body")).to_have_css("background-color", paper)
    page.reload()
    expect(page.locator("body")).to_have_css("background-color", paper)


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(open_page: Open, width: int) -> None:
    page = open_page(viewport={"width": width, "height": 800})
    drawn(page)
    choose(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_object_to(open_page: Open, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install '.[dev]'")
    page = open_page(color_scheme=scheme)
    drawn(page)
    choose(page)
    for summary in page.locator("summary").all():
        summary.click()
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []


def test_a_server_with_a_key_is_read_once_the_reader_gives_it(open_page: Open, locked: Any, key: str) -> None:
    page = open_page(locked.url, allowed="401")
    expect(page.get_by_role("alert")).to_contain_text("asks for its API key")
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(key)
    page.keyboard.press("Enter")
    drawn(page)
    expect(page.get_by_role("alert")).to_be_hidden()
    assert page.evaluate("JSON.stringify(localStorage)") == "{}"
    assert page.evaluate("Object.values(sessionStorage)") == [key]
    assert key not in page.content()


def test_without_plotly_the_tables_are_open_and_the_page_says_why(open_page: Open) -> None:
    page = open_page(allowed="404|503")
    page.route("**/traits/plotly.js", lambda route: route.fulfill(status=404, body=""))
    page.reload()
    expect(page.get_by_text("pip install 'traitroute[skills]'")).to_be_visible()
    for table in ("matrix", "space", "loadings"):
        expect(page.locator(f"#{table}-table tbody tr").first).to_be_visible()


def test_what_a_request_says_is_never_markup(page: Any) -> None:
    choose(page, "<img src=x onerror=document.title='owned'> </textarea><b>w10</b>")
    assert page.title() == "TraitRoute: what each adapter does"
    assert page.locator("main img").count() == 0


def test_what_the_server_refuses_is_told_in_its_own_words(open_page: Open) -> None:
    page = open_page(allowed="413")
    drawn(page)
    page.get_by_role("textbox", name="Request").fill("a" * 100_001)
    page.get_by_role("button", name="Choose").click()
    expect(page.get_by_role("alert")).to_contain_text("more than 100000: shorten it")
