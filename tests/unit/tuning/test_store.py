"""Which databases a sweep's store takes, and that what goes wrong with them is said."""

import re
import sqlite3
import sys

import optuna
import pytest

from protclip.errors import ConfigError, DataError
from protclip.tuning.store import Store


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("outputs/optuna.db", "study: not a URL; give sqlite:///FILE or postgresql://USER@HOST/DATABASE"),
        ("postgresql://host:port/db", "study: not a URL"),
        ("mysql://host/db", "study: 'mysql' is no database for studies"),
        ("postgres://host/db", "study: 'postgres' is no database for studies"),
        ("sqlite://", "study: a database in memory is gone with the sweep"),
        ("postgresql://me:hush@host/db", "give it as PGPASSWORD or in ~/.pgpass"),
        ("postgresql://host/db?password=hush", "give it as PGPASSWORD or in ~/.pgpass"),
    ],
)
def test_store_refuses_a_url(url, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as raised:
        Store(url)
    assert "hush" not in str(raised.value)


def test_store_names_the_package_of_a_missing_driver(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(
        ConfigError, match=r"^study=postgresql://host/db needs .* pip install 'psycopg\[binary\]'"
    ):
        Store("postgresql://me@host/db")


def test_store_is_a_file_in_outputs_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store(None)
    monkeypatch.chdir("/")
    optuna.create_study(storage=store.storage, study_name="s")
    assert str(store) == f"sqlite:///{tmp_path}/outputs/optuna.db"
    assert optuna.get_all_study_names(f"sqlite:///{tmp_path}/outputs/optuna.db") == ["s"]


def test_store_says_what_is_wrong_with_its_file(tmp_path):
    def refused(name):
        with pytest.raises(
            DataError, match=f"^sqlite:///{tmp_path}/{name}: the sweep's store cannot be used: "
        ) as raised:
            Store(f"sqlite:///{tmp_path}/{name}")
        return str(raised.value)

    (tmp_path / "text").write_text("not a database " * 100)
    assert "file is not a database; see that it can be written, has room" in refused("text")
    assert "File exists" in refused("text/optuna.db")
    (tmp_path / "folder").mkdir()
    assert "unable to open database file" in refused("folder")


def test_store_says_what_goes_wrong_while_it_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr("protclip.tuning.store.LOCK_TIMEOUT_S", 0.1)
    store = Store(f"sqlite:///{tmp_path}/optuna.db")
    study = optuna.create_study(storage=store.storage)
    with sqlite3.connect(tmp_path / "optuna.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DataError, match=r"database is locked; .* submit the same command again"), store:
            study.ask()
    full = (tmp_path / "optuna.db").stat().st_size // 4096
    with store.storage.engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count={full}")
        with pytest.raises(DataError, match="database or disk is full"), store:
            connection.exec_driver_sql("CREATE TABLE more AS SELECT randomblob(100000)")


def test_store_says_when_it_is_of_another_version(tmp_path):
    Store(f"sqlite:///{tmp_path}/optuna.db")
    with sqlite3.connect(tmp_path / "optuna.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    with pytest.raises(DataError, match=r"of another version of Optuna than .* `optuna storage upgrade`"):
        Store(f"sqlite:///{tmp_path}/optuna.db")
