"""The command line `tidemill`."""
