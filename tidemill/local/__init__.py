"""The local runner: runs compiled pipelines on this machine with kfp.local."""
