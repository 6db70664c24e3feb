"""Gives the administrator and the jobs of MLflow the passwords of their Secrets; runs before the server.

What is right stays as it is: a password is changed by changing the Secret and restarting.
"""

import os

from mlflow.server.auth.config import read_auth_config
from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import create_engine, text


def main(jobs: str, jobs_password: str) -> None:
    """Makes the tables and the two accounts, or sets their passwords."""
    config = read_auth_config()
    with create_engine(config.database_uri).connect() as connection:
        # Replicas that start together take turns.
        connection.execute(text("SELECT pg_advisory_lock(1)"))
        store = SqlAlchemyStore()
        store.init_db(config.database_uri)
        for name, password, is_admin in (
            (config.admin_username, config.admin_password, True),
            (jobs, jobs_password, False),
        ):
            if not store.has_user(name):
                store.create_user(name, password, is_admin=is_admin)
            elif not store.authenticate_user(name, password):
                store.update_user(name, password)


if __name__ == "__main__":
    main(os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"])
