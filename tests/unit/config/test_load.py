"""The loader: YAML rules, overrides, inheritance, and what a user is told."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from protclip.config.base import Config
from protclip.config.benchmarks import SuiteConfig
from protclip.config.data import PrepareConfig
from protclip.config.load import dump_yaml, load_config
from protclip.config.schema import PretrainConfig
from protclip.config.study import SweepConfig
from protclip.errors import ConfigError
from protclip.records import Property

REQUIRED = ("data=pairs", "run.name=first")


class Inner(Config):
    """A section."""

    word: str = "w"
    number: float = 0.0


class Sample(Config):
    """One field of every kind."""

    text: str = "t"
    maybe: str | None = None
    number: float = 0.0
    whole: int = 0
    flag: bool = False
    words: tuple[str, ...] = ()
    wholes: tuple[int, ...] = ()
    shares: dict[str, float] = Field(default_factory=dict)
    inner: Inner = Inner()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """Writes `conf/<name>` below the working directory and returns that relative path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()

    def write_file(text: str, name: str = "x.yaml") -> str:
        path = Path("conf") / name
        path.write_text(text)
        return str(path)

    return write_file


def message(schema: type[Config], path: str | None, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(schema, path, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("number: 1e-4", Sample(number=1e-4)),
        ("number: .5E+3", Sample(number=500.0)),
        ("number: 3", Sample(number=3.0)),
        ("whole: 010", Sample(whole=10)),
        ("whole: -7", Sample(whole=-7)),
        ("text: NO", Sample(text="NO")),
        ("text: on", Sample(text="on")),
        ("text: 010", Sample(text="010")),
        ("text: 1e-4", Sample(text="1e-4")),
        ("text: 2024_06", Sample(text="2024_06")),
        ("text: 2024-06-01", Sample(text="2024-06-01")),
        ("text: 12:30:45", Sample(text="12:30:45")),
        ("text: true", Sample(text="true")),
        ("text: 'null'", Sample(text="null")),
        ("maybe: null", Sample(maybe=None)),
        ("maybe: ~", Sample(maybe=None)),
        ("maybe: no", Sample(maybe="no")),
        ("flag: True", Sample(flag=True)),
        ("words: [1, no, a b]", Sample(words=("1", "no", "a b"))),
        ("words:\n- x\n- 'y, z'", Sample(words=("x", "y, z"))),
        ("wholes: [1, 08]", Sample(wholes=(1, 8))),
        ("shares: {a: 1e-3, b: 1}", Sample(shares={"a": 1e-3, "b": 1.0})),
        ("inner:\n  number: 2", Sample(inner=Inner(number=2.0))),
        ("# nothing", Sample()),
        ("", Sample()),
    ],
)
def test_load_config_reads_scalars_as_yaml_1_2(
    write: Callable[[str], str], text: str, expected: Sample
) -> None:
    assert load_config(Sample, write(text)) == expected


class Named(Config):
    """A list of text, or how many."""

    names: tuple[str, ...] | int | None = None


@pytest.mark.parametrize(("text", "names"), [("7", 7), ("[7, NO]", ("7", "NO")), ("null", None)])
def test_load_config_takes_text_in_a_list_and_a_number_beside_it(
    write: Callable[[str], str], text: str, names: object
) -> None:
    assert load_config(Named, write(f"names: {text}")).names == names


@pytest.mark.parametrize("text", ["yes", "NO", "on", "off", "1", "'true'"])
def test_load_config_takes_only_true_and_false_for_booleans(write: Callable[[str], str], text: str) -> None:
    path = write(f"text: a\nflag: {text}")
    assert message(Sample, path).startswith("conf/x.yaml:2: flag: expected true or false, got ")


@pytest.mark.parametrize("text", ["0x1F", "0o17", "1_000", "1:30", "1e2", "'3'", "3.0"])
def test_load_config_takes_only_decimal_whole_numbers(write: Callable[[str], str], text: str) -> None:
    assert "conf/x.yaml:1: whole: expected whole number, got" in message(Sample, write(f"whole: {text}"))


