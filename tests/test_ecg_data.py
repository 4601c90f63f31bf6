"""ECG-Expert-QA: every file's layout, what is refused, and splits that keep related questions together."""

import json
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.common.checksum import sha256_file
from data_prep.common.errors import InputError
from data_prep.ecg.prompts import ChatBuilder
from data_prep.ecg.source import ECG_FIELDS, SCHEMAS, Record, read_file
from data_prep.ecg.split import NEAR, assign_groups, group_records, jaccard, near_duplicates, normalise, shingles
from data_prep.ecg.turns import Turn, conversation_turns, entity_turns
from data_prep.ecg_expert_qa import main

SCHEMA = {schema.id: schema for schema in SCHEMAS}
SYSTEM = ChatBuilder().system
ECG = dict.fromkeys(ECG_FIELDS) | {"report_0": "Sinus rhythm", "report_1": "Left axis deviation", "rr_interval": 800}
SUBJECT = {"subject_id": 7, "result": "A man of 70 with chest pain."}

# One record of each file, its context in the prompt, its turns, and which of them are asked.
EXAMPLES = {
    "EBK": ({"Q": " What is the P wave? ", "A": "Atrial depolarization."}, "", "What is the P wave?"),
    "CK": ({"Q": "What is preload?", "A": "Filling."}, "", "What is preload?"),
    "CD": ({"Disease": "Myxoma", "Q": "Is it benign?", "A": "Yes."}, "Disease: Myxoma\n\n", "Is it benign?"),
    "PP": ({"medical_advice": "Rest.", "Q": "How long?", "A": "A week."}, "Medical advice: Rest.\n\n", "How long?"),
    "PRTK": ({"Question": "May I see my ECG?", "Answer": "Yes, you may."}, "", "May I see my ECG?"),
    "CMD": (
        ECG | {"subject_id": 7, "study_id": 1, "cart_id": 2, "ecg_time": "2180", "A": "Which axis?", "Q": "Left."},
        "Report: Sinus rhythm\nReport: Left axis deviation\nRR interval (ms): 800\n\n",
        "Which axis?",
    ),
    "MROD": (
        SUBJECT | {"QA": [{"Q": "Is it angina?", "A": "Likely."}, {"Q": "Why?", "A": "ST depression."}]},
        "Patient: A man of 70 with chest pain.\n\n",
        "Is it angina?",
    ),
    "LTD": (
        SUBJECT | {"QA": {"first": {"Question": "Rhythm?", "Answer": "Sinus."}}},
        "Patient: A man of 70 with chest pain.\n\n",
        "Rhythm?",
    ),
    "MC": (
        SUBJECT
        | {
            "Conversation": {
                "before": [{"Doctor": "Good morning."}, {"Patient": "My pain is back."}, {"Nurse": "Since noon."}],
                "after": [{"Doctor": "Left arm?"}, {"Patient": "Right arm."}, {"Doctor": "Then I was wrong."}],
            }
        },
        "Patient: A man of 70 with chest pain.\n\n",
        "Let us talk about this patient.",
    ),
    "MEE": (
        SUBJECT | {"keywords": "chest pain; ST depression,\nChest Pain"},
        "Text: A man of 70 with chest pain.\n\n",
        "List the medical entities in this text, separated by commas.",
    ),
    "GRA": (
        SUBJECT | {"RA": "High risk."},
        "Patient: A man of 70 with chest pain.\n\n",
        "Write a risk assessment for this patient.",
    ),
}
KINDS = {"MEE": "entities", "GRA": "findings", "MC": "findings"}


def write(folder: Path, **files: list) -> Path:
    """Write records as the files of the schema ids."""
    folder.mkdir(exist_ok=True)
    for id, records in files.items():
        (folder / SCHEMA[id].file).write_text(json.dumps(records), encoding="utf-8")
    return folder


def run(data: Path, *options: str) -> Path:
    out = data.parent / "out"
    main(["--data_dir", str(data), "--out_dir", str(out), *options])
    return out


def read(out: Path, name: str) -> list[dict]:
    return pd.read_parquet(out / f"{name}.parquet").to_dict("records")


