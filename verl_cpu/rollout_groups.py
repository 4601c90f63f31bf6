"""Rollouts by group: all answers to a prompt in one request, one reward call and one write.

verl makes an agent loop for each answer: each tokenises the prompt, asks the load balancer, calls vLLM's server, the
reward worker and the transfer queue. For a model of some million parameters on a CPU those calls cost more than the
tokens. Here a prompt makes one of each, vLLM samples the answers (``SamplingParams.n``) and reports them once, when the
last one has ended. vLLM gets the same sampling parameters; rewards and rows are the same
(``tests/test_rollout_groups.py``).

``configs/hardware/cpu.yaml`` chooses ``GroupAgentLoopManager`` (``agent_loop_manager_class``), and
``verl_cpu.external_lib`` registers ``GroupReplica``, whose servers know ``generate_group``. verl's own way is left to
prompts for another agent loop than ``single_turn_agent``, models that see images, distillation, greedy groups,
``continuous_token``, ``full_determinism``, and prompts with a number of answers or a way of sampling of their own.
"""

import logging
import random
from typing import Any
from uuid import uuid4

import numpy as np
import ray
import torch
import transfer_queue as tq
from tensordict import TensorDict
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, DictConfigWrap, ToolListWrap
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.protocol import DataProto
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ
from verl.utils.profiler import simple_timer
from verl.utils.tensordict_utils import list_of_dict_to_tensordict
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica
from vllm import SamplingParams
from vllm.inputs import TokensPrompt
from vllm.sampling_params import RequestOutputKind

logger = logging.getLogger(__name__)


