"""Results of several checkpoints side by side: which differences are real.

Example:
    python jobs/compare.py outputs/bench/first outputs/bench/second output=outputs/compare
"""

import sys

from protclip.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("compare", sys.argv[1:]))
