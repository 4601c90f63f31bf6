"""Puts ``verl_cpu.rollout.BoundedServerAdapter`` into verl's rollout registry.

verl imports this module in every process that loads the model's config: ``actor_rollout_ref.model.external_lib``.
"""

from verl.workers.rollout import base

_KEY = ("vllm", "async")
_BOUNDED = "verl_cpu.rollout.BoundedServerAdapter"

if base._ROLLOUT_REGISTRY.get(_KEY) not in ("verl.workers.rollout.vllm_rollout.ServerAdapter", _BOUNDED):
    raise SystemExit("verl_cpu: verl's rollout registry changed; install the release pinned in requirements-cpu.txt")
base._ROLLOUT_REGISTRY[_KEY] = _BOUNDED
