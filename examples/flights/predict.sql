-- The rows to score: all scheduled flights of one month, also those that did not land. The columns are those of
-- flights.sql without the label.
SELECT
    f.carrier, f.flight, f.origin, f.dest,
    make_timestamp(f.year, f.month, f.day, f.sched_dep_time // 100, f.sched_dep_time % 100, 0) AS scheduled,
    f.carrier || f.flight AS flight_number,
    f.origin || '-' || f.dest AS route,
    f.tailnum,
    f.month,
    isodow(make_date(f.year, f.month, f.day)) AS weekday,
    f.hour,
    f.sched_dep_time // 100 * 60 + f.sched_dep_time % 100 AS departure_minute,
    f.sched_arr_time // 100 * 60 + f.sched_arr_time % 100 AS arrival_minute,
    f.distance,
    f.year - p.year AS aircraft_age,
    p.manufacturer, p.model, p.seats,
    w.temp, w.dewp, w.humid, w.wind_dir, w.wind_speed, w.precip, w.pressure, w.visib
FROM flights f
LEFT JOIN planes p ON p.tailnum = f.tailnum
LEFT JOIN weather w ON w.origin = f.origin AND w.time_hour = f.time_hour - INTERVAL 1 HOUR
WHERE f.month = $month
