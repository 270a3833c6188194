"""What the system says of this process; imports the standard library only, so that every room may ask."""

import sys


def resident_peak() -> int:
    """Bytes: the largest resident size of this process so far; 0 where the system does not say (Windows)."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
