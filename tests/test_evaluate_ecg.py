import json
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.common import parallel
from data_prep.common.errors import InputError
from recipes.evaluate import evaluate, parser
from recipes.evaluation.generation import Response
from recipes.evaluation.results import read_run
from recipes.tasks.ecg import evaluation, text_scores
from recipes.tasks.ecg.fact_states import CONTRADICTED, COVERED, MISSING, fact_states
from recipes.tasks.ecg.figures import ALL, Sample, summarize
from reward_fns.ecg_grader.reference import load_reference, make_reference

RHYTHM = "Which rhythm has no P waves and an irregular ventricular response?"
RHYTHM_ANSWER = "Atrial fibrillation has no P waves and an irregular ventricular response."
LEADS = "Which leads show an inferior infarction?"
LEADS_ANSWER = "ST elevation in leads II, III and aVF shows an inferior infarction."
DRUG = "Which drug ends AVNRT?"
DRUG_ANSWER = "Adenosine blocks the AV node and ends the reentry."


def row(id, category, question, answer, context=""):
    return {
        "data_source": f"ecg/{category}",
        "prompt": [
            {"role": "system", "content": "You are a cardiologist."},
            {"role": "user", "content": f"{context}\n\n{question}" if context else question},
        ],
        "ability": "ecg",
        "reward_model": {"style": "rule", "ground_truth": make_reference(question, answer)},
        "extra_info": {"id": id, "split": "test", "question": question, "reference": "", "group": id},
    }


@pytest.fixture(scope="module")
def all_rows():
    return [
        row("a", "EBK", RHYTHM, RHYTHM_ANSWER),
        row("b", "EBK", DRUG, DRUG_ANSWER),
        row("c", "CDQA", LEADS, LEADS_ANSWER, context="Age: 61"),
        row("d", "CDQA", "What ends ventricular fibrillation?", "Defibrillation."),
    ]


@pytest.fixture
def rows(all_rows):
    return json.loads(json.dumps(all_rows))


RESPONSES = [
    Response(RHYTHM_ANSWER, 20, "stop"),
    Response("Amiodarone ends it by prolonging the refractory period.", 12, "stop"),
    Response("<think>Which leads could it be, </think><answer>II, III and aVF with ST elevation.</answer>", 30, "stop"),
    Response("<think>It never ends", 64, "length"),
]


def write_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def run(tmp_path, dataset, *arguments, responses=RESPONSES):
    given = ["--recipe", "ecg", "--model_name", "org/model", "--dataset_path", str(dataset)]
    given += ["--output_dir", str(tmp_path / "results"), *arguments]
    (folder,) = evaluate(parser().parse_args(given), lambda options: lambda prompts: responses[: len(prompts)])
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory, all_rows):
    """A whole evaluation: its folder and what it printed is not needed."""
    folder = tmp_path_factory.mktemp("ecg")
    return run(folder, write_parquet(folder / "grpo_test.parquet", all_rows), "--run_name", "first")


@pytest.fixture(scope="module")
def results(finished):
    return json.loads((finished / "results.json").read_text())


@pytest.fixture(scope="module")
def samples(results):
    return {sample["id"]: Sample(**sample) for sample in results["samples"]}


def figure(results, name, group=ALL):
    return results["summary"]["groups"][group]["figures"][name]


def test_the_folder_has_the_same_scheme_as_ehrsql(finished):
    assert finished.parts[-3:] == ("results", "model", "first")
    assert sorted(path.name for path in finished.iterdir()) == ["evaluation.log", "results.json"]


def test_the_recipe_is_noted(finished):
    assert read_run(finished).recipe == "ecg"


def test_a_right_answer_is_right(samples):
    assert (samples["a"].correctness, samples["a"].contradiction, samples["a"].reasons) == (1, 0, [])


def test_another_drug_contradicts_and_says_why(samples):
    assert samples["b"].correctness <= 0.05
    assert "amiodarone" in " ".join(samples["b"].reasons)


def test_the_answer_without_the_reasoning_is_graded(samples):
    assert samples["c"].answer == "II, III and aVF with ST elevation."
    assert samples["c"].correctness > 0.5
    assert samples["c"].words == 7


def test_the_category_comes_from_the_data_source(samples):
    assert {id: sample.category for id, sample in samples.items()} == {"a": "EBK", "b": "EBK", "c": "CDQA", "d": "CDQA"}


def test_the_reference_comes_from_the_ground_truth(samples):
    assert samples["b"].reference == DRUG_ANSWER


def test_the_context_is_the_prompt_without_system_prompt_and_question(samples):
    assert (samples["a"].context, samples["c"].context) == ("", "Age: 61")


def test_an_empty_answer_scores_zero(samples):
    empty = samples["d"]
    assert (empty.answer, empty.format_ok, empty.words, empty.copied) == ("", False, 0, 0)
    assert empty.correctness == empty.coverage == empty.rouge_l == empty.bleu == empty.meteor == 0


