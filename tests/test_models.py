"""recipes.models: the tokenizers of the tiny model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipes.models import TINY_VOCABULARY, make_tiny, tiny_tokenizer
from recipes.tasks.registry import TASKS

QUESTION = "What is the normal PR interval of patient 10021487, in ms?"
PROSE = "Second-degree AV block type II is recognized by a constant PR interval with sudden dropped beats."
SQL = "select drug from prescriptions where subject_id = 10021487 and drug = 'normal saline'"


@pytest.fixture(scope="module", params=TASKS)
def tokenizer(request):
    return tiny_tokenizer([QUESTION, PROSE, SQL] * 3, request.param)


def tokens(tokenizer, text: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


@given(text=st.text().filter(lambda text: "<|" not in text))
def test_text_comes_back_as_it_was(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize(("recipe", "figures"), [("ehrsql", ["1002", "1487"]), ("ecg", list("10021487"))])
def test_a_number_is_its_figures(recipe, figures):
    tokenizer = tiny_tokenizer([QUESTION] * 3, recipe)
    assert [token for token in tokens(tokenizer, "in 10021487 ms") if token.isdigit()] == figures


def test_a_value_can_be_copied_into_sql():
    tokenizer = tiny_tokenizer([QUESTION, PROSE, SQL] * 3, "ehrsql")
    question, sql = tokens(tokenizer, "is normal saline 10021487 given?"), tokens(tokenizer, "'normal saline 10021487'")
    assert question[question.index("Ġsaline") : question.index("1487") + 1] == sql[sql.index("Ġsaline") : -1]


def test_a_date_format_is_one_token():
    sql = "strftime('%Y-%m-%d',charttime) = '2100-04-14'"
    assert "'%Y-%m-%d'" in tokens(tiny_tokenizer([sql] * 3, "ehrsql"), sql)


def test_tags_and_fences_around_reasoning_are_one_token_each():
    answer = f"<think>Count rows.</think>\n```sql\n{SQL}\n```"
    split = tokens(tiny_tokenizer([answer] * 3, "ehrsql"), answer)
    assert (split[0], split[-1]) == ("<think>", "Ċ```")
    assert split[split.index("</think>") + 1] == "Ċ```sqlĊ"


@pytest.mark.parametrize("recipe", TASKS)
def test_words_take_their_space_along(recipe):
    tokenizer = tiny_tokenizer([PROSE] * 3, recipe)
    assert "Ġ" not in tokens(tokenizer, PROSE)
    assert "Ġinterval" in tokens(tokenizer, PROSE)


def test_the_model_has_the_tokenizers_tokens_and_no_others(tmp_path):
    make_tiny([QUESTION] * 3, tmp_path)
    tokenizer, model = AutoTokenizer.from_pretrained(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path)
    assert len(tokenizer) < TINY_VOCABULARY
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
