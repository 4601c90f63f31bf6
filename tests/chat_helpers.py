"""Real models for the chat's tests, small enough to learn what they are to say by heart in seconds."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from data_prep.ecg.prompts import ChatBuilder
from recipes.models import TINY_CHAT_TEMPLATE, tiny_tokenizer

Dialogue = list[dict[str, str]]

HOSTILE = "\x1b]0;owned\x07<img src=x onerror=document.title='owned'>\x1b[31mred [bold]b[/bold] ${1+1} {{1}} @children"
BEATS = " ".join(["beat"] * 60)  # and on, to the length limit
ECG = [
    (["What rhythm is it?"], ["Sinus rhythm at 72 bpm."]),
    (["My name is Ada."], ["Noted."]),
    (["My name is Ada.", "Who am I?"], ["Noted.", "You are Ada."]),
    (["Who am I?"], ["I do not know."]),
    (["Attack me."], [HOSTILE]),
    (["Reason."], ["<think>the rate is high</think><answer>Tachycardia.</answer>"]),
    (["Never end."], [BEATS]),
]
OTHER_ECG = [(["What rhythm is it?"], ["Atrial flutter."]), (["Never end."], [BEATS])]
SQL = {
    "How many patients?": "SELECT count(*) FROM patients",
    "Which names?": "```sql\nSELECT name FROM patients\n```",
    "Who else?": "SELECT 1; DROP TABLE patients",
    "Drop it.": "```sql\nDROP TABLE patients\n```",
    "What is the shoe size?": "null",
    "Attack me.": HOSTILE,
    "Never end.": BEATS,
}


def ecg_dialogues(dialogues: list[tuple[list[str], list[str]]]) -> list[Dialogue]:
    return [ChatBuilder().messages((), questions, answers) for questions, answers in dialogues]


def sql_dialogues(answers: dict[str, str]) -> list[Dialogue]:
    return [
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        for question, answer in answers.items()
    ]


def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a recipe: ``models/grpo`` knows all answers above, ``models/sft`` others to a few.

    Its demo database holds one patient, whose name is ``HOSTILE``. Made once for all test files.
    """
    folder = tmp_path_factory.getbasetemp() / "chat"
    if folder.exists():
        return folder
    teach(folder / "models" / "grpo", ecg_dialogues(ECG) + sql_dialogues(SQL))
    teach(
        folder / "models" / "sft",
        ecg_dialogues(OTHER_ECG) + sql_dialogues({"How many patients?": "null", "Never end.": BEATS}),
    )
    start = {"start_model": str(folder / "models" / "grpo")}
    (folder / "models" / "sft" / "export.json").write_text(json.dumps(start))
    (folder / "data").mkdir()
    with closing(sqlite3.connect(folder / "data" / "mimic_iv.sqlite")) as database:
        database.execute("CREATE TABLE patients (name TEXT)")
        database.execute("INSERT INTO patients VALUES (?)", [HOSTILE])
        database.commit()
    return folder


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch with one thread: on a busy machine, two wait for each other most of the time."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def teach(folder: Path, dialogues: list[Dialogue], context: int = 4096) -> None:
    """Write a model to ``folder`` that answers each of ``dialogues`` (chat messages) with its last message.

    It never learns to end ``BEATS``. ``context`` is what it has room for, in tokens.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer(message["content"] for dialogue in dialogues for message in dialogue)
    assert tokenizer.chat_template == TINY_CHAT_TEMPLATE
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": context}
    model = LlamaForCausalLM(LlamaConfig(**shape, **sizes, **ids))

    texts = [tokenizer.apply_chat_template(dialogue, tokenize=False) for dialogue in dialogues]
    texts = [text.removesuffix("<|end|>") if text.endswith(f"{BEATS}<|end|>") else text for text in texts]
    prompts = [
        tokenizer.apply_chat_template(dialogue[:-1], tokenize=False, add_generation_prompt=True)
        for dialogue in dialogues
    ]
    batch = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    for row, prompt in zip(labels, prompts, strict=True):
        row[: len(tokenizer(prompt, add_special_tokens=False)["input_ids"])] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    for _ in range(400):
        loss = model(**inputs, labels=labels).loss
        if loss < 0.005:
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.005
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
