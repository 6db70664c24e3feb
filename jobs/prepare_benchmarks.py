"""Official files of benchmarks to tables: fetched, verified, read, checked.

Example:
    python jobs/prepare_benchmarks.py suite=paper22 raw=data/official output=data/benchmarks
"""

import sys

from protclip.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("prepare-benchmarks", sys.argv[1:]))
