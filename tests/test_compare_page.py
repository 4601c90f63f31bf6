"""The page of recipes.compare in a real browser."""

import pytest

from recipes.report.compare_page import render_page

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def answer(score, text, facts=()):
    verdict = {100: "good", 0: "bad"}.get(score, "partly")
    texts = [{"label": "response", "text": text, "code": False}]
    return {"score": score, "verdict": verdict, "note": f"{score} %", "texts": texts, "facts": facts, "problems": []}


def item(number):
    """45 questions: the second run wins every third, loses the next and ties on the last."""
    scores = [(0, 100), (100, 0), (50, 50)][number % 3]
    text = HOSTILE if number == 2 else f"answer {number}"
    facts = [["drug: adenosine", "covered"], ["lead: II", "missing"], ["wall: inferior wall", "contradicted"]]
    return {
        "id": f"id-{number:02}",
        "category": "EBK" if number % 2 else "CDQA",
        "question": f"question {number}?",
        "texts": [{"label": "reference", "text": f"reference {number}", "code": False}],
        "answers": [answer(scores[0], text), answer(scores[1], "other", facts if number == 0 else [])],
        "winner": [1, 0, -1][number % 3],
        "change": scores[1] - scores[0],
    }


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "comparison.html"
    tables = {"start to grpo": [["figure", "difference [95 %]"], ["correctness", "+1.0 [-1.0, +3.0]"]]}
    path.write_text(render_page("ECG", ["start", "grpo"], tables, "caption", [item(number) for number in range(45)]))
    return path


@pytest.fixture
def page(browser, file):
    page = browser.new_page()
    page.problems = []
    page.on("console", lambda message: page.problems.append(message.text))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("request", lambda request: page.problems.append(request.url) if request.url != file.as_uri() else None)
    page.goto(file.as_uri())
    yield page
    page.close()


def questions(page, place="#list"):
    return page.locator(f"{place} article h3").all_inner_texts()


def test_the_page_loads_without_errors_or_requests(page):
    assert page.problems == []


def test_the_summary_is_a_table(page):
    assert page.locator("table td").all_inner_texts() == ["correctness", "+1.0 [-1.0, +3.0]"]


def test_a_page_holds_twenty_questions(page):
    assert questions(page) == [f"question {number}?" for number in range(20)]
    assert page.locator("#count").inner_text() == "45 of 45 questions, page 1 of 3"


def test_hostile_text_is_shown_as_text(page):
    assert page.locator("#list article").nth(2).locator(".text").nth(1).inner_text() == HOSTILE


def test_hostile_text_does_not_run(page):
    assert page.title() == "ECG"
    assert page.locator("img").count() == 0


def test_the_policy_stops_injected_handlers(page):
    page.evaluate("html => { document.getElementById('list').innerHTML = html }", HOSTILE)
    page.wait_for_timeout(100)
    assert page.title() == "ECG"


@pytest.mark.parametrize(("state", "text"), [("covered", "adenosine"), ("missing", "II"), ("contradicted", "inferior")])
def test_facts_are_marked(page, state, text):
    assert text in page.locator(f"#list .fact.{state}").first.inner_text()


def test_covered_and_contradicted_facts_differ_in_colour(page):
    def colour(state):
        return page.locator(f"#list .fact.{state}").first.evaluate("element => getComputedStyle(element).color")

    assert len({colour("covered"), colour("missing"), colour("contradicted")}) == 3


def test_improved_examples_stand_in_their_own_section(page):
    assert questions(page, "#improved") == [f"question {number}?" for number in range(0, 30, 3)]


def test_damaged_examples_stand_in_their_own_section(page):
    assert questions(page, "#damaged") == [f"question {number}?" for number in range(1, 31, 3)]


def test_examples_come_before_all_questions(page):
    headings = page.locator("h2").all_inner_texts()
    assert headings == ["Most improved from start to grpo", "Most damaged from start to grpo", "All questions"]


def test_filter_by_category(page):
    page.select_option("#category", "EBK")
    assert questions(page) == [f"question {number}?" for number in range(1, 41, 2)]


def test_filter_by_winner(page):
    page.select_option("#winner", label="grpo wins")
    assert questions(page) == [f"question {number}?" for number in range(0, 45, 3)]


def test_filter_by_ties(page):
    page.select_option("#winner", label="tie")
    assert questions(page) == [f"question {number}?" for number in range(2, 45, 3)]


def test_search_in_answers(page):
    page.fill("#search", "ANSWER 17")
    assert questions(page) == ["question 17?"]


def test_a_search_without_hits(page):
    page.fill("#search", "nothing of the kind")
    assert page.locator("#count").inner_text() == "0 of 45 questions, page 1 of 1"


def test_a_filter_returns_to_the_first_page(page):
    page.click("#next")
    page.select_option("#category", "CDQA")
    assert page.locator("#count").inner_text() == "23 of 45 questions, page 1 of 2"


def test_paging_by_keyboard(page):
    page.focus("#next")
    page.keyboard.press("Enter")
    assert questions(page)[0] == "question 20?"
    assert page.evaluate("document.activeElement.id") == "all"


def test_the_last_page_has_no_next(page):
    page.click("#next")
    page.click("#next")
    assert questions(page) == [f"question {number}?" for number in range(40, 45)]
    assert page.locator("#next").is_disabled()


def test_every_control_has_a_name(page):
    unnamed = page.evaluate(
        "[...document.querySelectorAll('select, input')].filter(each => !each.labels.length).map(each => each.id)"
    )
    assert unnamed == []


def test_a_narrow_window_does_not_scroll_sideways(page):
    page.set_viewport_size({"width": 320, "height": 600})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_a_narrow_window_stacks_answers(page):
    page.set_viewport_size({"width": 320, "height": 600})
    first, second = (page.locator("#list article").first.locator(".answer").nth(i).bounding_box() for i in (0, 1))
    assert second["y"] >= first["y"] + first["height"]


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_light_and_dark(page, scheme, dark):
    page.emulate_media(color_scheme=scheme)
    colour = page.evaluate("getComputedStyle(document.body).color")
    assert (colour == "rgb(255, 255, 255)") == dark
