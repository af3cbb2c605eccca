module haven/perf

go 1.22
