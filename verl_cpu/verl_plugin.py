"""Entry point ``verl.plugins``: loaded by every ``import verl``."""

from verl_cpu import enabled

if enabled():
    from verl_cpu import platform, workarounds

    try:
        workarounds.apply()
    except Exception as error:
        # verl logs a plugin's exception at debug level and goes on without the plugin; SystemExit gets through.
        raise SystemExit(f"verl_cpu: {error}; install the releases pinned in requirements-cpu.txt") from error
    platform.register()