def test_empty_answers_stay_in_every_mean(results, samples):
    assert figure(results, "correctness")["value"] == pytest.approx(
        25 * sum(sample.correctness for sample in samples.values())
    )
    assert figure(results, "empty answers")["value"] == 25


def test_figures_by_category(results):
    groups = results["summary"]["groups"]
    assert {name: group["questions"] for name, group in groups.items()} == {ALL: 4, "CDQA": 2, "EBK": 2}
    assert figure(results, "contradiction rate", "EBK")["value"] == 50
    assert figure(results, "contradiction rate", "CDQA")["value"] == 0


def test_every_figure_lies_in_its_interval(results):
    for group in results["summary"]["groups"].values():
        for name, each in group["figures"].items():
            assert each["low"] - 1e-9 <= each["value"] <= each["high"] + 1e-9, name


def test_lengths_and_cut_off(results):
    assert figure(results, "response tokens")["value"] == pytest.approx(31.5)
    assert figure(results, "cut off at the length limit")["value"] == 25


def test_how_meteor_and_bertscore_were_measured(results):
    assert "WordNet 3.0" in results["summary"]["meteor"]
    assert results["summary"]["bert_score"].startswith("not measured")


def test_the_log(finished):
    log = (finished / "evaluation.log").read_text()
    assert "100 %               EBK  a  Which rhythm" in log
    assert f"  reference: {DRUG_ANSWER}" in log
    assert "contradicts: drug" in log


def sample(id="a", answer="Yes.", **fields):
    given = {
        **{"id": id, "category": "EBK", "question": "?", "context": "", "reference": "Yes.", "ground_truth": "{}"},
        **{"response": answer, "response_tokens": 2, "finish_reason": "stop", "answer": answer, "words": 1},
        **{"format_ok": True, "correctness": 1.0, "coverage": 1.0, "contradiction": 0.0, "reasons": []},
        **{"grader_failed": False, "copied": 0.0, "rouge_l": 0.0, "bleu": 0.0, "meteor": 0.0, "bert_score": None},
    }
    return Sample(**given | fields)


def test_identical_answers():
    answers = ["same", "same", "other", "", ""]
    summary = summarize([sample(str(number), answer) for number, answer in enumerate(answers)])
    assert figure({"summary": summary}, "identical answers")["value"] == 40


def test_bertscore_where_it_was_measured():
    summary = summarize([sample("a", bert_score=80.0), sample("b", bert_score=60.0)])
    assert figure({"summary": summary}, "BERTScore")["value"] == 70


def test_grader_failures_are_counted():
    assert summarize([sample("a", grader_failed=True), sample("b")])["grader_failed"] == 1


def test_a_summary_needs_a_sample():
    with pytest.raises(ValueError, match="no samples"):
        summarize([])


def test_processes_grade_alike(rows, monkeypatch):
    alone = evaluation.grade_responses(rows, RESPONSES)
    monkeypatch.setattr(parallel, "ITEMS_PER_PROCESS", 2)
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 2)
    assert evaluation.grade_responses(rows, RESPONSES) == alone


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--db_path", "x.sqlite"], "--db_path is of --recipe ehrsql"),
        (["--prompt", "question_only"], "--prompt is of --recipe ehrsql"),
        (["--num_samples", "0"], "give 1 or more"),
        (["--temperature", "-1"], "greedy"),
    ],
)
def test_bad_options(tmp_path, rows, arguments, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path, write_parquet(tmp_path / "test.parquet", rows), *arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("reward_model"), "no column reward_model"),
        (lambda row: row.update(data_source="ehrsql"), "'ehrsql', not 'ecg/<category>' .*--recipe ehrsql"),
        (lambda row: row.update(data_source="ecg/"), "'ecg/', not"),
        (lambda row: row.update(data_source="my_ecg/EBK"), "'my_ecg/EBK', not"),
        (lambda row: row.update(prompt="Which?"), "list of chat messages"),
        (lambda row: row.update(reward_model={"ground_truth": "Adenosine"}), "no reference of the grader"),
        (lambda row: row.update(reward_model={"ground_truth": "{}"}), "no reference of the grader"),
        (lambda row: row.update(reward_model={"ground_truth": "3"}), "no reference of the grader"),
        (lambda row: row["extra_info"].pop("question"), "extra_info has no question"),
        (lambda row: row.update(extra_info=None), "extra_info has no id, question"),
    ],
)
def test_bad_rows(tmp_path, rows, change, message):
    for each in rows:
        change(each)
    with pytest.raises(InputError, match=f"row 0: .*{message}"):
        run(tmp_path, write_parquet(tmp_path / "test.parquet", rows))


def test_ecg_rows_are_none_of_ehrsql(tmp_path, rows):
    dataset = write_parquet(tmp_path / "test.parquet", rows)
    arguments = ["--model_name", "org/model", "--dataset_path", str(dataset), "--output_dir", str(tmp_path)]
    with pytest.raises(InputError, match="'ecg/EBK', not 'ehrsql' .*--recipe ecg"):
        evaluate(parser().parse_args(arguments), lambda options: None)