def read_one(tmp_path: Path, id: str, record: dict) -> Record:
    (record,), dropped = read_file(write(tmp_path / "one", **{id: [record]}) / SCHEMA[id].file, SCHEMA[id])
    assert not dropped
    return record


WORDS = ["atrium", "lead", "voltage", "syncope", "embolism", "digoxin", "rhythm", "septum", "murmur", "statin"]


def distinct_questions(number: int) -> list[str]:
    """Questions of which no two are near-duplicates."""
    pairs = list(combinations(WORDS, 2))
    return [f"{a} {b} {i}?" for i, (a, b) in zip(range(number), pairs, strict=False)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Plain questions, a disease, three cases and 20 patients, who are in four files each."""
    plain = [{"Q": question, "A": f"Answer {i}."} for i, question in enumerate(distinct_questions(40))]
    disease = [{"Disease": "Myxoma", "Q": f"{q} myxoma", "A": "Yes."} for q in distinct_questions(5)]
    patients = [{"subject_id": 100 + i, "result": f"Patient {i}."} for i in range(20)]
    return write(
        tmp_path / "data",
        EBK=plain,
        CD=disease,
        PP=[{"medical_advice": f"Advice {i}", "Q": f"{WORDS[i]}?", "A": "No."} for i in range(3)],
        LTD=[p | {"QA": [{"Q": "Rhythm?", "A": "Sinus."}, {"Q": "Axis?", "A": "Left."}]} for p in patients],
        MEE=[p | {"keywords": ["pain", "sinus rhythm"]} for p in patients],
        GRA=[p | {"RA": f"Risk {p['subject_id']}."} for p in patients],
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_file_of_a_windows_editor_is_read(tmp_path, encoding):
    path = write(tmp_path, EBK=[{"Q": "What is 37 \u00b0C?", "A": "Normal \u2013 no fever."}]) / SCHEMA["EBK"].file
    plain = read_file(path, SCHEMA["EBK"])
    path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False), encoding=encoding)
    assert read_file(path, SCHEMA["EBK"]) == plain


@pytest.mark.parametrize("id", EXAMPLES)
def test_every_file_is_read_into_context_question_and_answer(tmp_path, id):
    example, context, question = EXAMPLES[id]
    record = read_one(tmp_path, id, example)
    system, user = ChatBuilder().messages(record.context, [record.turns[0].question], [])
    assert system == {"role": "system", "content": SYSTEM}
    assert user == {"role": "user", "content": context + question}
    answers = {
        "EBK": ["Atrial depolarization."],
        "CK": ["Filling."],
        "CD": ["Yes."],
        "PP": ["A week."],
        "PRTK": ["Yes, you may."],
        "CMD": ["Left."],
        "MROD": ["Likely.", "ST depression."],
        "LTD": ["Sinus."],
        "MC": ["Good morning.", "Left arm?", "Then I was wrong."],
        "MEE": ["chest pain, ST depression"],
        "GRA": ["High risk."],
    }
    assert [turn.answer for turn in record.turns] == answers[id]
    assert list(record.asked) == ([2] if id == "MC" else list(range(len(record.turns))))
    groups = {"CD": "Disease myxoma", "PP": "medical_advice rest."}
    assert record.group == groups.get(id, "subject_id 7" if "subject_id" in example else "")
    assert SCHEMA[id].kind == KINDS.get(id, "answer")


def test_a_subject_is_one_whether_its_id_is_written_with_a_fraction_or_not(tmp_path):
    data = write(tmp_path / "data", GRA=[changed("GRA", subject_id=7), changed("GRA", subject_id=7.0)])
    records, _ = read_file(data / SCHEMA["GRA"].file, SCHEMA["GRA"])
    assert {record.group for record in records} == {"subject_id 7"}


def test_the_data_folder_is_never_the_output_folder(data):
    with pytest.raises(InputError, match="is the --data_dir"):
        main(["--data_dir", str(data), "--out_dir", str(data / ".." / data.name)])
    assert not list(data.glob("*.parquet"))


def test_the_schema_has_eleven_files():
    assert set(SCHEMA) == set(EXAMPLES) and len({schema.file for schema in SCHEMAS}) == len(SCHEMAS) == 11


def test_rows_have_the_shape_that_verl_reads(tmp_path):
    files = {id: [example] for id, (example, _, _) in EXAMPLES.items()}
    out = run(write(tmp_path / "data", **files), "--valid_share", "0", "--test_share", "0")
    assert sorted(path.name for path in out.iterdir()) == ["grpo_train.parquet", "manifest.json", "sft_train.parquet"]
    rows = read(out, "grpo_train")
    assert [row["extra_info"]["category"] for row in rows] == [
        *("EBK", "CK", "CD", "PP", "PRTK", "CMD", "MROD", "MROD", "LTD", "MC", "MEE", "GRA")
    ]
    for row in rows:
        assert set(row) == {"data_source", "prompt", "ability", "reward_model", "extra_info"}
        assert (row["ability"], row["reward_model"]["style"]) == ("ecg", "rule")
        assert row["data_source"] == f"ecg/{row['extra_info']['category']}"
        json.loads(row["reward_model"]["ground_truth"])
        assert set(row["extra_info"]) == {"id", "split", "category", "question", "reference", "group"}
        assert row["prompt"][0] == {"role": "system", "content": SYSTEM}
        assert row["prompt"][-1]["content"].endswith(row["extra_info"]["question"])
    second = rows[7]
    assert second["extra_info"]["id"] == rows[6]["extra_info"]["id"].removesuffix("0") + "1"
    assert [m["role"] for m in second["prompt"]] == ["system", "user", "assistant", "user"]
    assert second["prompt"][2]["content"] == "Likely." and second["prompt"][3]["content"] == "Why?"
    assert second["extra_info"]["reference"] == "ST depression."
    assert len({row["extra_info"]["group"] for row in rows[5:]}) == 1  # one patient

    dialogues = read(out, "sft_train")
    assert len(dialogues) == 11
    for (messages,) in (row.values() for row in dialogues):
        roles = [message["role"] for message in messages]
        assert roles == ["system"] + ["user", "assistant"] * (len(roles) // 2)
    assert [message["content"] for message in dialogues[8]["messages"]][1:] == [
        "Patient: A man of 70 with chest pain.\n\nLet us talk about this patient.",
        "Good morning.",
        "My pain is back.\nSince noon.",
        "Left arm?",
        "Right arm.",
        "Then I was wrong.",
    ]


def test_the_grader_gets_question_answer_kind_and_entities(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.ecg.rows.make_reference", lambda *arguments: json.dumps(arguments))
    example, _, question = EXAMPLES["MEE"]
    out = run(write(tmp_path / "data", MEE=[example]), "--valid_share", "0", "--test_share", "0")
    (row,) = read(out, "grpo_train")
    names = ["chest pain", "ST depression"]
    assert json.loads(row["reward_model"]["ground_truth"]) == [question, ", ".join(names), "entities", names]


def test_think_asks_for_tags_and_wraps_written_answers(tmp_path):
    example, _, _ = EXAMPLES["MROD"]
    out = run(write(tmp_path / "data", MROD=[example]), "--think", "--valid_share", "0", "--test_share", "0")
    (dialogue,) = read(out, "sft_train")
    assert "<think>...</think>" in dialogue["messages"][0]["content"] and "<think>" not in SYSTEM
    assert dialogue["messages"][-1]["content"] == "<answer>ST depression.</answer>"
    row = read(out, "grpo_train")[1]
    assert list(row["prompt"]) == list(dialogue["messages"][:-1])
    assert row["extra_info"]["reference"] == "ST depression."


def test_entities_may_be_a_list():
    assert entity_turns("?", [" AF ", "", "flutter"]) == [Turn("?", "AF, flutter", ("AF", "flutter"))]
    assert entity_turns("?", " ,; ") == [Turn("?", "", ())]


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.text("xyz ", max_size=3)), min_size=1))
def test_a_conversation_becomes_alternating_turns_that_lose_no_word(utterances):
    turns = conversation_turns("opening", {"all": [{speaker: said} for speaker, said in utterances]})
    said = [(speaker, words.strip()) for speaker, words in utterances]
    answering, last = said[-1]
    if not last:
        assert turns == [Turn("opening", "")]
        return
    assert all(turn.question and turn.answer for turn in turns)
    answers = "\n".join(turn.answer for turn in turns)
    questions = "\n".join(turn.question for turn in turns).removeprefix("opening").strip()  # first, or nowhere
    assert answers == "\n".join(words for speaker, words in said if speaker == answering and words)
    assert questions == "\n".join(words for speaker, words in said if speaker != answering and words)


def test_what_is_dropped_is_counted_with_its_reason(tmp_path, capsys):
    data = write(
        tmp_path / "data",
        EBK=[
            {"Q": "What is the P wave?", "A": "Atrial depolarization."},
            {"Q": "what is  the P wave?", "A": "atrial depolarization. "},  # the same but for case and space
            {"Q": "What is the P wave?", "A": "The first wave."},  # another answer
            {"Q": "   ", "A": "Nothing."},
            {"Q": "What is the Q wave?", "A": " "},
        ],
        CK=[{"Q": "What is the P wave?", "A": "Atrial depolarization."}],
        LTD=[SUBJECT | {"QA": []}, SUBJECT | {"QA": [{"Q": "Axis?", "A": ""}, {"Q": "心律?", "A": "No, not sinus."}]}],
    )
    out = run(data, "--valid_share", "0", "--test_share", "0")
    counts = json.loads((out / "manifest.json").read_text())["counts"]
    assert counts["EBK"]["dropped"] == {"empty question": 1, "empty answer": 1}
    assert (counts["EBK"]["read"], counts["EBK"]["duplicates"], counts["EBK"]["train"]) == (5, 1, 2)
    assert (counts["CK"]["read"], counts["CK"]["duplicates"], counts["CK"]["train"]) == (1, 1, 0)
    assert counts["LTD"]["dropped"] == {"no turns": 1, "empty answer": 1}
    assert (counts["LTD"]["train"], counts["LTD"]["cjk"], counts["LTD"]["no"], counts["LTD"]["yes"]) == (1, 1, 1, 0)
    assert len({row["extra_info"]["group"] for row in read(out, "grpo_train")}) == 2
    printed = capsys.readouterr().out
    assert "LTD: 1 dropped, no turns" in printed and "PRTK: no file" in printed


def test_groups_keep_patients_diseases_and_equal_questions_whole(data):
    out = run(data, "--valid_share", "0.2", "--test_share", "0.2")
    rows = [row["extra_info"] for split in ("train", "valid", "test") for row in read(out, f"grpo_{split}")]
    splits = defaultdict(set)
    for info in rows:
        splits[info["group"]].add(info["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert len(splits) == 40 + 1 + 3 + 20  # equal questions of different patients join none of them
    assert len({info["id"] for info in rows}) == len(rows)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["groups"] == {"number": 64, "largest": 5}
    counts = manifest["counts"]
    assert {split: counts["EBK"][split] for split in ("train", "valid", "test")} == {"train": 24, "valid": 8, "test": 8}
    assert {split: counts["GRA"][split] for split in ("train", "valid", "test")} == {"train": 12, "valid": 4, "test": 4}
    for values in counts.values():
        kept = sum(values[key] for key in ("duplicates", "train", "valid", "test"))
        assert values["read"] == kept + sum(values["dropped"].values())


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_sft_share_gives_whole_groups_written_answers_and_the_others_facts_only(data, share):
    out = run(data, "--sft_share", str(share))
    withheld = [row["extra_info"] for row in read(out, "grpo_train")]
    assert {info["reference"] for info in withheld} == {""}
    taught = {tuple(m["content"] for m in row["messages"]) for row in read(out, "sft_train")}
    asked = {tuple(m["content"] for m in row["prompt"]) for row in read(out, "grpo_train")}
    assert not {messages[: len(prompt)] for prompt in asked for messages in taught} & asked
    counts = json.loads((out / "manifest.json").read_text())["counts"]
    by_category = Counter(info["category"] for info in withheld)
    for category in ("EBK", "GRA", "MEE", "LTD"):
        assert by_category[category] == pytest.approx((1 - share) * counts[category]["train"], abs=2)
    assert all(row["extra_info"]["reference"] for split in ("valid", "test") for row in read(out, f"grpo_{split}"))


def test_at_share_1_both_train_files_hold_all(data):
    out = run(data)
    rows = read(out, "grpo_train")
    assert all(row["extra_info"]["reference"] for row in rows)
    last = {tuple(m["content"] for m in row["prompt"]) for row in rows}
    assert all(tuple(m["content"] for m in row["messages"][:-1]) in last for row in read(out, "sft_train"))


def test_same_seed_same_bytes_other_seed_other_split(data):
    def outputs(seed: int) -> dict:
        out = run(data, "--sft_share", "0.5", "--seed", str(seed))
        return json.loads((out / "manifest.json").read_text())["outputs"]

    assert outputs(0) == outputs(0)
    assert outputs(0)["grpo_test.parquet"] != outputs(1)["grpo_test.parquet"]


def test_ids_do_not_depend_on_the_rest_of_the_data(data):
    before = {row["extra_info"]["question"]: row["extra_info"]["id"] for row in read(run(data), "grpo_train")}
    path = data / SCHEMA["EBK"].file
    path.write_text(json.dumps(json.loads(path.read_text())[::-1][:30]))
    after = {row["extra_info"]["question"]: row["extra_info"]["id"] for row in read(run(data), "grpo_train")}
    common = [q for q in before.keys() & after.keys() if q.endswith(tuple(f"{i}?" for i in range(40)))]
    assert common and all(before[question] == after[question] for question in common)


def brute_force(texts: list[str]) -> list[tuple[int, int]]:
    """All pairs of near-duplicates, by comparing all with all."""
    sets = [shingles(text) for text in texts]
    return [(i, j) for i, j in combinations(range(len(sets)), 2) if jaccard(sets[i], sets[j]) >= NEAR]


def exact_pairs(texts: list[str]) -> list[tuple[int, int]]:
    """The pairs of ``brute_force``, fast enough for real data.

    Sets of n shingles with a similarity of 0.8 share at least 0.8 n, so that each of the two holds a shared one among
    its 0.2 n + 1 rarest.
    """
    sets = [shingles(text) for text in texts]
    frequency = Counter(shingle for members in sets for shingle in members)
    holders, pairs = defaultdict(list), []
    for i, members in enumerate(sets):
        rarest = sorted(members, key=lambda shingle: (frequency[shingle], shingle))
        rarest = rarest[: len(members) - int(NEAR * len(members)) + 1]
        candidates = {j for shingle in rarest for j in holders[shingle]}
        pairs += [(j, i) for j in candidates if jaccard(sets[i], sets[j]) >= NEAR]
        for shingle in rarest:
            holders[shingle].append(i)
    return sorted(pairs)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("abc ", max_size=12).map(normalise), max_size=12))
def test_near_duplicates_are_those_of_brute_force(texts):
    assert sorted(near_duplicates(texts)) == brute_force(texts) == exact_pairs(texts)


def question_records(questions: list[str]) -> list[Record]:
    return [Record(SCHEMA["EBK"], (), (Turn(question, "An answer."),), "") for question in questions]


SHARES = {"train": 0.6, "valid": 0.2, "test": 0.2}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("abc ", min_size=1, max_size=8), min_size=1, max_size=30), st.integers(0, 9))
def test_no_near_duplicates_cross_the_split(questions, seed):
    records = question_records(questions)
    splits = assign_groups(records, group_records(records), SHARES, seed)
    pairs = brute_force([normalise(question) for question in questions])
    assert all(splits[i] == splits[j] for i, j in pairs)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(0, 9))
def test_a_share_is_missed_by_less_than_the_largest_group(groups, seed):
    records = question_records(["?"] * len(groups))
    splits = Counter(assign_groups(records, groups, SHARES, seed))
    largest = max(Counter(groups).values())
    assert all(splits[name] <= share * len(groups) + largest for name, share in SHARES.items())


def test_spelling_and_small_changes_make_a_near_duplicate_but_another_question_does_not():
    records = question_records(
        [
            "What does ST elevation in leads V1 to V4 suggest?",
            "what does ST-elevation in leads V1 to V4 suggest",
            "What does an ST elevation in leads V1 to V4 suggest?",
            "How is long QT syndrome treated?",
        ]
    )
    first, second, third, other = group_records(records)
    assert first == second == third != other


def test_no_near_duplicates_cross_the_split_of_real_data(shared_data, tmp_path):
    source = shared_data / "ecg_expert_qa"
    if not source.is_dir():
        pytest.skip(f"no ECG-Expert-QA at {source}")
    records = [
        record
        for schema in SCHEMAS
        if (source / schema.file).exists()
        for record in read_file(source / schema.file, schema)[0]
    ]
    compared = [record for record in records if record.schema.group != "subject_id"]
    splits = assign_groups(compared, group_records(compared), SHARES, seed=0)
    diseases = defaultdict(set)
    of_text = defaultdict(set)
    for record, split in zip(compared, splits, strict=True):
        diseases[record.group or id(record)].add(split)
        of_text[normalise(record.turns[0].question)].add(split)
    assert all(len(found) == 1 for found in diseases.values())
    assert all(len(found) == 1 for found in of_text.values())
    texts = list(of_text)
    pairs = exact_pairs(texts)
    assert len(pairs) > 300
    crossing = [(texts[i], texts[j]) for i, j in pairs if of_text[texts[i]] != of_text[texts[j]]]
    assert crossing == []


def test_manifest_hashes_inputs_and_outputs(data):
    out = run(data)
    manifest = json.loads((out / "manifest.json").read_text())
    assert {SCHEMA["EBK"].file, "system.jinja", "user.jinja"} <= {Path(path).name for path in manifest["inputs"]}
    assert all(sha256_file(Path(path)) == sha256 for path, sha256 in manifest["inputs"].items())
    for name, output in manifest["outputs"].items():
        assert output == {"rows": len(pd.read_parquet(out / name)), "sha256": sha256_file(out / name)}


def test_lengths_and_long_prompts_are_counted_in_tokens(data, tmp_path, capsys):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    path = str(tmp_path / "tokenizer")
    tokenizer.save_pretrained(path)
    limit = len(SYSTEM.split()) + 3
    out = run(data, "--tokenizer", path, "--max_prompt_length", str(limit))
    counts = json.loads((out / "manifest.json").read_text())["counts"]
    assert (counts["EBK"]["prompt_max"], counts["EBK"]["prompts_over_limit"]) == (limit, 0)  # three words
    assert counts["CD"]["prompts_over_limit"] == 5
    assert (counts["EBK"]["question_mean"], counts["EBK"]["answer_max"]) == (3, 2)
    assert f"over {limit}" in capsys.readouterr().out


def without(key: str, id: str = "EBK") -> dict:
    return {k: v for k, v in EXAMPLES[id][0].items() if k != key}


def changed(id: str, **values) -> dict:
    return EXAMPLES[id][0] | values


@pytest.mark.parametrize(
    ("id", "records", "message"),
    [
        ("EBK", [EXAMPLES["EBK"][0], without("A")], r"ECG Knowledge.*record 1 with the keys 'Q': needs A"),
        ("EBK", [changed("EBK", B=1)], r"record 0 with the keys 'Q', 'A', 'B': does not know 'B'"),
        ("EBK", [changed("EBK", A=None)], r"record 0 with the keys 'Q', 'A': the answer must be text"),
        ("EBK", [changed("EBK", Q=3)], r"Q must be text"),
        ("EBK", [changed("EBK", A="\ud800")], r"the answer must be text"),
        ("EBK", ["text"], r"record 0 is not an object"),
        ("EBK", {"data": []}, r"expected a list of records"),
        ("EBK", [], r"expected a list of records"),
        ("EBK", [{"Q": "?", "A": ""}], r"no question with an answer"),
        ("CD", [changed("CD", Disease=" ")], r"Disease is empty"),
        ("PP", [changed("PP", medical_advice=[])], r"medical_advice must be text"),
        ("CMD", [without("t_axis", "CMD")], r"needs t_axis"),
        ("CMD", [changed("CMD", subject_id=None)], r"subject_id is empty"),
        ("CMD", [changed("CMD", report_0=True)], r"report_0 must be text"),
        ("LTD", [changed("LTD", QA="text")], r"a dialogue must be a list"),
        ("LTD", [changed("LTD", QA=[{"Q": "?"}])], r"a turn must hold Q and A"),
        ("LTD", [changed("LTD", QA={"first": "text"})], r"a turn must hold Q and A"),
        ("LTD", [changed("LTD", QA=[{"Q": "?", "A": 1}])], r"A of a turn must be text"),
        ("MC", [changed("MC", Conversation=[])], r"a conversation must be an object"),
        ("MC", [changed("MC", Conversation={"a": "text"})], r"a phase must be a list"),
        ("MC", [changed("MC", Conversation={"a": ["text"]})], r"an utterance must be an object"),
        ("MC", [changed("MC", Conversation={"a": [{"A": None}]})], r"an utterance must be text"),
        ("MEE", [changed("MEE", keywords=5)], r"the list of entities must be text"),
        ("MEE", [changed("MEE", keywords=["a", 5])], r"an entity must be text"),
    ],
)
def test_a_bad_record_is_named_and_nothing_is_written(tmp_path, id, records, message):
    data = write(tmp_path / "data", **{id: records})
    with pytest.raises(InputError, match=message) as raised:
        run(data)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (SCHEMA["EBK"].file, b'[\n{"Q": oops}]', r"bad JSON in line 2, column 7"),
        (SCHEMA["EBK"].file, b"\xff\xfe\x00", r"is not a UTF-8 text file"),
        (SCHEMA["EBK"].file, b"[" * 100_000, r"cannot read"),
        ("Twelfth file.json", b"[]", r"'Twelfth file.json' is no file of ECG-Expert-QA"),
    ],
)
def test_a_bad_or_unknown_file_is_named(data, name, content, message):
    (data / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        run(data)
    assert "\n" not in str(raised.value)
    assert not (data.parent / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sft_share", "0"], "--sft_share 0"),
        (["--sft_share", "1.5"], "--sft_share 1.5"),
        (["--sft_share", "nan"], "--sft_share nan"),
        (["--sft_share", "0.0001"], "all .* train records on one side"),
        (["--valid_share", "-0.1"], "--valid_share -0.1"),
        (["--valid_share", "0.5", "--test_share", "0.5"], "leave some for train"),
        (["--test_share", "0.0001"], "leaves test empty"),
        (["--max_prompt_length", "0"], "at least 1 token"),
        (["--max_prompt_length", "10"], "give the --tokenizer"),
        (["--tokenizer", "./no-such-folder"], "cannot load the tokenizer"),
    ],
)
def test_bad_options_give_one_line_and_leave_nothing(data, options, message):
    with pytest.raises(InputError, match=message) as raised:
        run(data, *options)
    assert "\n" not in str(raised.value)
    assert not (data.parent / "out").exists()


def test_no_folder_or_no_file(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        run(tmp_path / "data")
    with pytest.raises(InputError, match="none of the files"):
        run(write(tmp_path / "data"))


def test_a_failed_rerun_keeps_the_earlier_outputs_and_another_leaves_none_behind(data):
    out = run(data)
    before = {path.name: sha256_file(path) for path in out.iterdir()}
    assert "grpo_test.parquet" in before
    with pytest.raises(InputError):
        run(data, "--sft_share", "2")
    assert {path.name: sha256_file(path) for path in out.iterdir()} == before
    run(data, "--test_share", "0")
    assert not (out / "grpo_test.parquet").exists()


def test_a_file_in_place_of_the_output_folder_is_kept(data):
    (data.parent / "out").write_text("a file")
    with pytest.raises(InputError, match="is not a folder"):
        run(data)
    assert (data.parent / "out").read_text() == "a file"
