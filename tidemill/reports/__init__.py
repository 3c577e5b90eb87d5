"""HTML pages that several steps write: the evaluation report, the leaderboard and the experiment report."""