class GroupServer(vLLMHttpServer):
    """verl's vLLM server with a call for all answers to one prompt."""

    async def generate_group(
        self, prompt_ids: list[int], sampling_params: dict[str, Any], n: int
    ) -> tuple[list[tuple[list[int], list[float] | None]], int]:
        """Token ids of ``n`` answers, each with its log-probabilities if ``logprobs`` is set, and the weights' step.

        Raises:
            ValueError: the prompt leaves no room for an answer.
        """
        room = self.config.max_model_len - len(prompt_ids)
        longest = min(room, self.config.response_length)
        if longest < 1:
            raise ValueError(f"a prompt of {len(prompt_ids)} tokens fills the context of {self.config.max_model_len}")
        logprobs = sampling_params["logprobs"]
        params = SamplingParams(
            **sampling_params | {"logprobs": 0 if logprobs else None},
            n=n,
            max_tokens=longest,
            ignore_eos=self.config.get("ignore_eos", False),
            detokenize=False,
            flat_logprobs=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        prompt = TokensPrompt(prompt_token_ids=prompt_ids)
        async for output in self.engine.generate(prompt=prompt, sampling_params=params, request_id=uuid4().hex):
            final = output
        answers = [(list(o.token_ids), list(o.logprobs.logprobs) if logprobs else None) for o in final.outputs]
        return answers, self.global_steps


class GroupReplica(vLLMReplica):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(GroupServer)


class GroupClient(LLMServerClient):
    async def generate_group(self, prompt_ids: list[int], sampling_params: dict[str, Any], n: int):
        """``GroupServer.generate_group`` of the least busy server."""
        server_id, server = await self._acquire_server(uuid4().hex)
        try:
            return await server.generate_group.remote(prompt_ids, sampling_params, n)
        finally:
            self._release_server(server_id)


class GroupAgentLoopWorker(AgentLoopWorkerTQ.__ray_actor_class__):
    def __init__(self, config, llm_client, *args, **kwargs):
        super().__init__(config, llm_client, *args, **kwargs)
        rollout = config.actor_rollout_ref.rollout
        other_tokens = rollout.full_determinism or config.data.continuous_token.enable
        self.other_way = self.processor is not None or self.distillation_enabled or other_tokens
        self.group_client = GroupClient(config, llm_client._load_balancer)
        self.single_turn = SingleTurnAgentLoop(
            trainer_config=DictConfigWrap(config=config),
            server_manager=llm_client,
            tokenizer=self.tokenizer,
            processor=self.processor,
            dataset_cls=self.dataset_cls,
            data_config=DictConfigWrap(config.data),
            tools=ToolListWrap(self.tools),
        )

    async def _run_prompt(self, prompt: dict, sampling_params: dict, trajectory: dict, trace: bool = False) -> None:
        validate = trajectory["validate"]
        rollout = self.config.actor_rollout_ref.rollout
        n = rollout.val_kwargs.n if validate else rollout.n
        plain = prompt["agent_name"] == "single_turn_agent" and not {"__rollout_n__", "__do_sample__"} & prompt.keys()
        if not plain or self.other_way or (sampling_params["temperature"] == 0 and n > 1):
            return await super()._run_prompt(prompt, sampling_params, trajectory, trace)

        partition = "val" if validate else "train"
        try:
            await self._run_group(prompt, sampling_params, n, partition)
            status = "finished"
        except Exception:  # as in verl the group counts as failed; verl would keep the answers that succeeded
            logger.exception(f"no answers to prompt {prompt['uid']}")
            status = "failure"
        await tq.async_kv_put(key=prompt["uid"], partition_id=partition, tag={"status": status})

    async def _run_group(self, prompt: dict, sampling_params: dict, n: int, partition: str) -> None:
        timing: dict[str, float] = {}
        with simple_timer("generate_sequences", timing):
            prompt_ids = await self.single_turn.apply_chat_template(list(prompt["raw_prompt"]))
            answers, step = await self.group_client.generate_group(prompt_ids, sampling_params, n)
        with simple_timer("compute_score", timing):
            rewards = await self._rewards(prompt, prompt_ids, [answer for answer, _ in answers])
        columns = {name: value for name, value in prompt.items() if name != "agent_name"}
        rows, tags = [], []
        for session_id, ((answer, logprobs), reward) in enumerate(zip(answers, rewards, strict=True)):
            output = AgentLoopOutput(
                prompt_ids=prompt_ids,
                response_ids=answer,
                response_mask=[1] * len(answer),
                response_logprobs=logprobs,
                reward_score=reward.get("reward_score"),
                multi_modal_data={},
                mm_processor_kwargs={},
                num_turns=2,
                metrics=timing,
                extra_fields={
                    "global_steps": step,
                    "min_global_steps": step,
                    "max_global_steps": step,
                    "turn_scores": [],
                    "tool_rewards": [],
                    "reward_extra_info": reward.get("reward_extra_info", {}),
                },
            )
            row = output.as_dict() | columns | {"session_id": session_id}
            row.pop("multi_modal_data")
            row["loss_mask"] = row["response_mask"]
            row["input_ids"] = torch.cat([row["prompts"], row["responses"]])
            row["position_ids"] = torch.arange(len(row["input_ids"]))
            row["multi_modal_inputs"] = {}
            rows.append(row)
            tags.append(
                {
                    "status": "success",
                    "prompt_len": len(prompt_ids),
                    "response_len": len(answer),
                    "seq_len": len(prompt_ids) + len(answer),
                    "global_steps": prompt["global_steps"],
                    "min_global_steps": step,
                    "max_global_steps": step,
                }
            )
        keys = [f"{prompt['uid']}_{session_id}_0" for session_id in range(n)]
        fields = list_of_dict_to_tensordict(rows)
        await tq.async_kv_batch_put(keys=keys, fields=fields, tags=tags, partition_id=partition)

    async def _rewards(self, prompt: dict, prompt_ids: list[int], answers: list[list[int]]) -> list[dict[str, Any]]:
        """verl's reward of each answer; empty where a reward model shares the accelerator and grades later."""
        if self.reward_loop_worker_handles is None:
            return [{} for _ in answers]
        n = len(answers)
        responses = torch.nn.utils.rnn.pad_sequence([torch.tensor(answer) for answer in answers], batch_first=True)
        prompts = torch.tensor(prompt_ids).expand(n, -1)
        mask = torch.arange(responses.shape[1]) < torch.tensor([len(answer) for answer in answers])[:, None]
        attention_mask = torch.cat([torch.ones_like(prompts), mask.long()], dim=1)
        batch = {
            "prompts": prompts,
            "responses": responses,
            "input_ids": torch.cat([prompts, responses], dim=1),
            "attention_mask": attention_mask,
            "position_ids": torch.arange(attention_mask.shape[1]).expand(n, -1),
        }
        columns = {}
        for name, value in prompt.items():
            columns[name] = np.empty(n, dtype=object)
            columns[name][:] = [value] * n
        columns["__num_turns__"] = np.full(n, 2)
        data = DataProto(batch=TensorDict(batch, batch_size=n), non_tensor_batch=columns)
        return await random.choice(self.reward_loop_worker_handles).compute_score_batch.remote(data)


class GroupAgentLoopManager(AgentLoopManagerTQ):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(GroupAgentLoopWorker)