@pytest.mark.parametrize("text", [".inf", "-.inf", ".nan", "1e999"])
def test_load_config_refuses_infinite_numbers(write: Callable[[str], str], text: str) -> None:
    assert "number: expected number, got" in message(Sample, write(f"number: {text}"))


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30) | st.sampled_from(
    [
        "NO",
        "1e-4",
        "010",
        "null",
        "~",
        "",
        "true",
        " a",
        "a: b",
        "- a",
        "#",
        "0x1",
        ".inf",
        "=",
        "<<",
        "!x",
        "&a",
    ]
)
samples = st.builds(
    Sample,
    text=texts,
    maybe=st.none() | texts,
    number=st.floats(allow_nan=False, allow_infinity=False),
    whole=st.integers(-(2**62), 2**62),
    flag=st.booleans(),
    words=st.lists(texts, max_size=4).map(tuple),
    wholes=st.lists(st.integers(-999, 999), max_size=4).map(tuple),
    shares=st.dictionaries(texts, st.floats(0, 1), max_size=3),
    inner=st.builds(Inner, word=texts, number=st.floats(-1e-3, 1e3)),
)


@given(config=samples)
def test_dump_yaml_round_trips(tmp_path_factory: pytest.TempPathFactory, config: Sample) -> None:
    path = tmp_path_factory.mktemp("dump") / "x.yaml"
    path.write_text(dump_yaml(config))
    assert load_config(Sample, path) == config


@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40).filter(
        lambda t: t[:1] not in "{['\""
    ),
    number=st.floats(allow_nan=False, allow_infinity=False),
)
def test_load_config_overrides_round_trip(text: str, number: float) -> None:
    loaded = load_config(Sample, None, [f"maybe={text}", f"number={number!r}"])
    assert loaded.number == number
    assert loaded.maybe == (None if text in {"", "~", "null", "Null", "NULL"} else text)


def test_load_config_applies_overrides_in_order(write: Callable[[str], str]) -> None:
    path = write("inner: {word: a, number: 1}\nwholes: [1, 2, 3]")
    loaded = load_config(
        Sample,
        path,
        ["inner.number=1e-4", "inner.number=2e-4", "wholes=4,5", "words=s3://b/x=1,y", "shares={a: 1}"],
    )
    assert loaded.inner == Inner(word="a", number=2e-4)
    assert loaded.wholes == (4, 5)
    assert loaded.words == ("s3://b/x=1", "y")
    assert loaded.shares == {"a": 1.0}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("wholes=4", Sample(wholes=(4,))),
        ("wholes=[4, 5]", Sample(wholes=(4, 5))),
        ("words=['a,b', c]", Sample(words=("a,b", "c"))),
        ("text='quoted: #1'", Sample(text="quoted: #1")),
        ("text=a: b # c", Sample(text="a: b # c")),
        ("text=*.yaml", Sample(text="*.yaml")),
        ("text=a=b", Sample(text="a=b")),
        ("maybe=null", Sample(maybe=None)),
        ("maybe=", Sample(maybe=None)),
        ("inner={number: 1e-4, word: no}", Sample(inner=Inner(number=1e-4, word="no"))),
    ],
)
def test_load_config_parses_override_values(override: str, expected: Sample) -> None:
    assert load_config(Sample, None, [override]) == expected


def test_load_config_takes_theta_per_property() -> None:
    given_ = "loss.pda.theta={protein_name: 0.3, function: 1e-1, subcellular_location: 0, similarity: 0.2}"
    loaded = load_config(PretrainConfig, None, [*REQUIRED, given_])
    assert loaded.loss.pda.thetas == (0.3, 0.1, 0.0, 0.2)
    assert set(loaded.loss.pda.theta) == set(Property)


def test_load_config_merges_a_chain_of_parents(write: Callable[[str, str], str]) -> None:
    Path("conf/base").mkdir()
    write("text: far\nwhole: 1\nwords: [a, b]\ninner: {word: far, number: 1}", "base/far.yaml")
    write("extends: base/far.yaml\ntext: near\ninner: {number: 2}", "near.yaml")
    path = write("extends: near.yaml\nwords: [c]\nflag: true", "x.yaml")
    assert load_config(Sample, path) == Sample(
        text="near", whole=1, words=("c",), flag=True, inner=Inner(word="far", number=2)
    )


