"""The component `plan_training`."""
