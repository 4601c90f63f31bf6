"""The ECG reward with a judge: ``reward_fns.ecg``, raised where a generative reward model finds an answer better.

The rules decide first, and stand as floor and cross-check. The judge is asked only where they leave room: about an
answer that earns something, not all, and contradicts no key fact. Its verdict moves the score up towards itself, by
``max_raise`` at most and never over what a contradiction leaves. Where there is no verdict, the rules' score stands:

=====================================  ==========  ============  ===============
the judge                              judge_used  judge_failed  judge_disagrees
=====================================  ==========  ============  ===============
was not asked                          0           0             0
gave a verdict near the rules' score   1           0             0
gave one over ``DISAGREES`` from it    1           0             1
is not there, too slow, or says        0           1             0
something else than ``SCORE: n``
=====================================  ==========  ============  ===============

``acc`` and ``correctness`` remain the rules', so that runs with and without a judge compare. An answer that
manipulates the judge gains at most ``max_raise``, and only if the rules gave it more than 0.

verl serves the judge and passes its address (``configs/judge/served.yaml``).
"""

import asyncio
import functools
import hashlib
import logging
import re
from collections import OrderedDict
from pathlib import Path
from weakref import WeakKeyDictionary

import aiohttp
import jinja2

from reward_fns import ecg
from reward_fns.ecg_grader.parameters import KEY_CONTRADICTION
from reward_fns.ecg_grader.reference import load_reference
from reward_fns.ecg_grader.text import MAX_CHARS

TEMPLATE_FILE = Path(__file__).resolve().parent.parent / "configs" / "prompts" / "ecg" / "judge.jinja"
DISAGREES = 0.5
CACHE_SIZE = 16_384  # verdicts
# The whole reply: a judge that repeats a line of the answer, or explains itself, has given no verdict.
VERDICT = re.compile(r"score: ?(10|[0-9])(/10)?\.?", re.IGNORECASE)
VERDICT_TOKENS = 16  # a tokenizer that splits it into characters takes 9

logger = logging.getLogger(__name__)
_template = jinja2.Template(TEMPLATE_FILE.read_text(encoding="utf-8"), undefined=jinja2.StrictUndefined)
_verdicts: OrderedDict[str, float] = OrderedDict()  # by prompt, the least recently used first
_pending: dict[str, asyncio.Task] = {}  # by prompt
_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict | None = None,
    *,
    format_bonus: float = 0.0,
    max_raise: float = 0.3,
    deadline_s: float = 30.0,
    concurrency: int = 32,
    reward_router_address: str | None = None,
    reward_model_tokenizer: object = None,
) -> dict[str, float]:
    """Score one sample for verl, with the same keys every time: those of ``reward_fns.ecg`` and the three above.

    ``reward_router_address`` is the judge's ``host:port``, ``reward_model_tokenizer`` its tokenizer; verl passes both.
    ``deadline_s`` bounds a question in seconds, waiting for one of this process's ``concurrency`` slots not included.
    Neither a text nor the judge raises.
    """
    # In a thread, as verl runs what is not async: answers of the judge to others are waiting meanwhile.
    rules = await asyncio.to_thread(
        ecg.compute_score, data_source, solution_str, ground_truth, extra_info, format_bonus=format_bonus
    )
    result = {**rules, "judge_used": 0.0, "judge_failed": 0.0, "judge_disagrees": 0.0}
    if not _leaves_room(rules):
        return result
    try:
        prompt = render(solution_str, ground_truth, reward_model_tokenizer)
        verdict = await _verdict(prompt, reward_router_address, deadline_s, concurrency)
    except Exception as error:  # an exception here would end the training run
        _log_once(type(error), str(error).split(":")[0])  # without the judge's reply
        return result | {"judge_failed": 1.0}
    correctness = rules["correctness"]
    raised = max(correctness, min(verdict, correctness + max_raise, _ceiling(rules)))
    return result | {
        "score": rules["score"] + (raised - correctness),
        "judge_used": 1.0,
        "judge_disagrees": float(abs(verdict - correctness) > DISAGREES),
    }


