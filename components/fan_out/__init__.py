"""The component `fan_out`."""
