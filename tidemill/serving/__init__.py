"""Serving: what exports, replays and scores share."""