def test_load_config_names_the_file_a_wrong_key_came_from(write: Callable[[str, str], str]) -> None:
    write("flag: true\ninner:\n  wrod: x\n  number: fast", "parent.yaml")
    text = message(Sample, write("extends: parent.yaml\nwhole: 1.5"), "number=quick")
    assert text.splitlines() == [
        "command line: number: expected number, got 'quick'",
        "conf/x.yaml:2: whole: expected whole number, got 1.5",
        "conf/parent.yaml:4: inner.number: expected number, got 'fast'",
        "conf/parent.yaml:3: unknown key 'inner.wrod'; did you mean 'inner.word'?",
    ]


def test_load_config_reports_circular_parents(write: Callable[[str, str], str]) -> None:
    write("extends: x.yaml", "b.yaml")
    path = write("text: a\nextends: b.yaml")
    assert message(Sample, path) == (
        "conf/b.yaml:1: extends goes round in a circle: conf/x.yaml → conf/b.yaml → conf/x.yaml"
    )


@pytest.mark.parametrize("value", ["[a.yaml, b.yaml]", "3", "{a: 1}", "null"])
def test_load_config_refuses_other_than_one_parent(write: Callable[[str], str], value: str) -> None:
    assert message(Sample, write(f"extends: {value}")) == (
        "conf/x.yaml:1: extends names one file, relative to this one"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optim:\n\n  learning_rate: 1", "3: unknown key 'optim.learning_rate'; did you mean 'optim.lr'?"),
        ("train:\n  max_step: 1", "2: unknown key 'train.max_step'; did you mean 'train.max_steps'?"),
        ("lr: 1e-4", "1: unknown key 'lr'; did you mean 'optim.lr'?"),
        ("optm: {lr: 1}", "1: unknown key 'optm'; did you mean 'optim'?"),
        ("loss: {pda: {zzz: 1}}", "1: unknown key 'loss.pda.zzz'; known keys here: weight, theta, "),
        ("optim.lr: 1", "1: unknown key 'optim.lr'; in a file, nest it: optim: {lr: …}"),
        ("trian: {lr: 1}", "1: unknown key 'trian'; did you mean 'train'?"),
        ("quux: {a: 1}", "1: unknown key 'quux'; known keys here: data, run, model, "),
    ],
)
def test_load_config_suggests_for_unknown_keys(write: Callable[[str], str], text: str, expected: str) -> None:
    assert f"conf/x.yaml:{expected}" in message(PretrainConfig, write(text), *REQUIRED)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optim.lr=0", "command line: optim.lr: expected number > 0, got 0"),
        ("optim.lr=fast", "command line: optim.lr: expected number > 0, got 'fast'"),
        ("optim.warmup_share=2", "command line: optim.warmup_share: expected number from 0 to 1, got 2"),
        ("optim.betas=0.9", "command line: optim.betas: expected list of 2 numbers from 0 to 1, got 0.9"),
        ("train.max_steps=1e3", "command line: train.max_steps: expected whole number ≥ 1, got 1000.0"),
        ("train.precision=fp8", "train.precision: expected one of auto, fp32, bf16, got 'fp8'"),
        ("scaling.use_gpu=maybe", "scaling.use_gpu: expected true or false or null, got 'maybe'"),
        ("loss.pda.theta=1", "loss.pda.theta: expected number ≥ 0 and < 1 or mapping {protein_name, "),
        ("loss.pda.theta={name: 0.1}", 'got {"name": 0.1}'),
        ("loss.pda.theta.function=0.1", "missing: protein_name, subcellular_location, similarity"),
        ("optim=3", "command line: optim: expected a section with keys of its own, got 3"),
        ("train.seed.x=1", 'command line: train.seed: expected whole number ≥ 0, got {"x": 1}'),
        ("run.name=a/b", "run.name: expected text matching"),
        (
            "scaling.num_workers=3000",
            "train.global_batch=2048 leaves some of scaling.num_workers=3000",
        ),
        ("scaling.min_workers=2", "scaling.min_workers=2 is above scaling.num_workers=1; lower it"),
        ("model.protein={lora: {rank: 4}, train_layers: 2}", "drop train_layers or lora.rank"),
        ("optim", "command line: expected key=value, got 'optim'"),
        ("conf/a.yaml", "a file is given as --config conf/a.yaml"),
        ("run={name: a", "command line: not valid YAML: "),
    ],
)
def test_load_config_says_what_is_allowed(override: str, expected: str) -> None:
    assert expected in message(PretrainConfig, None, *REQUIRED, override)


