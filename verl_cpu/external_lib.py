"""What verl imports in every process that loads the model's config (``external_lib`` of verl's model config).

Puts ``verl_cpu.rollout.BoundedServerAdapter`` and ``verl_cpu.rollout_groups.GroupReplica`` into verl's registries and
``verl_cpu.packed_attention`` into transformers'. Takes what is loaded by now out of the garbage collector's sight: verl
collects before and after each step to free device memory, which otherwise walks through all of torch and transformers,
0.2 s each time.
"""

import gc

from verl.workers.rollout import base
from verl.workers.rollout.replica import RolloutReplicaRegistry

from verl_cpu import packed_attention


def _load_group_replica():
    from verl_cpu.rollout_groups import GroupReplica  # imports vLLM, which most processes do without

    return GroupReplica


_KEY = ("vllm", "async")
_BOUNDED = "verl_cpu.rollout.BoundedServerAdapter"

if base._ROLLOUT_REGISTRY.get(_KEY) not in ("verl.workers.rollout.vllm_rollout.ServerAdapter", _BOUNDED):
    raise SystemExit("verl_cpu: verl's rollout registry changed; install the release pinned in requirements-cpu.txt")
base._ROLLOUT_REGISTRY[_KEY] = _BOUNDED
RolloutReplicaRegistry.register("vllm", _load_group_replica)
packed_attention.register()

gc.freeze()
