"""Strata to pairs: property-driven sampling, tokenising, shuffling, splitting.

Example:
    python jobs/sample_data.py --config conf/data/sample.yaml source=data/strata output=data/pairs seed=0
"""

import sys

from protclip.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("sample", sys.argv[1:]))
