"""The analysis of the local engine: TFT's nodes, computed by threads over units of rows."""