@functools.lru_cache(maxsize=1024)
def _log_once(kind: type, beginning: str) -> None:
    logger.exception("the judge failed, the rules' score stands; this kind of failure is logged once")


def _leaves_room(rules: dict[str, float]) -> bool:
    """Whether the judge is asked.

    Not about what the rules give nothing: nearly all of it is empty, off topic, stuffed, boilerplate or the question
    again, and a judge that is talked round would pay for it.
    """
    return rules["contradiction"] < KEY_CONTRADICTION and 0 < rules["correctness"] < _ceiling(rules)


def _ceiling(rules: dict[str, float]) -> float:
    """The most that the grader gives an answer with this contradiction."""
    return (1 - rules["contradiction"]) ** 2


def render(solution_str: str, ground_truth: str, tokenizer: object = None) -> str:
    """The prompt for the judge. The answer is cut as the grader cuts it, and cannot end its block or its turn.

    The key of the blocks' lines is a hash over the answer, so that no answer can hold it.
    """
    reference = load_reference(ground_truth)
    answer = _without_control_tokens(ecg.extract_answer(solution_str)[0][:MAX_CHARS], tokenizer)
    texts = {"question": reference.question, "reference": reference.text, "answer": answer}
    return _template.render(texts, key=_digest("\0".join(texts.values()))[:16])


def _without_control_tokens(text: str, tokenizer: object) -> str:
    """``text`` with a space inside what ``tokenizer`` would read as a control token, such as <|im_end|>.

    vLLM reads them in messages too: written out by the policy, they would end the user's turn and begin the judge's.
    """
    if tokenizer is None:
        return text
    for token in sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}):
        if len(token) > 1:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


async def _verdict(prompt: str, address: str | None, deadline_s: float, concurrency: int) -> float:
    """The verdict, in [0, 1], on ``prompt``; equal prompts are asked once, also while the first is under way.

    Raises whatever ``_ask`` or ``parse`` raises.
    """
    key = _digest(prompt)
    if key in _verdicts:
        _verdicts.move_to_end(key)
        return _verdicts[key]
    if key not in _pending:
        _pending[key] = asyncio.create_task(_decide(key, prompt, address, deadline_s, concurrency))
        _pending[key].add_done_callback(lambda _: _pending.pop(key))
    return await asyncio.shield(_pending[key])


async def _decide(key: str, prompt: str, address: str | None, deadline_s: float, concurrency: int) -> float:
    """Asks the judge and keeps the verdict; a failure is not kept."""
    async with _slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(concurrency)):
        verdict = parse(await _ask(prompt, address, deadline_s))
    _verdicts[key] = verdict
    if len(_verdicts) > CACHE_SIZE:
        _verdicts.popitem(last=False)
    return verdict


async def _ask(prompt: str, address: str | None, deadline_s: float) -> str:
    """The judge's whole reply.

    Raises ``aiohttp.ClientError`` (not reached, or an HTTP error), ``TimeoutError``, ``ValueError`` (no judge, no JSON,
    a reply cut off), or what looking into JSON of another form raises.
    """
    if address is None:
        raise ValueError("verl serves no judge: set judge=served, or reward.reward_model.enable=True")
    # No "model": verl's router leads to one only.
    request = {
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_completion_tokens": VERDICT_TOKENS,
        "chat_template_kwargs": {"enable_thinking": False},  # Qwen3 would think; other templates do not read it
    }
    timeout = aiohttp.ClientTimeout(total=deadline_s)
    async with (
        aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session,
        session.post(f"http://{address}/v1/chat/completions", json=request) as response,
    ):
        choice = (await response.json(content_type=None))["choices"][0]
    if choice["finish_reason"] != "stop":  # "SCORE: 1" may be cut from "SCORE: 10"
        raise ValueError(f"the judge's reply was cut: {choice['message']['content']!r}")
    return choice["message"]["content"]


def parse(reply: str) -> float:
    """The verdict in a judge's reply, in [0, 1]. Raises ``ValueError`` unless the reply is a verdict and no more."""
    match = VERDICT.fullmatch(reply.strip())
    if not match:
        raise ValueError(f"the judge's reply is no verdict: {reply[:200]!r}")
    return int(match[1]) / 10


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
