"""The component `ensemble`."""
