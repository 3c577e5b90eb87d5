"""Running the compiled pipelines on this machine with kfp.local."""
