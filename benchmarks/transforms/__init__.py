"""The same transform four times: by Tidemill's engines, and by scripts for DuckDB and Polars."""
