"""The optimisation step and the loop around it; knows neither Ray nor MLflow."""
