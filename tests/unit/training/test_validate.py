import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from forked import ranks
from protclip.data.collate import Collator, TextTokens
from protclip.data.dataset import PairsDataset
from protclip.data.tokenizer import TextTokenizer
from protclip.model.build import build
from protclip.training import validate
from protclip.training.replica import Replica
from protclip.training.validate import Validation
from watched_runs import settings

CPU = torch.device("cpu")


def collator(config):
    tokenizer = TextTokenizer.load("builtin")
    tokens = TextTokens(tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id)
    sizes = config.model
    return Collator(config.masking, tokens, sizes.protein.max_tokens, sizes.text.max_tokens, 0)


def measured(config, **changes):
    """Metrics of an untrained model but for the time."""
    model = build(config.model, config.loss, TextTokenizer.load("builtin").vocab_size, 0).train()
    replica = Replica(model, config, CPU)
    metrics = Validation(config, collator(config))(replica)
    assert model.training
    assert metrics.pop("seconds") > 0
    return metrics


def test_validation_measures_what_a_plain_computation_does(tiny_pairs, tmp_path, monkeypatch):
    config = settings(tiny_pairs, tmp_path, valid_pairs=11)
    monkeypatch.setattr(validate, "BATCH_PAIRS", 4)
    metrics = measured(config)
    model = build(config.model, config.loss, TextTokenizer.load("builtin").vocab_size, 0).eval()
    batch = collator(config)(PairsDataset(config.data, "valid", 0).rows(0, 0, 11), 0)
    with torch.no_grad():
        output = model(batch, None)
        blind_MV = model.bsr_logits(batch, use_text=False)
    logits_BB = output.protein_BD @ output.text_BD.T
    matched = logits_BB.diagonal().mean()
    own_B = torch.arange(11)
    gc = (cross_entropy(logits_BB / 0.07, own_B) + cross_entropy(logits_BB.T / 0.07, own_B)) / 2
    expected = {
        "matched_cosine": matched,
        "mismatched_cosine": (logits_BB.sum() - 11 * matched) / 110,
        "p2t_r1": (logits_BB.argmax(1) == own_B).double().mean(),
        "t2p_r1": (logits_BB.argmax(0) == own_B).double().mean(),
        "mlm_accuracy": (output.mlm_logits_MV.argmax(1) == output.mlm_targets_M).double().mean(),
        "loss/gc": gc,
        "loss/mlm": cross_entropy(output.mlm_logits_MV, output.mlm_targets_M),
        "loss/bsr": cross_entropy(output.bsr_logits_MV, output.bsr_targets_M),
        "loss/bsr_without_text": cross_entropy(blind_MV, output.bsr_targets_M),
    }
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value.item(), rel=1e-4, abs=1e-6), name
    assert metrics["loss/bsr"] != metrics["loss/bsr_without_text"]
    total = metrics["loss/gc"] + 0.7 * metrics["loss/bsr"] + 0.3 * metrics["loss/mlm"] + metrics["loss/pda"]
    assert metrics["loss/total"] == pytest.approx(total)


def test_validation_reads_its_rows_once(tiny_pairs, tmp_path, monkeypatch):
    config = settings(tiny_pairs, tmp_path)
    validation = Validation(config, collator(config))
    monkeypatch.setattr(PairsDataset, "read", lambda *_: pytest.fail("read again"))
    replica = Replica(build(config.model, config.loss, 2000, 0), config, CPU)
    first, second = validation(replica), validation(replica)
    assert first.keys() == second.keys()
    assert {n: v for n, v in first.items() if n != "seconds"} == {
        n: v for n, v in second.items() if n != "seconds"
    }


def test_validation_leaves_out_what_is_not_trained_and_what_is_not_finite(tiny_pairs, tmp_path):
    base = settings(tiny_pairs, tmp_path)
    loss = base.loss.model_copy(
        update={"bsr": 0.0, "mlm": 0.0, "pda": base.loss.pda.model_copy(update={"weight": 0.0})}
    )
    metrics = measured(base.model_copy(update={"loss": loss}))
    assert not {"mlm_accuracy", "loss/bsr", "loss/mlm", "loss/pda"} & metrics.keys()
    assert metrics["loss/total"] == metrics["loss/gc"]
    single = measured(settings(tiny_pairs, tmp_path, valid_pairs=1))
    assert "mismatched_cosine" not in single
    assert all(map(math.isfinite, single.values()))


def measured_by_ranks(pairs, place):
    """Metrics by strategy, on one of two ranks."""
    validate.BATCH_PAIRS = 4
    base = settings(pairs, place, valid_pairs=11)
    found = {}
    for strategy in ("ddp", "fsdp"):
        scaling = base.scaling.model_copy(update={"strategy": strategy, "num_workers": 2})
        found[strategy] = measured(base.model_copy(update={"scaling": scaling}))
    # One pair for two ranks: no rank has anything to do, and none waits for the other.
    one = base.model_copy(update={"train": base.train.model_copy(update={"valid_pairs": 1})})
    assert Validation(one, collator(one))(Replica(build(one.model, one.loss, 2000, 0), one, CPU)) == {}
    return found


def test_validation_is_the_same_on_any_number_of_ranks(tiny_pairs, tmp_path):
    with ranks(measured_by_ranks, 2, tmp_path, tiny_pairs, tmp_path) as results:
        alone = measured(settings(tiny_pairs, tmp_path, valid_pairs=11))
    for rank, found in enumerate(results):
        for strategy, metrics in found.items():
            assert metrics == pytest.approx(alone, rel=1e-4, abs=1e-5), (rank, strategy)
