"""Lets the unchanged verl trainer run with FSDP2 and a real vLLM on a machine without an accelerator.

Two plugins, both inert unless ``VERL_PLATFORM=cpu``:

``verl_cpu.verl_plugin``
    verl's ``verl.plugins`` entry point. Registers the ``cpu`` platform (``verl_cpu.platform``), through which
    verl asks for everything it needs to know of a device, and applies ``verl_cpu.workarounds``.
``verl_cpu.vllm_plugin``
    vLLM's ``vllm.general_plugins`` entry point, loaded in every vLLM process.

``configs/hardware/cpu.yaml`` holds the matching settings. Ray schedules the one worker on a logical "GPU" slot.
Written for the verl and vLLM releases of ``requirements-cpu.txt``; each work-around checks that what it
changes still has the shape it was written for, and ends the process with one line when it has not.
"""

import os


def enabled() -> bool:
    """Whether this process is told to run verl on the CPU."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"
