"""All ranks act on a notice at the same step."""

import multiprocessing
from pathlib import Path

import pytest
import torch.distributed as dist

from protclip.training.notice import Agreement, Notice

NONE, SAVE, STOP = Notice
SENT = {0: [NONE, SAVE, NONE, NONE, NONE], 1: [NONE, NONE, NONE, STOP, NONE]}


def _rank(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    agreed = Agreement(timeout_s=30)
    (folder / str(rank)).write_text(" ".join(agreed(notice).name for notice in SENT[rank]))
    dist.destroy_process_group()


def test_agreement_gives_the_highest_notice_to_all_ranks_one_step_later(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_rank, args=(rank, tmp_path)) for rank in SENT]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
    assert [(tmp_path / str(rank)).read_text() for rank in SENT] == ["NONE NONE SAVE NONE STOP"] * 2


@pytest.mark.parametrize("notice", Notice)
def test_agreement_of_one_process_is_immediate(notice: Notice) -> None:
    assert Agreement(timeout_s=30)(notice) is notice
