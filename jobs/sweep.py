"""Search for the best values of configuration keys, by many trainings side by side.

Example:
    python jobs/sweep.py --config conf/sweeps/lambda_theta.yaml name=lambda-theta data=outputs/pairs
"""

import sys

from protclip.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("sweep", sys.argv[1:]))
