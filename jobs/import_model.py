r"""The weights that ProtCLIP's authors published, or an exported model, to a checkpoint.

Example:
    python jobs/import_model.py checkpoint=downloads/protclip output=outputs/runs/published
"""

import sys

from protclip.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("import", sys.argv[1:]))
