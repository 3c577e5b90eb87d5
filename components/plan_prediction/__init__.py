"""The component `plan_prediction`."""
