"""The KFP pipelines: components connected, one folder each."""
