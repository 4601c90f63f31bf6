"""A weight update that ends.

verl's weight sender waits for the receiver in the vLLM process without a time limit; when the receiver fails,
its exception never reaches the sender and the run hangs for ever.
"""

import asyncio

import zmq
from verl.workers.rollout.vllm_rollout import ServerAdapter

UPDATE_TIMEOUT_S = 120  # for one bucket of weights; a model that fits a CPU takes well under 10 s
CAUSE_TIMEOUT_S = 10  # for vLLM to report why


class BoundedServerAdapter(ServerAdapter):
    """verl's vLLM adapter, with a deadline on each message of a weight update."""

    _update = None

    async def _execute_method(self, method, *args, **kwargs):
        result = await super()._execute_method(method, *args, **kwargs)
        if method == "update_weights_from_ipc":
            self._update = result
        return result

    async def update_weights(self, *args, **kwargs):
        """Raises: RuntimeError, chained to the receiver's own error where vLLM reports one in time."""
        # Default options apply to sockets made later: verl's sender makes one for each update.
        context = zmq.Context.instance()
        context.setsockopt(zmq.SNDTIMEO, UPDATE_TIMEOUT_S * 1000)  # the receiver never connects
        context.setsockopt(zmq.RCVTIMEO, UPDATE_TIMEOUT_S * 1000)  # the receiver never answers
        context.setsockopt(zmq.LINGER, 0)  # nor keeps this process from ending
        try:
            return await super().update_weights(*args, **kwargs)
        except zmq.Again:
            message = f"vLLM did not take the new weights within {UPDATE_TIMEOUT_S} s"
            if self._update is not None:  # None on ranks without a server
                try:
                    await asyncio.wait_for(self._update, CAUSE_TIMEOUT_S)
                except TimeoutError:
                    message += " and reports no reason"
                except Exception as cause:
                    raise RuntimeError(f"{message}: {cause!r}") from cause
            raise RuntimeError(message) from None
        finally:
            context.setsockopt(zmq.SNDTIMEO, -1)
            context.setsockopt(zmq.RCVTIMEO, -1)
            context.setsockopt(zmq.LINGER, -1)
