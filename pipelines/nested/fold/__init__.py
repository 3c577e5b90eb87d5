"""The nested pipeline `fold`."""