def test_load_config_places_cross_field_errors(write: Callable[[str], str]) -> None:
    path = write("masking:\n  segment_min: 9\n  segment_max: 8")
    assert message(PretrainConfig, path, *REQUIRED) == (
        "conf/x.yaml:1: masking: segment_min is above segment_max; swap them"
    )


def test_load_config_says_how_to_give_missing_keys(write: Callable[[str], str]) -> None:
    assert message(PretrainConfig, write("optim: {lr: 1e-4}")).splitlines() == [
        "conf/x.yaml: missing key 'data' (URI of the pairs); give it in the file or as data=…",
        "conf/x.yaml: missing key 'run.name' (name; submitting the same name and storage again continues the "
        "run); give it in the file or as run.name=…",
    ]
    assert message(PretrainConfig, None, "run.storage=s", "data=d").startswith(
        "command line: missing key 'run.name' ("
    )


def test_load_config_never_shows_pydantic(write: Callable[[str], str]) -> None:
    path = write("inputs: 3\nblock_mb: []\nmissing_confidence: 7\nformat: {a: 1}\ntracking: null\nx: 1")
    text = message(PrepareConfig, path)
    assert len(text.splitlines()) == 7
    assert not re.search(r"pydantic|validation error|input_value|type=|Input should", text)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: 1\nb: 2\na: 3", "conf/x.yaml:3: duplicate key 'a', first given at conf/x.yaml:1"),
        (
            b"inner:\n  word: a\n  word: b",
            "conf/x.yaml:3: duplicate key 'word', first given at conf/x.yaml:2",
        ),
        (b"- a\n- b", "conf/x.yaml: expected keys at the top level"),
        (b"just words", "conf/x.yaml: expected keys at the top level"),
        (b"a: [1, 2\nb: 3", "conf/x.yaml:2: not valid YAML: "),
        (b"a: 1\n\tb: 2", "conf/x.yaml:2: not valid YAML: "),
        (b"a: 1\n---\nb: 2", "conf/x.yaml:2: not valid YAML: "),
        (b"[a, b]: 1", "conf/x.yaml:1: a key must be a plain name"),
        (b"text: a\ninner: &x {word: a}", "conf/x.yaml:2: not valid YAML: anchors, aliases and tags are not"),
        (b"text: *x", "conf/x.yaml:1: not valid YAML: anchors, aliases and tags are not supported"),
        (b"text: !!python/object:os.system x", "anchors, aliases and tags are not supported"),
        (b"text: \xff", "conf/x.yaml: not a text file in UTF-8"),
        (b"text: \x00", "conf/x.yaml: not valid YAML: "),
    ],
)
def test_load_config_explains_unreadable_files(
    write: Callable[[str], str], content: bytes, expected: str
) -> None:
    path = write("")
    Path(path).write_bytes(content)
    assert expected in message(Sample, path)


def test_load_config_explains_missing_files(write: Callable[[str], str]) -> None:
    assert message(Sample, "conf/none.yaml").startswith(
        "conf/none.yaml: cannot be read: No such file or directory; check --config"
    )
    assert message(Sample, write("extends: none.yaml")).startswith("conf/none.yaml: cannot be read: ")
    assert message(Sample, "conf").startswith("conf: cannot be read: Is a directory")


def test_load_config_cuts_long_values() -> None:
    text = message(SuiteConfig, None, "benchmarks=a", "checkpoint=c", "output=o", "seeds=" + "x," * 100)
    assert text.endswith("…")
    assert len(text) < 200


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("space={loss.bsr: {low: 3}}", "space.loss.bsr: low=3 is not below high=1; swap them"),
        ("space={loss.bsr: {low: a}}", "space.loss.bsr.low: expected a valid number, got 'a'"),
        (
            "space={loss.bsr: {lo: 1}}",
            "unknown key 'space.loss.bsr.lo'; space expects mapping {name} to keys low,",
        ),
        ("objectives={valid/x: max}", "objectives.valid/x: expected 'minimize' or 'maximize', got 'max'"),
    ],
)
def test_load_config_names_the_part_of_a_mapping_that_is_wrong(override: str, expected: str) -> None:
    sweep = str(Path(__file__).resolve().parents[3] / "conf/sweeps/lambda_theta.yaml")
    assert expected in message(SweepConfig, sweep, "data=d", override)
