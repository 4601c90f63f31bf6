"""The page of recipes.compare in a real browser."""

from dataclasses import replace

import pytest
from test_summary import run, sample, unanswerable

from recipes.report.compare_items import page_items
from recipes.report.compare_page import render_page
from recipes.report.run_facts import run_facts

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def answer(score, text, facts=()):
    verdict = {100: "good", 0: "bad"}.get(score, "partly")
    texts = [{"label": "response", "text": text, "code": False}]
    given = {"score": score, "verdict": verdict, "outcome": verdict, "kinds": [], "note": f"{score} %"}
    return given | {"grade": verdict, "texts": texts, "facts": facts, "problems": []}


def item(number):
    """45 questions: the second run wins every third, loses the next and ties on the last."""
    scores = [(0, 100), (100, 0), (50, 50)][number % 3]
    text = HOSTILE if number == 2 else f"answer {number}"
    facts = [["drug: adenosine", "covered"], ["lead: II", "missing"], ["wall: inferior wall", "contradicted"]]
    return {
        "id": f"id-{number:02}",
        "category": "EBK" if number % 2 else "CDQA",
        "template": "",
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
    runs = {"start": {"model": HOSTILE, "questions": "45"}, "grpo": {"model": "models/" + "long/" * 30}}
    path.write_text(render_page("ECG", runs, tables, "first\nsecond", [item(number) for number in range(45)]))
    return path


def opened(browser, file):
    page = browser.new_page()
    page.problems = []
    page.on("console", lambda message: page.problems.append(message.text))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("request", lambda request: page.problems.append(request.url) if request.url != file.as_uri() else None)
    page.goto(file.as_uri())
    return page


@pytest.fixture
def page(browser, file):
    page = opened(browser, file)
    yield page
    page.close()


def questions(page, place="#list"):
    return page.locator(f"{place} article h3").all_inner_texts()


def test_the_page_loads_without_errors_or_requests(page):
    assert page.problems == []


def test_the_summary_is_a_table(page):
    assert page.locator("table td").all_inner_texts() == ["correctness", "+1.0 [-1.0, +3.0]"]


def test_the_runs_are_named_with_their_facts(page):
    start, grpo = page.locator(".runs section").all()
    assert start.locator("h3").inner_text() == "start"
    assert start.locator("dt").all_inner_texts() == ["model", "questions"]
    assert start.locator("dd").all_inner_texts() == [HOSTILE, "45"]
    assert grpo.locator("dd").all_inner_texts() == ["models/" + "long/" * 30]


def test_the_lines_of_the_caption_stay_lines(page):
    assert page.locator(".caption").inner_text() == "first\nsecond"


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
    assert headings == [
        *("Runs", "start to grpo"),
        *("Most improved from start to grpo", "Most damaged from start to grpo", "All questions"),
    ]


def test_filter_by_category(page):
    page.select_option("#category", "EBK")
    assert questions(page) == [f"question {number}?" for number in range(1, 41, 2)]


def test_filter_by_winner(page):
    page.select_option("#winner", "grpo wins")
    assert questions(page) == [f"question {number}?" for number in range(0, 45, 3)]


def test_filter_by_ties(page):
    page.select_option("#winner", "tie")
    assert questions(page) == [f"question {number}?" for number in range(2, 45, 3)]


def test_search_in_answers(page):
    page.fill("#search", "ANSWER 17")
    assert questions(page) == ["question 17?"]


def test_a_search_without_hits(page):
    page.fill("#search", "nothing of the kind")
    assert page.locator("#count").inner_text() == "0 of 45 questions, page 1 of 1"
    assert page.locator("#none").inner_text() == "No question fits the filters."
    page.fill("#search", "answer 17")
    assert page.locator("#none").is_hidden()


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


def test_filters_that_offer_no_choice_are_hidden(page):
    shown = page.locator("#filters select:visible").evaluate_all("all => all.map(each => each.id)")
    assert shown == ["category", "flip", "winner", "run", "outcome"]


def test_every_control_has_a_name(page):
    unnamed = page.evaluate(
        "[...document.querySelectorAll('select, input')].filter(each => !each.labels.length).map(each => each.id)"
    )
    assert unnamed == []


def test_a_narrow_window_does_not_scroll_sideways(page):
    page.set_viewport_size({"width": 320, "height": 600})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_a_table_wider_than_the_window_scrolls_in_its_own_box(page):
    page.set_viewport_size({"width": 200, "height": 600})
    box = page.locator(".scroll")
    assert box.evaluate("box => { box.scrollLeft = 40; return box.scrollLeft }") == 40
    name, left = box.locator("td").first.bounding_box(), box.bounding_box()["x"]
    assert name["x"] == pytest.approx(left, abs=1)  # the figure's name stays in sight


def test_a_narrow_window_stacks_answers(page):
    page.set_viewport_size({"width": 320, "height": 600})
    first, second = (page.locator("#list article").first.locator(".answer").nth(i).bounding_box() for i in (0, 1))
    assert second["y"] >= first["y"] + first["height"]


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_light_and_dark(page, scheme, dark):
    page.emulate_media(color_scheme=scheme)
    colour = page.evaluate("getComputedStyle(document.body).color")
    assert (colour == "rgb(255, 255, 255)") == dark


# EHRSQL's questions, of four runs.

GOLD = "SELECT drug FROM prescriptions WHERE route = 'iv' AND subject_id = 7 LIMIT 1"
WRITTEN = {  # the query of an answer and its kinds, by the rest of the question's number and the run's by 5
    0: (GOLD, []),
    1: (GOLD.replace("'iv'", "'po'"), ["value: another"]),
    2: (GOLD.replace(" LIMIT 1", ""), ["order and limit"]),
    3: (GOLD.replace("drug", "dose").replace(" LIMIT 1", ""), ["column", "order and limit"]),
    4: (f"SELECT '{HOSTILE}' FROM prescriptions", ["condition"]),
}
FLIPS = ["right, then wrong", "wrong, then abstained wrongly", "wrong, then right", "wrong, then wrong"]


def sql_sample(number, rest):
    sql, kinds = WRITTEN[rest]
    fields = {"question": f"question {number}?", "template": f"template {number % 7}", "gold_sql": GOLD}
    answer = {"ground_truth": '[["aspirin", "1.0"]]', "answer": f'[["answer {rest}"]]', "rows": 1}
    confidence = {"confidence": {"agreement": 0.75}, "response": f"```sql\n{sql}\n```", "sql": sql}
    return sample(f"id-{number:02}", float(not kinds), **fields, **answer, **confidence, error_kinds=kinds)


def sql_run(position):
    """44 answerable questions and an unanswerable one; of the last run, the second answer is withheld, the third is
    right by luck and the fifth abstains."""
    samples = [sql_sample(number, (number + position) % 5) for number in range(44)]
    if position == 3:
        samples[1] = replace(samples[1], withheld=True)
        samples[2] = replace(samples[2], variants={"a": True, "b": False})
        samples[4] = replace(samples[4], abstained=True)
    return run([*samples, unanswerable("id-44", abstained=position > 0)])


@pytest.fixture(scope="module")
def sql_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("sql_page") / "comparison.html"
    runs = {label: sql_run(position) for position, label in enumerate(["start", "sft", "dapo", "grpo"])}
    path.write_text(render_page("EHRSQL", run_facts(runs), {}, "caption", page_items(runs)))
    return path


@pytest.fixture
def sql_page(browser, sql_file):
    page = opened(browser, sql_file)
    yield page
    page.close()


def found(numbers):
    return [f"question {number}?" for number in numbers][:20]


def test_the_page_of_sql_loads_without_errors_or_requests(sql_page):
    assert sql_page.problems == []
    assert sql_page.title() == "EHRSQL"


def test_an_answer_shows_its_rows_its_kinds_and_its_confidence(sql_page):
    article = sql_page.locator("#list article").nth(3)
    assert "gold answer, rows: 1\naspirin | 1.0" in article.inner_text()
    start = article.locator(".answer").first
    assert start.locator(".kind").all_inner_texts() == ["column", "order and limit"]
    assert "answer, rows: 1\nanswer 3" in start.inner_text()
    assert "agreement 0.75" in start.inner_text()


def test_what_differs_from_gold_is_marked(sql_page):
    sql = sql_page.locator("#list article").nth(3).locator(".answer").first.locator(".code").first
    assert sql.locator(".missing-text").all_inner_texts() == ["drug", "LIMIT 1"]
    assert sql.locator(".extra-text").all_inner_texts() == ["dose"]
    right = sql_page.locator("#list article").nth(0).locator(".answer").first
    assert right.locator(".missing-text, .extra-text").count() == 0


def test_hostile_sql_is_marked_and_stays_text(sql_page):
    sql = sql_page.locator("#list article").nth(4).locator(".answer").first.locator(".code").first
    assert HOSTILE in sql.inner_text()
    assert sql_page.locator("img").count() == 0


def test_filter_by_template(sql_page):
    sql_page.select_option("#template", "template 3")
    assert questions(sql_page) == found(range(3, 44, 7))


def test_filter_by_outcome_and_run(sql_page):
    sql_page.select_option("#run", "start")
    sql_page.select_option("#outcome", "right")
    assert questions(sql_page) == found(range(0, 44, 5))


def test_filter_by_kind_in_any_run_and_in_one(sql_page):
    sql_page.select_option("#kind", "value: another")
    assert questions(sql_page) == found([number for number in range(44) if number % 5 != 2])
    sql_page.select_option("#run", "start")
    assert questions(sql_page) == found(range(1, 44, 5))


def test_outcome_and_kind_are_of_the_same_answer(sql_page):
    sql_page.select_option("#kind", "condition")
    sql_page.select_option("#outcome", "right")
    assert questions(sql_page) == []


def test_filter_by_what_became_of_an_answer(sql_page):
    sql_page.select_option("#flip", "right, then wrong")
    assert questions(sql_page) == found(range(0, 44, 5))
    sql_page.select_option("#flip", label="wrong, then right (10)")
    assert questions(sql_page) == [*found(range(2, 44, 5)), "question id-44"]


def test_luck_and_withholding_are_outcomes_but_no_flips(sql_page):
    for outcome, number in (("wrong but withheld", 1), ("right by luck", 2), ("abstained wrongly", 4)):
        sql_page.select_option("#outcome", outcome)
        assert questions(sql_page) == found([number])
    flips = sql_page.locator("#flip option").evaluate_all("all => all.map(each => each.value)")
    assert flips == ["", *FLIPS]
    sql_page.select_option("#outcome", "")
    sql_page.select_option("#flip", "wrong, then abstained wrongly")
    assert questions(sql_page) == found([4])


def test_keys_go_from_question_to_question(sql_page):
    focus = "document.activeElement.querySelector('h3').innerText"
    for key, number in (("j", 0), ("j", 1), ("k", 0), ("k", 0), ("j", 1)):
        sql_page.keyboard.press(key)
        assert sql_page.evaluate(focus) == f"question {number}?"
    assert sql_page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_keys_go_on_to_the_next_page_and_back(sql_page):
    focus = "document.activeElement.querySelector('h3').innerText"
    for _ in range(21):
        sql_page.keyboard.press("j")
    assert sql_page.evaluate(focus) == "question 20?"
    assert sql_page.locator("#count").inner_text() == "45 of 45 questions, page 2 of 3"
    sql_page.keyboard.press("k")
    assert sql_page.evaluate(focus) == "question 19?"


def test_keys_are_text_in_the_search(sql_page):
    sql_page.keyboard.press("/")
    sql_page.keyboard.type("jk/")
    assert sql_page.input_value("#search") == "jk/"


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_of_sql_does_not_scroll_sideways(sql_page, width):
    sql_page.set_viewport_size({"width": width, "height": 800})
    assert sql_page.evaluate("document.documentElement.scrollWidth") <= width
