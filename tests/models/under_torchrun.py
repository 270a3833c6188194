"""What torchrun starts in the place of `-m lydite` where one of its processes is to have a fault: LYDITE_TEST_FAULT is
RANK:FAULT, with a FAULT of one_process.py."""

import os

from lydite.cli.app import main
from tests.models.one_process import FAULTS

if __name__ == "__main__":
    rank, _, fault = os.environ.get("LYDITE_TEST_FAULT", "").partition(":")
    if fault and os.environ["RANK"] == rank:
        FAULTS[fault]()
    main()
