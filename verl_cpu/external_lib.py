"""What verl imports in every process that loads the model's config (``external_lib`` of verl's model config).

Puts ``verl_cpu.rollout.BoundedServerAdapter`` and ``verl_cpu.rollout_groups.GroupReplica`` into verl's registries and
``verl_cpu.packed_attention`` into transformers'. Takes what stays out of the garbage collector's sight: verl collects
before and after each step to free device memory, which otherwise walks through all of torch, transformers and the
model, 0.1 to 0.4 s each time.
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


def _freeze_survivors(phase: str, info: dict) -> None:
    """A callback of the garbage collector, for its first full collections: what they leave is not looked at again.

    Reference cycles among that are not freed any more.
    """
    global _collections
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()
        _collections += 1
        if _collections == FREEZING_COLLECTIONS:
            gc.callbacks.remove(_freeze_survivors)


FREEZING_COLLECTIONS = 10  # those while the model and the trainer are built, and those of the first steps
_collections = 0
gc.callbacks.append(_freeze_survivors)
