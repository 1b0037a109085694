"""The page as a person uses it, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Page, expect
from scripted_person import PAIR, REQUEST, SCALING, SIGNALS, begin
from studio_server import Studio

from pgenrm_agent.schema import Candidate

Keep = Callable[[Page, str], None]


def open_run(page: Page, studio: Studio, run: str) -> None:
    page.goto(f"{studio.address}/runs/{run}")


def step(page: Page, done: str) -> None:
    page.get_by_role("button", name="Step", exact=True).click()
    expect(page.get_by_role("status")).to_have_text(f"ran {done}")


@pytest.mark.long
def test_a_run_is_stopped_edited_resumed_rewound_forked_and_compared(
    page: Page, studio: Studio, keep: Keep
) -> None:
    page.get_by_label("User").fill("ada")
    page.get_by_label("Chains").fill("4")
    page.get_by_label("Seed").fill("5")
    page.get_by_label("Question").fill(REQUEST.query)
    page.get_by_label("Answer 1").fill("Red.")
    page.get_by_label("Answer 2").fill("Green.")
    page.get_by_text("Past choices").click()
    page.get_by_label("Asked").first.fill(PAIR.query)
    page.get_by_label("Preferred").first.fill(PAIR.chosen)
    page.get_by_label("Liked less").first.fill(PAIR.rejected)
    page.get_by_role("button", name="Start").click()
    status = page.get_by_role("status")
    expect(status).to_have_text("stands before recall")

    page.get_by_label("until").select_option("after:derive_persona")
    page.get_by_role("button", name="Resume").click()
    expect(status).to_have_text("stopped: after:derive_persona")
    expect(page.locator(".graph .node.next")).to_have_text("match prototype")
    keep(page, "stopped-after-persona")

    forked_from = page.url
    page.get_by_role("button", name="Fork").click()
    expect(page).not_to_have_url(forked_from)
    expect(page).to_have_url(re.compile("/runs/[0-9a-f]{12}$"))
    first, second = [summary.run for summary in reversed(studio.session.runs())]
    open_run(page, studio, first)
    page.get_by_role("button", name="Resume").click()
    expect(status).to_have_text("stopped: finished")
    expect(page.locator(".ranking li")).to_have_text(
        [re.compile("answer-2"), re.compile("answer-1")]
    )
    before = page.locator(".ranking").inner_text()

    page.get_by_label("Persona of chain 0").fill("She loves red.")
    page.get_by_role("button", name="Save persona").click()
    expect(status).to_contain_text("edited the persona")
    expect(page.get_by_text("No chain has scored yet.")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(status).to_have_text("stopped: finished")
    expect(page.locator(".ranking li")).to_have_text(
        [re.compile("answer-1 9.00"), re.compile("answer-2")]
    )
    assert page.locator(".ranking").inner_text() != before
    expect(page.locator(".plot circle")).to_have_count(8)
    keep(page, "finished")

    page.get_by_label("Weight 1").fill("30")
    page.get_by_label("New criterion").fill("Length")
    page.get_by_label("Its weight").fill("30")
    page.get_by_role("button", name="Save rubric").click()
    expect(page.get_by_label("Weight 2")).to_have_value("50")

    page.get_by_role("link", name="aggregate").first.click()  # the newest
    page.get_by_role("button", name="Rewind to here").click()
    expect(status).to_contain_text("rewound")
    expect(page.locator(".ranking li").first).to_contain_text("answer-1")

    page.locator("select[name=right]").select_option(second)
    studio.session.resume(second)
    page.get_by_role("button", name="Compare").click()
    row = page.locator("tbody tr").first
    expect(row.locator("td")).to_have_text(["9.00", "3.00", "-6.00"])
    keep(page, "compared")


@pytest.mark.long
def test_what_proceeds_is_shown_while_it_does_and_can_be_paused(page: Page, studio: Studio) -> None:
    run = begin(studio.session)
    open_run(page, studio, run)
    studio.engine.open.clear()
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".graph .node.running")).to_have_text("derive persona")
    # The engine goes on once the request has arrived, which a click does not wait for.
    with page.expect_response(lambda response: response.url.endswith("/pause")):
        page.get_by_role("button", name="Pause").click()
    studio.engine.open.set()
    expect(page.get_by_role("status")).to_have_text("paused")
    expect(page.locator(".graph .node.next")).to_have_text("match prototype")


HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "</textarea></pre># **markdown** [x](javascript:alert(1)) {{ 7*7 }} \u202eemirc\u202c "
    + "unbroken"
    * 6_000
)


@pytest.mark.long
def test_a_hostile_candidate_is_shown_as_text(page: Page, studio: Studio, keep: Keep) -> None:
    asked = REQUEST.model_copy(
        update={
            "query": HOSTILE[:400],
            "user_id": SIGNALS.user_id,
            "candidates": (
                Candidate(id="<i>x</i>\u202e", text=HOSTILE),
                REQUEST.candidates[0],
            ),
        }
    )
    assert len(HOSTILE) > 40_000
    run = studio.session.start(asked, scaling=SCALING, signals=SIGNALS)
    open_run(page, studio, run)
    shown = page.locator(".answer pre").first
    expect(shown).to_contain_text("<script>document.title='owned'</script>")
    assert shown.inner_text() == HOSTILE.replace("\u202e", "⟨U+202E⟩").replace("\u202c", "⟨U+202C⟩")
    assert shown.locator("*").count() == 0
    assert "owned" not in page.title().split("'")[0]
    page.set_viewport_size({"width": 360, "height": 740})
    assert sideways(page) == 0
    keep(page, "hostile")
    page.goto(studio.address)
    assert sideways(page) == 0
    assert page.locator("main script, main img").count() == 0


def sideways(page: Page) -> int:
    """By how many pixels the page is wider than the window."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_at_360_pixels(
    page: Page, studio: Studio, keep: Keep, scheme: str
) -> None:
    run = begin(studio.session)
    studio.session.resume(run)
    studio.session.fork(run, name="another-run-with-a-rather-long-name-of-its-own")
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    for path in ("/", f"/runs/{run}", f"/compare?left={run}&right={run}"):
        page.goto(studio.address + path)
        assert sideways(page) == 0
    # Tables too: what has to be moved into view is easily missed.
    assert page.locator(".scroll").evaluate("one => one.scrollWidth - one.clientWidth") == 0
    keep(page, f"narrow-compared-{scheme}")
    open_run(page, studio, run)
    keep(page, f"narrow-{scheme}")


def test_a_run_is_stepped_with_the_keyboard_alone(page: Page, studio: Studio) -> None:
    run = begin(studio.session)
    open_run(page, studio, run)
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "step":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("ran recall")
    assert page.evaluate("document.activeElement.id") == "step"  # still there, for the next one
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("ran derive_persona")
    page.keyboard.press("s")
    expect(page.get_by_role("status")).to_have_text("ran match_prototype")


@pytest.mark.long
def test_the_page_loads_nothing_from_elsewhere(browser: Browser, studio: Studio) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(studio.entry)
    open_run(page, studio, begin(studio.session))
    assert all(url.startswith(studio.address) for url in asked)
    assert any("htmx" in url for url in asked)
    page.close()


@pytest.mark.long
def test_without_scripts_every_button_still_works(browser: Browser, studio: Studio) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(studio.entry)
    open_run(page, studio, begin(studio.session))
    page.get_by_role("button", name="Step", exact=True).click()
    for _ in range(20):
        page.goto(f"{studio.address}/runs/one")
        if page.get_by_role("status").inner_text() == "ran recall":
            break
    expect(page.get_by_role("status")).to_have_text("ran recall")
    page.context.close()
