"""The KFP pipelines, one folder each. Those in `nested` run only inside other pipelines."""
