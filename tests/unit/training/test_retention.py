from hypothesis import given, settings
from hypothesis import strategies as st

from protclip.checkpoint import FileEntry, Meta
from protclip.training.retention import attempts, kept, sweep, thin_out


def meta(step, metrics=None, files=()):
    return Meta(
        step=step,
        epoch=0,
        batch_index=step,
        skipped=0,
        run_id=None,
        data_manifest="",
        git_sha=None,
        world_size=1,
        metrics=metrics or {},
        files=dict.fromkeys(files, FileEntry(num_bytes=0, sha256="")),
    )


def naive(scores, keep_last, keep_best, lower_is_better):
    """Steps that stay, by picking them one after the other."""
    stay = set()
    for _ in range(keep_last):
        stay |= {max(scores.keys() - stay)} if scores.keys() - stay else set()
    left = {step: score for step, score in scores.items() if score is not None}
    for _ in range(keep_best):
        if left:
            best = (min if lower_is_better else max)(left.values())
            step = max(step for step, score in left.items() if score == best)
            stay.add(step)
            del left[step]
    return stay


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.integers(0, 50), st.one_of(st.none(), st.integers(0, 5)), max_size=12),
    st.integers(1, 4),
    st.integers(0, 4),
    st.sampled_from(["valid/t2p_r10", "valid/loss", "valid/t2p_median_rank"]),
)
def test_kept_agrees_with_picking_one_by_one(scores, keep_last, keep_best, metric):
    checkpoints = [
        (str(step), meta(step, {"other": 1.0} if score is None else {metric: float(score)}))
        for step, score in scores.items()
    ]
    expected = naive(scores, keep_last, keep_best, lower_is_better=metric != "valid/t2p_r10")
    assert kept(checkpoints, keep_last, keep_best, metric) == {str(step) for step in expected}


def test_kept_never_gives_up_the_newest():
    checkpoints = [(str(step), meta(step, {"loss": float(step)})) for step in range(5)]
    assert kept(checkpoints, 1, 2, "loss") == {"4", "0", "1"}


def make(run, *paths):
    for path in paths:
        (run / path).parent.mkdir(parents=True, exist_ok=True)
        (run / path).write_bytes(b"")


def complete(run, step, attempt):
    """A checkpoint without content; the paths it consists of."""
    place = f"step-{step:08}"
    make(run, f"{place}/{attempt}/model")
    (run / place / "meta.json").write_text(meta(step, files=[f"{attempt}/model"]).model_dump_json())
    return {f"{place}/meta.json", f"{place}/{attempt}/model"}


def left(run):
    return {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}


def test_sweep_removes_what_earlier_attempts_did_not_complete(tmp_path):
    keep = complete(tmp_path, 1, "a") | complete(tmp_path, 2, "a")
    keep |= {"step-00000003/now/model", "step-00000002/now/model", "other/a/model", ".writable"}
    make(tmp_path, *(path for path in keep if "now" in path or "step" not in path))
    make(tmp_path, "step-00000002/b/.model.partial", "step-00000003/a/model", "step-00000004/b/model")
    (tmp_path / "step-00000005").mkdir()
    sweep(str(tmp_path), "now")
    assert left(tmp_path) == keep
    assert not (tmp_path / "step-00000005").exists()


def test_sweep_leaves_what_it_does_not_understand(tmp_path):
    make(tmp_path, "step-00000001/meta.json", "step-00000001/a/model")
    sweep(str(tmp_path), "now")
    assert left(tmp_path) == {"step-00000001/meta.json", "step-00000001/a/model"}


def test_thin_out_removes_all_complete_checkpoints_but_those_named(tmp_path):
    keep = complete(tmp_path, 2, "a") | {".writable", "export/meta.json", "step-00000004/a/model"}
    make(tmp_path, *(path for path in keep if "00002" not in path))
    complete(tmp_path, 1, "a")
    complete(tmp_path, 3, "b")
    thin_out(str(tmp_path), {str(tmp_path / "step-00000002")})
    assert left(tmp_path) == keep


def test_attempts_are_those_whose_files_a_checkpoint_has(tmp_path):
    complete(tmp_path, 1, "a")
    make(tmp_path, "step-00000001/b/model", "step-00000002/b/model")
    assert attempts(str(tmp_path / "step-00000001")) == {"a"}
    assert attempts(str(tmp_path / "step-00000002")) == set()
