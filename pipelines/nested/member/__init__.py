"""The nested pipeline `member`."""
