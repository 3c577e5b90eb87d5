SELECT impressions.*, clicks.impression_id IS NOT NULL AS clicked
FROM impressions LEFT JOIN clicks USING (impression_id)
WHERE shown_at >= $since
