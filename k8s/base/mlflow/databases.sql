-- Runs once, on an empty volume, after the role and the database `mlflow` have been made.
-- Sweeps sign in with a role of their own, which sees nothing of MLflow.
\getenv optuna_password OPTUNA_PASSWORD
CREATE DATABASE mlflow_auth;
CREATE ROLE optuna LOGIN PASSWORD :'optuna_password';
CREATE DATABASE optuna OWNER optuna;
REVOKE CONNECT ON DATABASE mlflow, mlflow_auth, postgres, template1 FROM PUBLIC;
