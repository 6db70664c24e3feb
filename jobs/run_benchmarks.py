r"""A checkpoint to results: the benchmarks of a suite, with baselines and a report.

Example:
    python jobs/run_benchmarks.py --config conf/suites/smoke.yaml checkpoint=outputs/runs/first \
        output=outputs/bench
"""

import sys

from protclip.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("benchmark", sys.argv[1:]))