def test_bad_files(tmp_path, rows):
    with pytest.raises(InputError, match="no such dataset: .*data_prep.ecg_expert_qa"):
        run(tmp_path, tmp_path / "absent.parquet")
    (tmp_path / "data.json").write_text("{}")
    with pytest.raises(InputError, match=r"give a \.parquet file"):
        run(tmp_path, tmp_path / "data.json")
    pq.write_table(pa.Table.from_pylist(rows).slice(0, 0), tmp_path / "test.parquet")
    with pytest.raises(InputError, match="has no rows"):
        run(tmp_path, tmp_path / "test.parquet")
    with pytest.raises(InputError, match="row 1: the id a occurs twice"):
        run(tmp_path, write_parquet(tmp_path / "test.parquet", [rows[0], rows[0]]))


def states(answer, reference):
    found = fact_states(answer, load_reference(reference))
    return {fact.text: fact.state for fact in found if not fact.word}


def test_said_facts_are_covered():
    found = states(RHYTHM_ANSWER, make_reference(RHYTHM, RHYTHM_ANSWER))
    assert found["rhythm: atrial fibrillation"] == COVERED


def test_unsaid_facts_are_missing():
    found = states("It depends.", make_reference(RHYTHM, RHYTHM_ANSWER))
    assert found["rhythm: atrial fibrillation"] == MISSING


def test_denied_facts_are_contradicted():
    found = states("There is no atrial fibrillation.", make_reference(RHYTHM, RHYTHM_ANSWER))
    assert found["rhythm: atrial fibrillation"] == CONTRADICTED


def test_replaced_facts_are_contradicted():
    assert states("Give amiodarone.", make_reference(DRUG, DRUG_ANSWER))["drug: adenosine"] == CONTRADICTED


def test_a_word_in_place_of_which_a_copied_sentence_has_another_is_contradicted():
    text = "The disease increases cardiovascular risk due to elevated cholesterol levels in the blood."
    reference = load_reference(make_reference("What does the disease do?", text))
    found = fact_states(text.replace("cholesterol", "caffeine"), reference)
    assert [fact.text for fact in found if fact.state == CONTRADICTED] == ["cholesterol"]


def test_other_leads_contradict():
    found = states("Leads V1 and V2.", make_reference("Which leads?", "Leads II and III show it."))
    assert found == {"lead: II": CONTRADICTED, "lead: III": CONTRADICTED}


def test_the_opposite_direction_contradicts():
    reference = make_reference("What does hypokalemia do to the QT interval?", "It prolongs the QT interval.")
    found = states("It shortens the QT interval.", reference)
    assert found["qt interval duration +"] == CONTRADICTED


def test_a_range_of_a_measurement():
    found = states("The PR interval is normal.", make_reference("How long is it?", "It takes 0.12 to 0.20 s."))
    assert found == {"0.12 to 0.2 s": MISSING}


def test_a_list_of_entities_has_no_facts():
    reference = load_reference(make_reference("Name them.", "fever, cough", "entities", ["fever", "cough"]))
    assert fact_states("fever", reference) == []


def test_rouge_l_by_hand():
    # the longest common subsequence "the p wave" is 3 of 4 and of 5 words
    assert text_scores.rouge_l("the tall P wave", "the P wave is absent") == pytest.approx(100 * 2 * 3 / 9)


def test_corpus_bleu_is_sacrebleus():
    import sacrebleu

    pairs = [("the P wave is absent here", "the P wave is absent"), ("", "a long QT interval"), ("a b", "a b c d")]
    score, low, high = text_scores.corpus_bleu(pairs)
    answers, references = zip(*pairs, strict=True)
    assert score == pytest.approx(sacrebleu.corpus_bleu(list(answers), [list(references)]).score)
    assert low <= score <= high


def test_sentence_bleu_is_sacrebleus():
    import sacrebleu

    statistics = text_scores.bleu_statistics("the P wave is gone", "the P wave is absent")
    expected = sacrebleu.sentence_bleu("the P wave is gone", ["the P wave is absent"]).score
    assert text_scores.bleu(statistics, sentence=True) == pytest.approx(expected)


def test_meteor_knows_synonyms():
    # doctor and physician are one synset of WordNet: one chunk of four matches, penalty 0.5 / 4 ** 3
    assert text_scores.meteor("the doctor reads it", "the physician reads it") == pytest.approx(99.21875)


def test_meteor_knows_stems():
    assert text_scores.meteor("waves", "wave") == pytest.approx(50)  # one match is one chunk


@given(st.text(max_size=60), st.text(max_size=60))
def test_bleu_is_bounded(answer, reference):
    statistics = text_scores.bleu_statistics(answer, reference)
    assert 0 <= text_scores.bleu(statistics, sentence=True) <= 100 + 1e-6


def test_without_bert_score_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(text_scores.importlib.util, "find_spec", lambda name: None)
    assert text_scores.bert_scores(["a"], ["a"]) is None


def test_without_its_model_nothing_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(text_scores.importlib.util, "find_spec", lambda name: SimpleNamespace())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert text_scores.bert_scores(["a"], ["a"]) is None
